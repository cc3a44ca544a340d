package apiserver

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/emicklei/go-restful/v3"
)

// The router finds what the library's finds.
func TestRouter(t *testing.T) {
	service := func(root string, routes ...string) *restful.WebService {
		s := new(restful.WebService).Path(root).Consumes("*/*").Produces("application/json", "application/vnd.kubernetes.protobuf")
		for _, path := range routes {
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch} {
				s.Route(s.Method(method).Path(path).To(func(*restful.Request, *restful.Response) {}))
			}
		}
		return s
	}
	patches := service("/patches")
	patches.Route(patches.PATCH("/{name}").Consumes("application/json-patch+json").To(func(*restful.Request, *restful.Response) {}))
	services := []*restful.WebService{
		service("/apis", ""), service("/apis/apps", ""), service("/apis/apps/v1", "", "/deployments", "/namespaces/{namespace}/deployments/{name}"),
		service("/api/v1", "", "/pods", "/namespaces", "/namespaces/{name}", "/namespaces/{namespace}/pods", "/namespaces/{namespace}/pods/{name}",
			"/namespaces/{namespace}/pods/{name}/proxy", "/namespaces/{namespace}/pods/{name}/proxy/{path:*}", "/namespaces/{name}/finalize"),
		service("/version", ""), patches,
	}
	r := newRouter(services)
	sure := 0
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		for _, path := range []string{
			"/", "/apis", "/apis/", "/apis/apps", "/apis/apps/v1", "/apis/apps/v1/", "/apis/apps/v2", "/apis/apps/v1/deployments", "/apis/apps/v1/replicasets",
			"/apis/apps/v1/namespaces/default/deployments/web", "/api", "/api/v1", "/api/v1/pods", "/api/v1/pods/", "/api/v1//pods", "/api/v1/namespaces/default",
			"/api/v1/namespaces/default/finalize", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/pods/web", "/api/v1/namespaces//pods/web",
			"/api/v1/namespaces/default/pods/web/proxy", "/api/v1/namespaces/default/pods/web/proxy/", "/api/v1/namespaces/default/pods/web/proxy/a/b",
			"/api/v1/namespaces/default/pods/web/log", "/api/v1/namespaces/pods/pods/pods", "/version", "/versions", "/patches/x",
		} {
			for _, accept := range []string{"", "application/json", "application/yaml;q=0.5, application/vnd.kubernetes.protobuf", "text/html, */*;q=0.1", "text/html"} {
				for _, contentType := range []string{"", "application/json", "application/json-patch+json", "application/json-patch+json; charset=utf-8", "text/plain, application/json-patch+json", "text/plain"} {
					request := httptest.NewRequest(method, path, nil)
					request.Header.Set("Accept", accept)
					request.Header.Set("Content-Type", contentType)
					wantService, want, wantErr := restful.CurlyRouter{}.SelectRoute(services, request)
					gotService, got, err := r.SelectRoute(services, request)
					if gotService != wantService || (got == nil) != (want == nil) || (err == nil) != (wantErr == nil) || got != nil && (got.Path != want.Path || got.Method != want.Method) {
						t.Errorf("%s %s, Accept %q, Content-Type %q: %v, %v, want %v, %v", method, path, accept, contentType, got, err, want, wantErr)
					}
					if found, ok := r.root.find(method, pathParts(path)); ok && found.takes(request) {
						sure++
					}
				}
			}
		}
	}
	if sure < 100 {
		t.Errorf("only %d requests are answered without the library", sure)
	}

	more := append(services, service("/late", ""))
	if s, _, err := r.SelectRoute(more, httptest.NewRequest(http.MethodGet, "/late", nil)); err != nil || s.RootPath() != "/late" {
		t.Errorf("a service that came later is not found: %v", err)
	}
}
