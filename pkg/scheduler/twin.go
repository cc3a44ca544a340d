package scheduler

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// A closedMind hears of nothing but what it is told: it has informers that are never
// started, and a client, if it has one, that cannot write.
type closedMind struct {
	*mind
	informers informers.SharedInformerFactory
}

func newClosedMind(ctx context.Context, c *configv1.KubeSchedulerConfiguration, plugins framework.Registry, gates framework.Gates, extenders []fwk.Extender, kubeConfig *rest.Config) (*closedMind, error) {
	config := readOnly(kubeConfig)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	known := informers.NewSharedInformerFactory(nil, 0)
	m, err := newMind(ctx, c, plugins, framework.Deps{Client: client, KubeConfig: config, Informers: known, Extenders: extenders, Gates: gates},
		func(string) events.EventRecorderLogger { return &events.FakeRecorder{} })
	if err != nil {
		return nil, err
	}
	m.queue = queue.New(queue.Config{Less: m.less()})
	return &closedMind{m, known}, nil
}

// twin returns a mind that knows what the scheduler knows now.
func (s *Scheduler) twin(ctx context.Context) (*closedMind, error) {
	t, err := newClosedMind(ctx, s.component, s.config.Plugins, s.config.Gates, s.extenders, s.config.KubeConfig)
	if err != nil {
		return nil, err
	}
	now, done := context.WithCancel(ctx)
	done() // the factory names the kinds that it watches only where one waits for them
	for kind := range s.informers.WaitForCacheSync(now.Done()) {
		object, ok := reflect.New(kind.Elem()).Interface().(runtime.Object)
		if !ok {
			continue
		}
		objects := s.informers.InformerFor(object, nil).GetStore().List()
		if err := t.store(object).Replace(objects, ""); err != nil {
			return nil, err
		}
	}
	for name, fw := range s.profiles {
		if err := t.profiles[name].TakeMemoryOf(fw); err != nil {
			return nil, err
		}
	}
	t.cache = s.cache.Copy()
	t.groups.TakePodsOf(s.groups)
	t.queue.TakePromisesOf(s.queue)
	return t, nil
}

// store is where objects of one kind are kept.
func (m *closedMind) store(kind runtime.Object) toolscache.Indexer {
	return m.informers.InformerFor(kind, func(_ kubernetes.Interface, resync time.Duration) toolscache.SharedIndexInformer {
		return toolscache.NewSharedIndexInformer(nil, kind, resync, toolscache.Indexers{toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc})
	}).GetIndexer()
}

// readOnly returns a configuration whose clients read, and do nothing else.
func readOnly(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return reader{next} })
	return c
}

type reader struct{ http.RoundTripper }

// RoundTrip refuses requests that would change something.
func (r reader) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return nil, fmt.Errorf("this scheduler only tries what would happen: %s %s is not sent", req.Method, req.URL.Path)
	}
	return r.RoundTripper.RoundTrip(req)
}
