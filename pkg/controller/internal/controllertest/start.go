package controllertest

import (
	"context"
	"net/http"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/leme-k8s/leme/pkg/controller/internal/fanout"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/terse"
)

// A Registrar is a controller that adds itself to a manager.
type Registrar interface {
	Register(mgr manager.Manager, o controller.Options) error
}

// Start runs one controller, of three workers, on an API server that knows these
// namespaced kinds, until the test ends. It returns a client without a cache.
func Start(t *testing.T, cfg *rest.Config, kinds []schema.GroupVersionKind, indexes []index.Index, assemble func(cached, live client.Client) Registrar) client.Client {
	t.Helper()
	live, stop := Run(t, cfg, Setup{Kinds: kinds, Indexes: indexes, Assemble: func(cached, live client.Client) []Registrar {
		return []Registrar{assemble(cached, live)}
	}})
	t.Cleanup(stop)
	return live
}

// Setup is what some controllers need.
type Setup struct {
	// Kinds that they know, all of them namespaced.
	Kinds   []schema.GroupVersionKind
	Indexes []index.Index
	// Namespace is the only one that they see, if it is not empty.
	Namespace string
	Assemble  func(cached, live client.Client) []Registrar
}

// Run is like Start, for more than one controller, and until the returned function is called.
func Run(t *testing.T, cfg *rest.Config, s Setup) (live client.Client, stop func()) {
	t.Helper()
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, k := range s.Kinds {
		mapper.Add(k, meta.RESTScopeNamespace)
		mapper.Add(k.GroupVersion().WithKind(k.Kind+"List"), meta.RESTScopeNamespace) // a cache of some namespaces asks for it
	}
	var namespaces map[string]cache.Config
	if s.Namespace != "" {
		namespaces = map[string]cache.Config{s.Namespace: {}}
	}
	mgr, err := manager.New(cfg, manager.Options{
		NewCache: fanout.New, Cache: cache.Options{DefaultNamespaces: namespaces},
		Scheme: scheme.Scheme, Logger: klog.Background().V(1), Metrics: metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil },
		Controller:     config.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range s.Indexes {
		if err := mgr.GetFieldIndexer().IndexField(t.Context(), i.Object, i.Field, i.Values); err != nil {
			t.Fatal(err)
		}
	}
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	live, err = client.New(cfg, client.Options{HTTPClient: hc, Scheme: scheme.Scheme, Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	if live, err = terse.NewClient(live, cfg, hc); err != nil {
		t.Fatal(err)
	}
	consistent, err := client.New(cfg, client.Options{Scheme: scheme.Scheme, Mapper: mapper, Cache: &client.CacheOptions{
		Reader: mgr.GetCache(), EnableReadYourWritesConsistency: ptr.To(true),
	}})
	if err != nil {
		t.Fatal(err)
	}
	cached := ownwrites.NewClient(consistent, live, ownwrites.NewProgress(mgr.GetCache()))
	for _, r := range s.Assemble(cached, live) {
		if err := r.Register(mgr, controller.Options{MaxConcurrentReconciles: 3}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	return live, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
