package openapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	controllerv2 "k8s.io/kube-aggregator/pkg/controllers/openapi"
	aggregatorv2 "k8s.io/kube-aggregator/pkg/controllers/openapi/aggregator"
	controllerv3 "k8s.io/kube-aggregator/pkg/controllers/openapiv3"
	aggregatorv3 "k8s.io/kube-aggregator/pkg/controllers/openapiv3/aggregator"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/cached"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// A follower asks aggregated API servers for their documents, again and again.
type follower interface {
	AddAPIService(http.Handler, *apiregistrationv1.APIService)
	RemoveAPIService(name string)
	RunWithContext(context.Context)
}

// follow tells f which API servers there are, until ctx ends.
func (d *Documents) follow(ctx context.Context, f follower) error {
	add := func(s *apiregistrationv1.APIService) {
		if s.Spec.Service == nil {
			f.RemoveAPIService(s.Name)
			return
		}
		f.AddAPIService(d.Proxy(s), s)
	}
	handle, err := d.APIServices.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { add(o.(*apiregistrationv1.APIService)) },
		UpdateFunc: func(was, is any) {
			was1, is1 := was.(*apiregistrationv1.APIService), is.(*apiregistrationv1.APIService)
			if !reflect.DeepEqual(was1.Spec, is1.Spec) || available(was1) != available(is1) {
				add(is1)
			}
		},
		DeleteFunc: func(o any) {
			if name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				f.RemoveAPIService(name)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watching APIServices: %w", err)
	}
	f.RunWithContext(ctx)
	return d.APIServices.Informer().RemoveEventHandler(handle)
}

func available(s *apiregistrationv1.APIService) bool {
	return helper.IsAPIServiceConditionTrue(s, apiregistrationv1.Available)
}

// serveV2 adds to m the document of local and of all aggregated API servers.
func serveV2(m *mux.PathRecorderMux, local cached.Value[*spec.Swagger]) follower {
	downloader := aggregatorv2.NewDownloader()
	r := &remoteV2{downloader: &downloader, local: local, remotes: map[string]*remote{}}
	handler.NewOpenAPIServiceLazy(r).RegisterOpenAPIVersionedService("/openapi/v2", m)
	return controllerv2.NewAggregationController(&downloader, r)
}

// remoteV2 is the document of local and of all aggregated API servers.
type remoteV2 struct {
	downloader *aggregatorv2.Downloader
	local      cached.Value[*spec.Swagger]

	mu      sync.Mutex
	remotes map[string]*remote // by name of their APIService
	merged  *spec.Swagger
	etag    string
}

// remote is an aggregated API server and its part of the document, once it is known.
type remote struct {
	service  *apiregistrationv1.APIService
	download aggregatorv2.CacheableDownloader
	document *spec.Swagger
	etag     string
}

var _ aggregatorv2.SpecAggregator = &remoteV2{}

// AddUpdateAPIService implements SpecAggregator.
func (r *remoteV2) AddUpdateAPIService(s *apiregistrationv1.APIService, h http.Handler) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.remotes[s.Name]; known != nil {
		known.service = s
		known.download.UpdateHandler(h)
		return nil
	}
	r.remotes[s.Name] = &remote{service: s, download: aggregatorv2.NewCacheableDownloader(s.Name, r.downloader, h)}
	return nil
}

// UpdateAPIServiceSpec implements SpecAggregator. A document that cannot be had any more
// stays as it was.
func (r *remoteV2) UpdateAPIServiceSpec(name string) error {
	r.mu.Lock()
	known := r.remotes[name]
	r.mu.Unlock()
	if known == nil {
		return aggregatorv2.ErrAPIServiceNotFound
	}
	document, etag, err := known.download.Get() // of the one controller that calls this
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	gv := known.service.Spec
	known.document = aggregator.FilterSpecByPathsWithoutSideEffects(document, []string{"/apis/" + gv.Group + "/" + gv.Version + "/"})
	known.etag = etag
	return nil
}

// RemoveAPIService implements SpecAggregator.
func (r *remoteV2) RemoveAPIService(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.remotes, name)
}

// Get implements cached.Value.
func (r *remoteV2) Get() (*spec.Swagger, string, error) {
	local, etag, err := r.local.Get()
	if err != nil {
		return nil, "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var known []*remote
	for _, remote := range r.remotes {
		if remote.document != nil {
			known = append(known, remote)
		}
	}
	if len(known) == 0 {
		r.merged = nil
		return local, etag, nil
	}
	// Where they disagree, the first is right.
	slices.SortFunc(known, func(a, b *remote) int {
		x, y := a.service.Spec, b.service.Spec
		return cmp.Or(cmp.Compare(y.GroupPriorityMinimum, x.GroupPriorityMinimum), cmp.Compare(x.Group, y.Group),
			cmp.Compare(y.VersionPriority, x.VersionPriority), cmp.Compare(a.service.Name, b.service.Name))
	})
	for _, remote := range known {
		etag += fmt.Sprintf("%s=%s;", remote.service.Name, remote.etag)
	}
	if r.merged != nil && r.etag == etag {
		return r.merged, r.etag, nil
	}
	merged := *local
	merged.Paths, merged.Definitions, merged.Parameters = nil, nil, nil
	for _, document := range append([]*spec.Swagger{local}, documents(known)...) {
		if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(&merged, document); err != nil {
			return nil, "", fmt.Errorf("merging the documents of aggregated API servers: %w", err)
		}
	}
	r.merged, r.etag = &merged, etag
	return r.merged, r.etag, nil
}

func documents(of []*remote) []*spec.Swagger {
	var all []*spec.Swagger
	for _, r := range of {
		all = append(all, r.document)
	}
	return all
}

// serveV3 serves the documents of local and of all aggregated API servers.
func serveV3(builtin *builtinV3, custom *customV3) (http.Handler, follower, error) {
	m := mux.NewPathRecorderMux("openapi")
	all, err := aggregatorv3.BuildAndRegisterAggregator(aggregatorv3.NewDownloader(), server.NewEmptyDelegate(), nil, nil, m)
	if err != nil {
		return nil, nil, err
	}
	const builtinName, customName = "built-in", "custom"
	all.AddUpdateAPIService(builtin, &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: builtinName}})
	all.AddUpdateAPIService(custom, &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: customName}})
	if err := all.UpdateAPIServiceSpec(builtinName); err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	update := func() error {
		mu.Lock() // or somebody would be told of a change before it can be seen
		defer mu.Unlock()
		changed, err := custom.update()
		if err != nil || !changed {
			return err
		}
		return all.UpdateAPIServiceSpec(customName)
	}
	serve := func(w http.ResponseWriter, r *http.Request) {
		if err := update(); err != nil {
			klog.FromContext(r.Context()).Error(err, "Documents of custom resources are out of date")
		}
		m.ServeHTTP(w, r)
	}
	return http.HandlerFunc(serve), controllerv3.NewAggregationController(remotesV3{all}), nil
}

// remotesV3 hides from a controller what is local, which it would ask each second
// whether it has changed.
type remotesV3 struct{ aggregatorv3.SpecProxier }

// GetAPIServiceNames implements SpecProxier.
func (remotesV3) GetAPIServiceNames() []string { return nil }
