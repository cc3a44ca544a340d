// Package ownwrites lets a controller read what it has written, although its cache lags.
//
// A reconciliation that is Remembered keeps a journal of its writes. The next one of the same object, which may come at once, first waits
// until the cache holds what is in it. What is written about other objects, by other workers, is not waited for.
package ownwrites

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
)

// Progress knows how far a cache is with each kind of objects. All controllers that read from the cache share it.
type Progress struct {
	cache cache.Cache

	mu    sync.Mutex
	kinds map[reflect.Type]*kind
}

// NewProgress follows a cache, with the kinds that are written.
func NewProgress(c cache.Cache) *Progress {
	return &Progress{cache: c, kinds: map[reflect.Type]*kind{}}
}

// lull is after what time without an event the cache itself is asked how far it is: there is none of what came and went
// while there was no watch.
const lull = time.Second

// kind is how far the cache is with the objects of one kind.
type kind struct {
	store toolscache.Store // nil if there are several, each for some namespaces

	mu      sync.Mutex
	version int64         // the newest resource version that the cache is known to have seen
	moved   chan struct{} // closed at the next event
}

func (p *Progress) of(ctx context.Context, obj client.Object) (*kind, error) {
	switch obj.(type) {
	case *metav1.PartialObjectMetadata, runtime.Unstructured:
		return nil, fmt.Errorf("a reconciliation that is remembered writes Go types, not %T", obj)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := reflect.TypeOf(obj)
	if k := p.kinds[t]; k != nil {
		return k, nil
	}
	informer, err := p.cache.GetInformer(ctx, obj)
	if err != nil {
		return nil, fmt.Errorf("following %T: %w", obj, err)
	}
	k := &kind{moved: make(chan struct{})}
	if single, ok := informer.(interface{ GetStore() toolscache.Store }); ok {
		k.store = single.GetStore()
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: k.observe, UpdateFunc: func(_, o any) { k.observe(o) }, DeleteFunc: k.observe,
	}); err != nil {
		return nil, fmt.Errorf("following %T: %w", obj, err)
	}
	p.kinds[t] = k
	return k, nil
}

// observe takes notice of an event. The cache has been told before.
func (k *kind) observe(o any) {
	if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = last.Obj
	}
	if obj, ok := o.(client.Object); ok {
		k.reached(obj.GetResourceVersion())
	}
}

func (k *kind) reached(resourceVersion string) {
	version, err := strconv.ParseInt(resourceVersion, 10, 64)
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.version = max(k.version, version)
	close(k.moved)
	k.moved = make(chan struct{})
}

// await returns when seen says so, which it is asked now, after each event and after each lull.
func (k *kind) await(ctx context.Context, seen func(version int64) (bool, error)) error {
	ticker := time.NewTicker(lull)
	defer ticker.Stop()
	for {
		k.mu.Lock()
		version, moved := k.version, k.moved
		k.mu.Unlock()
		if ok, err := seen(version); ok || err != nil {
			return err
		}
		select {
		case <-moved:
		case <-ticker.C:
			if k.store != nil {
				k.reached(k.store.LastStoreSyncResourceVersion())
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting until the cache has seen what was written: %w", context.Cause(ctx))
		}
	}
}

// journal is what reconciliations of one object have written and the cache need not have seen.
type journal struct {
	mu       sync.Mutex
	versions map[*kind]int64
	deleted  []deletion
}

type deletion struct {
	kind *kind
	obj  client.Object // an empty one of its kind
	key  client.ObjectKey
	uid  types.UID
}

func (j *journal) wrote(k *kind, obj client.Object) error {
	version, err := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		return fmt.Errorf("resource version of %T %s: %w", obj, obj.GetName(), err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.versions[k] = max(j.versions[k], version)
	return nil
}

func (j *journal) removed(d deletion) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.deleted = append(j.deleted, d)
}

// await returns when the cache holds all that is in the journal, which is empty then.
func (j *journal) await(ctx context.Context, cached client.Reader) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for k, wanted := range j.versions {
		if err := k.await(ctx, func(version int64) (bool, error) { return version >= wanted, nil }); err != nil {
			return err
		}
		delete(j.versions, k)
	}
	for ; len(j.deleted) > 0; j.deleted = j.deleted[1:] {
		d := j.deleted[0]
		if err := d.kind.await(ctx, func(int64) (bool, error) { return d.seen(ctx, cached) }); err != nil {
			return err
		}
	}
	return nil
}

// seen reports whether the cache shows that the object goes or has gone.
func (d deletion) seen(ctx context.Context, cached client.Reader) (bool, error) {
	err := cached.Get(ctx, d.key, d.obj, client.UnsafeDisableDeepCopy)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return err == nil && (d.obj.GetUID() != d.uid || d.obj.GetDeletionTimestamp() != nil), err
}

type journalKey struct{}

// Remembered returns r with a journal for each object.
func Remembered(r reconcile.Reconciler) reconcile.Reconciler {
	var mu sync.Mutex
	journals := map[reconcile.Request]*journal{}
	return reconcile.Func(func(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
		mu.Lock()
		j := journals[req]
		mu.Unlock()
		if j == nil {
			j = &journal{versions: map[*kind]int64{}}
		}
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			if len(j.versions)+len(j.deleted) > 0 {
				journals[req] = j
			} else {
				delete(journals, req)
			}
		}()
		return r.Reconcile(context.WithValue(ctx, journalKey{}, j), req)
	})
}

// Client reads from the cache. In a reconciliation that is remembered it waits for what the journal says, and keeps it. In another
// it is the Client that it is made from. Elsewhere, as in a map function, it does not wait: what it would wait for may be told to it next.
type Client struct {
	client.Client
	live     client.Client // for what is written and remembered
	progress *Progress
}

// NewClient returns such a client. live has no cache; what is read comes from that of p.
func NewClient(elsewhere, live client.Client, p *Progress) *Client {
	return &Client{Client: elsewhere, live: live, progress: p}
}

// reconciles reports whether ctx is that of a reconciliation.
func reconciles(ctx context.Context) bool { return controller.ReconcileIDFromContext(ctx) != "" }

// Get implements client.Reader.
func (c *Client) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	j, ok := ctx.Value(journalKey{}).(*journal)
	if !ok && reconciles(ctx) {
		return c.Client.Get(ctx, key, obj, opts...)
	}
	if ok && !(&client.GetOptions{}).ApplyOptions(opts).DisableReadYourWritesConsistency {
		if err := j.await(ctx, c.progress.cache); err != nil {
			return err
		}
	}
	return c.progress.cache.Get(ctx, key, obj, opts...)
}

// List implements client.Reader.
func (c *Client) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	j, ok := ctx.Value(journalKey{}).(*journal)
	if !ok && reconciles(ctx) {
		return c.Client.List(ctx, list, opts...)
	}
	if ok && !(&client.ListOptions{}).ApplyOptions(opts).DisableReadYourWritesConsistency {
		if err := j.await(ctx, c.progress.cache); err != nil {
			return err
		}
	}
	return c.progress.cache.List(ctx, list, opts...)
}

// Borrow implements borrow.Lender. It waits as List does.
func (c *Client) Borrow(ctx context.Context, one client.Object, opts ...client.ListOption) ([]any, error) {
	j, ok := ctx.Value(journalKey{}).(*journal)
	if !ok && reconciles(ctx) {
		return borrow.From(ctx, c.Client, one, opts...) // copies
	}
	if ok && !(&client.ListOptions{}).ApplyOptions(opts).DisableReadYourWritesConsistency {
		if err := j.await(ctx, c.progress.cache); err != nil {
			return nil, err
		}
	}
	return borrow.From(ctx, c.progress.cache, one, opts...)
}

// write does what results in a new version of obj.
func (c *Client) write(ctx context.Context, obj client.Object, elsewhere, do func() error) error {
	j, ok := ctx.Value(journalKey{}).(*journal)
	if !ok {
		return elsewhere()
	}
	k, err := c.progress.of(ctx, obj)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return j.wrote(k, obj)
}

// Create implements client.Writer.
func (c *Client) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	return c.write(ctx, obj, func() error { return c.Client.Create(ctx, obj, opts...) }, func() error { return c.live.Create(ctx, obj, opts...) })
}

// Update implements client.Writer.
func (c *Client) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	return c.write(ctx, obj, func() error { return c.Client.Update(ctx, obj, opts...) }, func() error { return c.live.Update(ctx, obj, opts...) })
}

// Patch implements client.Writer.
func (c *Client) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	return c.write(ctx, obj, func() error { return c.Client.Patch(ctx, obj, patch, opts...) }, func() error { return c.live.Patch(ctx, obj, patch, opts...) })
}

// Delete implements client.Writer.
func (c *Client) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	j, ok := ctx.Value(journalKey{}).(*journal)
	if !ok {
		return c.Client.Delete(ctx, obj, opts...)
	}
	k, err := c.progress.of(ctx, obj)
	if err != nil {
		return err
	}
	if err := c.live.Delete(ctx, obj, opts...); err != nil {
		return err
	}
	empty := reflect.New(reflect.TypeOf(obj).Elem()).Interface().(client.Object)
	j.removed(deletion{k, empty, client.ObjectKeyFromObject(obj), obj.GetUID()})
	return nil
}

// DeleteAllOf implements client.Writer. It cannot be remembered what it deletes.
func (c *Client) DeleteAllOf(ctx context.Context, obj client.Object, opts ...client.DeleteAllOfOption) error {
	if ctx.Value(journalKey{}) != nil {
		return errors.New("DeleteAllOf in a reconciliation that is remembered; list and delete instead")
	}
	return c.Client.DeleteAllOf(ctx, obj, opts...)
}

// Apply implements client.Writer. What it makes of an object is not returned, and so cannot be remembered.
func (c *Client) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	if ctx.Value(journalKey{}) != nil {
		return errors.New("Apply in a reconciliation that is remembered; patch instead")
	}
	return c.Client.Apply(ctx, obj, opts...)
}

// Status implements client.StatusClient.
func (c *Client) Status() client.SubResourceWriter { return c.SubResource("status") }

// SubResource implements client.SubResourceClientConstructor.
func (c *Client) SubResource(name string) client.SubResourceClient {
	return &subResource{SubResourceClient: c.Client.SubResource(name), live: c.live.SubResource(name), client: c}
}

type subResource struct {
	client.SubResourceClient
	live   client.SubResourceClient
	client *Client
}

// Update implements client.SubResourceWriter.
func (s *subResource) Update(ctx context.Context, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	return s.client.write(ctx, obj,
		func() error { return s.SubResourceClient.Update(ctx, obj, opts...) }, func() error { return s.live.Update(ctx, obj, opts...) })
}

// Patch implements client.SubResourceWriter.
func (s *subResource) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	return s.client.write(ctx, obj,
		func() error { return s.SubResourceClient.Patch(ctx, obj, patch, opts...) }, func() error { return s.live.Patch(ctx, obj, patch, opts...) })
}

// Apply implements client.SubResourceWriter.
func (s *subResource) Apply(ctx context.Context, obj runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	if ctx.Value(journalKey{}) != nil {
		return errors.New("Apply in a reconciliation that is remembered; patch instead")
	}
	return s.SubResourceClient.Apply(ctx, obj, opts...)
}
