package record

import (
	"context"
	"iter"
	"reflect"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// These are there behind feature gates.
var (
	podGroups          = schema.GroupVersionResource{Group: "scheduling.k8s.io", Version: "v1beta1", Resource: "podgroups"}
	compositePodGroups = schema.GroupVersionResource{Group: "scheduling.k8s.io", Version: "v1alpha3", Resource: "compositepodgroups"}
)

// Kinds are what plugins read, and what is recorded.
var kinds = map[schema.GroupVersionResource]string{
	{Version: "v1", Resource: "pods"}:                                          "Pod",
	{Version: "v1", Resource: "nodes"}:                                         "Node",
	{Version: "v1", Resource: "namespaces"}:                                    "Namespace",
	{Version: "v1", Resource: "services"}:                                      "Service",
	{Version: "v1", Resource: "replicationcontrollers"}:                        "ReplicationController",
	{Version: "v1", Resource: "persistentvolumes"}:                             "PersistentVolume",
	{Version: "v1", Resource: "persistentvolumeclaims"}:                        "PersistentVolumeClaim",
	{Group: "apps", Version: "v1", Resource: "replicasets"}:                    "ReplicaSet",
	{Group: "apps", Version: "v1", Resource: "statefulsets"}:                   "StatefulSet",
	{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}:         "PodDisruptionBudget",
	{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}:       "StorageClass",
	{Group: "storage.k8s.io", Version: "v1", Resource: "csinodes"}:             "CSINode",
	{Group: "storage.k8s.io", Version: "v1", Resource: "csidrivers"}:           "CSIDriver",
	{Group: "storage.k8s.io", Version: "v1", Resource: "csistoragecapacities"}: "CSIStorageCapacity",
	{Group: "storage.k8s.io", Version: "v1", Resource: "volumeattachments"}:    "VolumeAttachment",
	{Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaims"}:      "ResourceClaim",
	{Group: "resource.k8s.io", Version: "v1", Resource: "resourceslices"}:      "ResourceSlice",
	{Group: "resource.k8s.io", Version: "v1", Resource: "deviceclasses"}:       "DeviceClass",
	{Group: "resource.k8s.io", Version: "v1", Resource: "devicetaintrules"}:    "DeviceTaintRule",
	podGroups:          "PodGroup",
	compositePodGroups: "CompositePodGroup",
}

// Informers fills a factory with informers whose stores change, and whose handlers run,
// between two decisions only. They learn what there is from those of another factory,
// which is not to be started. Kinds that are not recorded are left as they are.
func (r *Recorder) Informers(known, watching informers.SharedInformerFactory, gates framework.Gates) error {
	for resource, kind := range kinds {
		if resource == podGroups && !gates.GenericWorkload || resource == compositePodGroups && !gates.CompositePodGroup {
			continue
		}
		real, err := watching.ForResource(resource)
		if err != nil {
			return err
		}
		object, err := clientscheme.Scheme.New(resource.GroupVersion().WithKind(kind))
		if err != nil {
			return err
		}
		i := &informer{
			SharedIndexInformer: real.Informer(), recorder: r,
			store: cache.NewIndexer(cache.DeletionHandlingMetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}),
		}
		if i.registered, err = i.SharedIndexInformer.AddEventHandler((*tap)(i)); err != nil {
			return err
		}
		known.InformerFor(object, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer { return i })
	}
	return nil
}

// Unrecorded names the kinds of objects among types that are not recorded. What is
// decided from one of these could not be replayed.
func Unrecorded(types iter.Seq[reflect.Type]) []string {
	var known []reflect.Type
	for resource, kind := range kinds {
		if object, err := clientscheme.Scheme.New(resource.GroupVersion().WithKind(kind)); err == nil {
			known = append(known, reflect.TypeOf(object))
		}
	}
	var out []string
	for t := range types {
		if !slices.Contains(known, t) {
			out = append(out, t.Elem().String())
		}
	}
	slices.Sort(out)
	return out
}

// informer is one that is recorded. The embedded one watches.
type informer struct {
	cache.SharedIndexInformer
	recorder   *Recorder
	store      cache.Indexer
	registered cache.ResourceEventHandlerRegistration

	// handlers belong to who holds the recorder's mutex.
	handlers []*handler
}

type handler struct {
	cache.ResourceEventHandlerRegistration
	cache.ResourceEventHandler
}

// GetStore returns the objects as decisions see them.
func (i *informer) GetStore() cache.Store { return i.store }

// GetIndexer returns the objects as decisions see them.
func (i *informer) GetIndexer() cache.Indexer { return i.store }

// AddIndexers adds ways to find objects.
func (i *informer) AddIndexers(indexers cache.Indexers) error { return i.store.AddIndexers(indexers) }

// HasSynced reports whether decisions see all that there was at first.
func (i *informer) HasSynced() bool { return i.registered.HasSynced() }

// HasSyncedChecker is HasSynced, to be waited for.
func (i *informer) HasSyncedChecker() cache.DoneChecker { return i.registered.HasSyncedChecker() }

// AddEventHandler adds a handler, which is told of the objects that there are at once.
func (i *informer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	i.recorder.mu.Lock()
	defer i.recorder.mu.Unlock()
	added := &handler{i.registered, h}
	i.handlers = append(i.handlers, added)
	for _, obj := range i.store.List() {
		h.OnAdd(obj, true)
	}
	return added, nil
}

// AddEventHandlerWithResyncPeriod is AddEventHandler: nothing is told twice.
func (i *informer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(h)
}

// AddEventHandlerWithOptions is AddEventHandler: nothing is told twice.
func (i *informer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, _ cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(h)
}

// RemoveEventHandler removes a handler.
func (i *informer) RemoveEventHandler(added cache.ResourceEventHandlerRegistration) error {
	i.recorder.mu.Lock()
	defer i.recorder.mu.Unlock()
	i.handlers = slices.DeleteFunc(i.handlers, func(h *handler) bool { return cache.ResourceEventHandlerRegistration(h) == added })
	return nil
}

// tap is the handler by which the informer that watches tells.
type tap informer

var _ cache.ResourceEventHandler = &tap{}

// OnAdd takes a new object over.
func (t *tap) OnAdd(obj any, initial bool) {
	t.change(obj, false, func() error { return t.store.Add(obj) }, func(h cache.ResourceEventHandler) { h.OnAdd(obj, initial) })
}

// OnUpdate takes a changed object over.
func (t *tap) OnUpdate(old, obj any) {
	t.change(obj, false, func() error { return t.store.Update(obj) }, func(h cache.ResourceEventHandler) { h.OnUpdate(old, obj) })
}

// OnDelete forgets an object.
func (t *tap) OnDelete(obj any) {
	last := obj
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		last = gone.Obj
	}
	t.change(last, true, func() error { return t.store.Delete(last) }, func(h cache.ResourceEventHandler) { h.OnDelete(obj) })
}

func (t *tap) change(obj any, gone bool, store func() error, tell func(cache.ResourceEventHandler)) {
	o, ok := obj.(runtime.Object)
	if !ok {
		return
	}
	t.recorder.Change(context.Background(), func() Entry { return Entry{Saw: &Saw{Object{o}, gone}} }, func() {
		if err := store(); err != nil { // the key function finds no name: no object is like that
			panic(err)
		}
		for _, h := range t.handlers {
			tell(h.ResourceEventHandler)
		}
	})
}
