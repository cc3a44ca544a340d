// Package openapi serves /openapi/v2 and /openapi/v3: the documents of built-in kinds, of
// custom resources, and of aggregated API servers.
//
// Nothing is built before a client first asks: few clients do, and building takes longer
// and holds more memory than most of a server. After that, documents follow what is
// defined: those of custom resources when a client asks, those of aggregated servers
// with the library's controllers.
package openapi

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/emicklei/go-restful/v3"

	crdlisters "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationinformers "k8s.io/kube-aggregator/pkg/client/informers/externalversions/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/common"
)

// Documents are what the server says about itself.
type Documents struct {
	V2 *common.Config
	V3 *common.OpenAPIV3Config
	// Servers have the built-in kinds.
	Servers []*restful.Container
	// CRDs define custom resources.
	CRDs crdlisters.CustomResourceDefinitionLister
	// APIServices name aggregated API servers, which Proxy reaches.
	APIServices apiregistrationinformers.APIServiceInformer
	Proxy       func(*apiregistrationv1.APIService) http.Handler
}

// Install adds the documents to a server.
func (d *Documents) Install(s *server.GenericAPIServer) error {
	for _, version := range []struct {
		path   string
		prefix bool
		hook   string
		build  func() (http.Handler, follower, error)
	}{
		{"/openapi/v2", false, "apiservice-openapi-controller", d.buildV2},
		{"/openapi/v3", true, "apiservice-openapiv3-controller", d.buildV3},
	} {
		asked := make(chan follower, 1)
		build := sync.OnceValue(func() http.Handler {
			handler, follow, err := version.build()
			if err != nil {
				klog.Background().Error(err, "Building OpenAPI documents", "path", version.path)
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					http.Error(w, err.Error(), http.StatusInternalServerError)
				})
			}
			asked <- follow
			return handler
		})
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { build().ServeHTTP(w, r) })
		s.Handler.NonGoRestfulMux.Handle(version.path, handler)
		if version.prefix {
			s.Handler.NonGoRestfulMux.HandlePrefix(version.path+"/", handler)
		}
		if err := s.AddPostStartHook(version.hook, func(hc server.PostStartHookContext) error {
			go func() {
				select {
				case <-hc.Done():
				case follow := <-asked:
					if err := d.follow(hc.Context, follow); err != nil {
						klog.FromContext(hc).Error(err, "Following aggregated API servers", "path", version.path)
					}
				}
			}()
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// webServices are those of all servers. Where several have the same, such as /version,
// one will do.
func (d *Documents) webServices() []*restful.WebService {
	var all []*restful.WebService
	seen := sets.New[string]()
	for _, s := range d.Servers {
		for _, service := range s.RegisteredWebServices() {
			if !seen.Has(service.RootPath()) {
				all = append(all, service)
				seen.Insert(service.RootPath())
			}
		}
	}
	return all
}

// buildV2 makes one document of everything.
func (d *Documents) buildV2() (http.Handler, follower, error) {
	builtin, err := builtinV2(d.webServices(), d.V2)
	if err != nil {
		return nil, nil, fmt.Errorf("built-in kinds: %w", err)
	}
	m := mux.NewPathRecorderMux("openapi")
	return m, serveV2(m, &customV2{builtin: builtin, crds: d.CRDs}), nil
}

// buildV3 makes a document of each version.
func (d *Documents) buildV3() (http.Handler, follower, error) {
	builtin, err := newBuiltinV3(d.webServices(), d.V3)
	if err != nil {
		return nil, nil, err
	}
	custom, err := newCustomV3(builtin, d.CRDs)
	if err != nil {
		return nil, nil, err
	}
	return serveV3(builtin, custom)
}
