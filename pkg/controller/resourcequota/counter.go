package resourcequota

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/leme-k8s/leme/pkg/controller/internal/metawatch"
)

// uncounted are the resources in namespaces that no quota counts: events, and what
// is not stored.
var uncounted = sets.New(
	corev1.Resource("events"), corev1.Resource("bindings"),
	schema.GroupResource{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"},
)

// counters follow those resources that some quota wants counted.
type counters struct {
	mapper   meta.RESTMapper
	metadata metadata.Interface

	mu      sync.Mutex
	ctx     context.Context // of all that runs; it ends with the controller
	changed func(resource schema.GroupResource, namespace string)
	running map[schema.GroupResource]*counter
}

// start lets counters run; changed is told of every namespace with fewer objects than before.
func (c *counters) start(ctx context.Context, changed func(schema.GroupResource, string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx, c.changed = ctx, changed
}

// follow returns the counter of a resource, which may have to count first, or nil if
// there is no such resource in namespaces.
func (c *counters) follow(r schema.GroupResource) *counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uncounted.Has(r) {
		return nil
	}
	mapping, err := c.mapping(r)
	running := c.running[r]
	if running != nil && (err != nil || running.resource != mapping.Resource) {
		running.stop()
		delete(c.running, r)
		running = nil
	}
	if err != nil || mapping.Resource.GroupResource() != r || mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return nil
	}
	if running == nil {
		ctx, cancel := context.WithCancel(c.ctx)
		running = &counter{resource: mapping.Resource, changed: c.changed, stop: cancel}
		c.running[r] = running
		go metawatch.Run(ctx, "resource-quota", c.metadata, mapping.Resource, running)
	}
	return running
}

func (c *counters) mapping(r schema.GroupResource) (*meta.RESTMapping, error) {
	kind, err := c.mapper.KindFor(r.WithVersion(""))
	if err != nil {
		return nil, err
	}
	return c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
}

// keep stops the counters of all other resources.
func (c *counters) keep(wanted sets.Set[schema.GroupResource]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r, running := range c.running {
		if !wanted.Has(r) {
			running.stop()
			delete(c.running, r)
		}
	}
}

// A counter knows how many objects of a resource each namespace has. It keeps their
// names and nothing else.
type counter struct {
	resource schema.GroupVersionResource
	changed  func(schema.GroupResource, string)
	stop     context.CancelFunc

	mu     sync.Mutex
	listed bool
	names  map[string]sets.Set[string] // by namespace
}

var _ cache.ReflectorStore = &counter{}

// count returns how many objects a namespace has, once that is known.
func (c *counter) count(namespace string) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.names[namespace]), c.listed
}

// Add implements cache.ReflectorStore.
func (c *counter) Add(o any) error {
	acc, err := meta.Accessor(o)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	insert(&c.names, types.NamespacedName{Namespace: acc.GetNamespace(), Name: acc.GetName()})
	return nil
}

func insert(into *map[string]sets.Set[string], o types.NamespacedName) {
	if *into == nil {
		*into = map[string]sets.Set[string]{}
	}
	if (*into)[o.Namespace] == nil {
		(*into)[o.Namespace] = sets.New[string]()
	}
	(*into)[o.Namespace].Insert(o.Name)
}

// Update implements cache.ReflectorStore.
func (c *counter) Update(o any) error { return c.Add(o) }

// Delete implements cache.ReflectorStore.
func (c *counter) Delete(o any) error {
	acc, err := meta.Accessor(o)
	if err != nil {
		return err
	}
	c.mu.Lock()
	namespace := acc.GetNamespace()
	if c.names[namespace].Delete(acc.GetName()); len(c.names[namespace]) == 0 {
		delete(c.names, namespace)
	}
	c.mu.Unlock()
	c.changed(c.resource.GroupResource(), namespace)
	return nil
}

// Replace implements cache.ReflectorStore.
func (c *counter) Replace(items []any, _ string) error {
	var now map[string]sets.Set[string]
	for _, o := range items {
		acc, err := meta.Accessor(o)
		if err != nil {
			return err
		}
		insert(&now, types.NamespacedName{Namespace: acc.GetNamespace(), Name: acc.GetName()})
	}
	c.mu.Lock()
	c.names, c.listed = now, true
	c.mu.Unlock()
	c.changed(c.resource.GroupResource(), "")
	return nil
}

// Resync implements cache.ReflectorStore.
func (c *counter) Resync() error { return nil }
