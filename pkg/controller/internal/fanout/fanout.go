// Package fanout hands each event of a cache to all who listen, one after the other. An informer has a buffer and two goroutines for
// each listener, and most controllers listen to the pods: to wake fifty goroutines cost more than what they found to do.
//
// Who listens must not wait for another event.
package fanout

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
)

// New makes a cache as cache.New does, that listens once to each of its informers. It is a borrow.Lender.
func New(cfg *rest.Config, opts cache.Options) (cache.Cache, error) {
	c, err := cache.New(cfg, opts)
	return &fanning{Cache: c, informers: map[cache.Informer]*informer{}, stores: map[reflect.Type]toolscache.Indexer{}}, err
}

type fanning struct {
	cache.Cache

	mu        sync.Mutex
	informers map[cache.Informer]*informer

	reading sync.RWMutex
	stores  map[reflect.Type]toolscache.Indexer // that have been filled
}

// Borrow implements borrow.Lender.
func (f *fanning) Borrow(ctx context.Context, one client.Object, opts ...client.ListOption) ([]any, error) {
	store, err := f.storeOf(ctx, reflect.TypeOf(one))
	if err != nil {
		return nil, err
	}
	if store == nil {
		return borrow.From(ctx, f.Cache, one, opts...) // copies
	}
	return borrow.FromStore(store, opts...)
}

// storeOf returns where the objects of a type are, when they have been listed, or nil if they are in several stores, each for some namespaces.
func (f *fanning) storeOf(ctx context.Context, t reflect.Type) (toolscache.Indexer, error) {
	f.reading.RLock()
	store := f.stores[t]
	f.reading.RUnlock()
	if store != nil {
		return store, nil
	}
	i, err := f.Cache.GetInformer(ctx, reflect.New(t.Elem()).Interface().(client.Object))
	if err != nil {
		return nil, err
	}
	single, ok := i.(interface{ GetIndexer() toolscache.Indexer })
	if !ok {
		return nil, nil
	}
	if !i.HasSynced() {
		return nil, &cache.ErrCacheNotStarted{}
	}
	f.reading.Lock()
	defer f.reading.Unlock()
	f.stores[t] = single.GetIndexer()
	return f.stores[t], nil
}

// GetInformer implements cache.Informers.
func (f *fanning) GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	i, err := f.Cache.GetInformer(ctx, obj, opts...)
	if err != nil {
		return nil, err
	}
	return f.of(i), nil
}

// GetInformerForKind implements cache.Informers.
func (f *fanning) GetInformerForKind(ctx context.Context, gvk schema.GroupVersionKind, opts ...cache.InformerGetOption) (cache.Informer, error) {
	i, err := f.Cache.GetInformerForKind(ctx, gvk, opts...)
	if err != nil {
		return nil, err
	}
	return f.of(i), nil
}

// of returns what listens to an informer for all. One that is made of several, each for some namespaces, keeps its own listeners.
func (f *fanning) of(i cache.Informer) cache.Informer {
	single, ok := i.(interface{ GetStore() toolscache.Store })
	if !ok {
		return i
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.informers[i] == nil {
		f.informers[i] = &informer{Informer: i, store: single.GetStore()}
	}
	return f.informers[i]
}

// An informer has one listener, which is itself.
type informer struct {
	cache.Informer
	store toolscache.Store

	mu       sync.Mutex // held while an event is handed on
	heard    toolscache.ResourceEventHandlerRegistration
	handlers []*registration
}

type registration struct {
	toolscache.ResourceEventHandlerRegistration // the informer's, for all
	handler                                     toolscache.ResourceEventHandler
}

// GetStore returns what the informer has.
func (i *informer) GetStore() toolscache.Store { return i.store }

// AddEventHandler implements cache.Informer. Who comes later is first told of what is there, of which some events may still be on their
// way, so that it may hear twice of the same, and of the end of what it has not heard of.
func (i *informer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.heard == nil {
		heard, err := i.Informer.AddEventHandler(i)
		if err != nil {
			return nil, err
		}
		i.heard = heard
	} else {
		for _, o := range i.store.List() {
			h.OnAdd(o, true)
		}
	}
	r := &registration{i.heard, h}
	i.handlers = append(i.handlers, r)
	return r, nil
}

// AddEventHandlerWithResyncPeriod implements cache.Informer.
func (i *informer) AddEventHandlerWithResyncPeriod(h toolscache.ResourceEventHandler, period time.Duration) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.Informer.AddEventHandlerWithResyncPeriod(h, period)
}

// AddEventHandlerWithOptions implements cache.Informer.
func (i *informer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, o toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	if o.ResyncPeriod != nil {
		return i.Informer.AddEventHandlerWithOptions(h, o)
	}
	return i.AddEventHandler(h)
}

// RemoveEventHandler implements cache.Informer.
func (i *informer) RemoveEventHandler(handle toolscache.ResourceEventHandlerRegistration) error {
	r, ok := handle.(*registration)
	if !ok {
		return i.Informer.RemoveEventHandler(handle)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handlers = slices.DeleteFunc(i.handlers, func(other *registration) bool { return other == r })
	return nil
}

// OnAdd implements toolscache.ResourceEventHandler.
func (i *informer) OnAdd(o any, initial bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range i.handlers {
		r.handler.OnAdd(o, initial)
	}
}

// OnUpdate implements toolscache.ResourceEventHandler.
func (i *informer) OnUpdate(before, after any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range i.handlers {
		r.handler.OnUpdate(before, after)
	}
}

// OnDelete implements toolscache.ResourceEventHandler.
func (i *informer) OnDelete(o any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range i.handlers {
		r.handler.OnDelete(o)
	}
}
