package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/emicklei/go-restful/v3"

	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/leme-k8s/leme/pkg/component"
)

// builtinV2 is the document of the kinds that servers have in their code.
func builtinV2(services []*restful.WebService, config *common.Config) (*spec.Swagger, error) {
	s, err := builder.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices(services), config)
	if err != nil {
		return nil, err
	}
	s.Definitions = handler.PruneDefaults(s.Definitions)
	return s, nil
}

// builtinV3 serves a document of each version that servers have in their code. One is
// made when somebody asks for it: most clients want a few of them and look the others
// up in the index. For the index they need not be made either. By the hash in it a client
// knows whether a document has changed, and what is in the code changes with the
// version of the code; one who comes with the hash of another is sent to the right one.
type builtinV3 struct {
	index     []byte
	started   time.Time
	documents map[string]func() http.Handler // by path
}

func newBuiltinV3(services []*restful.WebService, config *common.OpenAPIV3Config) (*builtinV3, error) {
	b := &builtinV3{started: time.Now(), documents: map[string]func() http.Handler{}}
	index := handler3.OpenAPIV3Discovery{Paths: map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}}
	for _, s := range services {
		path := strings.TrimPrefix(s.RootPath(), "/")
		index.Paths[path] = handler3.OpenAPIV3DiscoveryGroupVersion{
			ServerRelativeURL: (&url.URL{Path: "/openapi/v3/" + path, RawQuery: url.Values{"hash": {component.Version}}.Encode()}).String(),
		}
		b.documents[path] = sync.OnceValue(func() http.Handler {
			m, one := mux.NewPathRecorderMux("openapi"), restful.NewContainer()
			one.Add(s)
			routes.OpenAPI{V3Config: config}.InstallV3(one, m)
			return m
		})
	}
	var err error
	if b.index, err = json.Marshal(index); err != nil {
		return nil, fmt.Errorf("index of OpenAPI documents: %w", err)
	}
	return b, nil
}

// ServeHTTP implements http.Handler.
func (b *builtinV3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/openapi/v3"), "/")
	if path == "" {
		w.Header().Set("Content-Type", "application/json")
		http.ServeContent(w, r, "", b.started, bytes.NewReader(b.index))
		return
	}
	document := b.documents[path]
	if document == nil {
		http.NotFound(w, r)
		return
	}
	document().ServeHTTP(w, r)
}
