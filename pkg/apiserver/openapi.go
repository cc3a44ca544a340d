package apiserver

import (
	"net/http"
	"sync"

	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	openapi "k8s.io/kube-openapi/pkg/common"
)

// installOpenAPI serves /openapi/v2 and /openapi/v3. The documents are built when a client first
// asks: few clients do, and building takes longer and holds more memory than most of a server.
func installOpenAPI(s *server.GenericAPIServer, v2 *openapi.Config, v3 *openapi.OpenAPIV3Config) {
	documents := routes.OpenAPI{Config: v2, V3Config: v3}
	for _, path := range []string{"/openapi/v2", "/openapi/v3"} {
		build := sync.OnceValue(func() http.Handler {
			m := mux.NewPathRecorderMux("openapi")
			if path == "/openapi/v2" {
				documents.InstallV2(s.Handler.GoRestfulContainer, m)
			} else {
				documents.InstallV3(s.Handler.GoRestfulContainer, m)
			}
			return m
		})
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { build().ServeHTTP(w, r) })
		s.Handler.NonGoRestfulMux.Handle(path, handler)
		s.Handler.NonGoRestfulMux.HandlePrefix(path+"/", handler)
	}
}
