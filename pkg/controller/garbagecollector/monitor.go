package garbagecollector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/lru"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/metawatch"
)

const (
	// patience is how long the start waits for all kinds to be listed.
	patience = 30 * time.Second
	// settle is how long after a change of what is served discovery is asked again: the
	// API server needs a moment itself.
	settle = time.Second
	// rediscover is how often discovery is asked when nothing seems to have changed.
	rediscover = 5 * time.Minute
)

// ignored kinds own nothing, are owned by nothing and change all the time.
var ignored = sets.New(
	schema.GroupResource{Resource: "events"},
	schema.GroupResource{Group: "events.k8s.io", Resource: "events"},
)

// definitions are the kinds whose objects change what is served.
var definitions = sets.New(
	schema.GroupResource{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
	schema.GroupResource{Group: "apiregistration.k8s.io", Resource: "apiservices"},
)

// shared are the kinds that change most, whose objects are all in the manager's cache: a watch of their own would bring each of
// them a second time.
var shared = map[schema.GroupVersionResource]client.Object{
	corev1.SchemeGroupVersion.WithResource("pods"):        &corev1.Pod{},
	appsv1.SchemeGroupVersion.WithResource("replicasets"): &appsv1.ReplicaSet{},
	appsv1.SchemeGroupVersion.WithResource("deployments"): &appsv1.Deployment{},
}

// monitors feed the graph with the metadata of everything that can be deleted. They are
// the source of the controller.
type monitors struct {
	cache     ctrlcache.Informers // of the manager
	graph     *graph
	discovery discovery.DiscoveryInterface
	metadata  metadata.Interface
	reset     func()
	changed   chan struct{}
	failed    *metrics.Counter // times that not all resources were known
	absent    *lru.Cache       // of owners that are known not to exist

	mu      sync.Mutex
	running map[schema.GroupVersionResource]*monitor
	look    func(types.UID)
}

// Start implements source.TypedSource.
func (m *monitors) Start(ctx context.Context, q workqueue.TypedRateLimitingInterface[types.UID]) error {
	m.look = q.Add
	if err := m.sync(ctx); err != nil {
		klog.FromContext(ctx).Info("Discovery is incomplete", "err", err)
	}
	go m.follow(ctx)
	return nil
}

// WaitForSync implements source.TypedSyncingSource. What cannot be listed, such as
// the kinds of an aggregated server that is down, must not stop the rest.
func (m *monitors) WaitForSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m.mu.Lock()
	var waiting []*monitor
	for _, mon := range m.running {
		waiting = append(waiting, mon)
	}
	m.mu.Unlock()
	for _, mon := range waiting {
		select {
		case <-mon.listed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				klog.FromContext(ctx).Info("Going on without what cannot be listed", "resource", mon.resource)
			}
			return nil
		}
	}
	return nil
}

// follow keeps the monitors in step with what is served.
func (m *monitors) follow(ctx context.Context) {
	timer := time.NewTimer(rediscover)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.changed:
			timer.Reset(settle)
		case <-timer.C:
			timer.Reset(rediscover)
			if err := m.sync(ctx); err != nil {
				klog.FromContext(ctx).V(2).Info("Discovery is incomplete", "err", err)
				timer.Reset(10 * settle)
			}
		}
	}
}

// sync starts monitors for kinds that are new and stops those of kinds that are gone. Of a
// group that cannot be discovered at the moment, all monitors stay.
func (m *monitors) sync(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			m.failed.Inc()
		}
	}()
	lists, err := m.discovery.ServerPreferredResources()
	failed := sets.New[schema.GroupVersion]()
	if groups := (&discovery.ErrGroupDiscoveryFailed{}); errors.As(err, &groups) {
		failed = sets.KeySet(groups.Groups)
	} else if err != nil && len(lists) == 0 {
		return fmt.Errorf("discovering resources: %w", err)
	}
	want := map[schema.GroupVersionResource]schema.GroupVersionKind{}
	for _, l := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"delete", "list", "watch"}}, lists) {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return fmt.Errorf("discovering resources: %w", err)
		}
		for _, r := range l.APIResources {
			if !ignored.Has(schema.GroupResource{Group: gv.Group, Resource: r.Name}) {
				want[gv.WithResource(r.Name)] = gv.WithKind(r.Kind)
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	news := false
	for r, mon := range m.running {
		if _, ok := want[r]; !ok && !failed.Has(r.GroupVersion()) {
			mon.stop()
			delete(m.running, r)
			news = true
		}
	}
	for r, kind := range want {
		if m.running[r] == nil {
			m.running[r] = m.start(ctx, r, kind)
			news = true
		}
	}
	if news {
		m.reset()
	}
	return err
}

// start begins to watch one kind.
func (m *monitors) start(ctx context.Context, r schema.GroupVersionResource, kind schema.GroupVersionKind) *monitor {
	ctx, cancel := context.WithCancel(ctx)
	mon := &monitor{monitors: m, resource: r, kind: kind, listed: make(chan struct{}), known: sets.New[types.UID](), stop: cancel}
	if obj := shared[r]; obj != nil {
		go mon.listen(ctx, obj)
	} else {
		go metawatch.Run(ctx, "garbage-collector", m.metadata, r, mon)
	}
	return mon
}

// listen has the objects from the manager's cache.
func (m *monitor) listen(ctx context.Context, obj client.Object) {
	log := klog.FromContext(ctx).WithValues("resource", m.resource)
	told := func(err error) {
		if err != nil {
			log.Error(err, "An event is not understood")
		}
	}
	informer, err := m.cache.GetInformer(ctx, obj)
	if err != nil {
		if ctx.Err() == nil {
			log.Error(err, "Objects are not followed")
		}
		return
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { told(m.Add(o)) },
		UpdateFunc: func(_, o any) { told(m.Update(o)) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			told(m.Delete(o))
		},
	})
	if err != nil {
		log.Error(err, "Objects are not followed")
		return
	}
	if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		m.once.Do(func() { close(m.listed) })
	}
	<-ctx.Done()
	told(informer.RemoveEventHandler(registration))
}

// A monitor is where the objects of one kind arrive. It keeps their UIDs alone.
type monitor struct {
	*monitors
	resource schema.GroupVersionResource
	kind     schema.GroupVersionKind
	listed   chan struct{}
	once     sync.Once
	known    sets.Set[types.UID] // used by whoever brings the objects alone
	stop     context.CancelFunc
}

var _ cache.ReflectorStore = &monitor{}

func (m *monitor) tell(look []types.UID) {
	for _, uid := range look {
		m.look(uid)
	}
	if definitions.Has(m.resource.GroupResource()) {
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// Add implements cache.ReflectorStore.
func (m *monitor) Add(o any) error {
	acc, err := meta.Accessor(o)
	if err != nil {
		return err
	}
	m.known.Insert(acc.GetUID())
	m.tell(m.graph.observe(fromMetadata(m.kind, acc)))
	return nil
}

// Update implements cache.ReflectorStore.
func (m *monitor) Update(o any) error { return m.Add(o) }

// Delete implements cache.ReflectorStore.
func (m *monitor) Delete(o any) error {
	acc, err := meta.Accessor(o)
	if err != nil {
		return err
	}
	m.known.Delete(acc.GetUID())
	look := m.graph.remove(acc.GetUID())
	if len(look) > 0 { // before they are looked at, so that nobody asks for their owner
		m.absent.Add(fromMetadata(m.kind, acc).identity, nil)
	}
	m.tell(look)
	return nil
}

// Replace implements cache.ReflectorStore: what is not listed is gone.
func (m *monitor) Replace(items []any, _ string) error {
	gone := m.known
	m.known = sets.New[types.UID]()
	for _, o := range items {
		if err := m.Add(o); err != nil {
			return err
		}
	}
	for uid := range gone.Difference(m.known) {
		m.tell(m.graph.remove(uid))
	}
	m.once.Do(func() { close(m.listed) })
	return nil
}

// Resync implements cache.ReflectorStore.
func (m *monitor) Resync() error { return nil }
