package ownwrites

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// lagging is an API server and a cache of its pods that is told of changes when the test says so.
type lagging struct {
	client.Client
	cache.Cache
	toolscache.SharedIndexInformer
	handler toolscache.ResourceEventHandler
	pods    map[client.ObjectKey]*corev1.Pod // in the cache
	fails   error                            // what writes answer
	version string                           // that writes result in
	listed  string                           // the version of the cache's last list
}

func (l *lagging) GetStore() toolscache.Store {
	return &toolscache.FakeCustomStore{LastStoreSyncResourceVersionFunc: func() string { return l.listed }}
}

func (l *lagging) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return l, nil
}

func (l *lagging) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	l.handler = h
	return nil, nil
}

func (l *lagging) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if p := l.pods[key]; p != nil {
		*obj.(*corev1.Pod) = *p
		return nil
	}
	return apierrors.NewNotFound(corev1.Resource("pods"), key.Name)
}

func (l *lagging) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

func (l *lagging) Create(_ context.Context, obj client.Object, _ ...client.CreateOption) error {
	obj.SetResourceVersion(l.version)
	return l.fails
}

func (l *lagging) Delete(context.Context, client.Object, ...client.DeleteOption) error {
	return l.fails
}

// shows brings a pod into the cache.
func (l *lagging) shows(p *corev1.Pod) {
	l.pods[client.ObjectKeyFromObject(p)] = p
	l.handler.OnUpdate(p, p)
}

func pod(name, uid, version string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid), ResourceVersion: version}}
}

func TestRemembered(t *testing.T) {
	create := func(ctx context.Context, c client.Client) error { return c.Create(ctx, pod("new", "1", "")) }
	remove := func(ctx context.Context, c client.Client) error { return c.Delete(ctx, pod("old", "2", "5")) }
	going := pod("old", "2", "10")
	going.DeletionTimestamp = &metav1.Time{}
	for _, c := range []struct {
		name  string
		write func(context.Context, client.Client) error
		fails error
		// early is what happens that is not yet what was written, and late what is.
		early, late func(*lagging)
	}{
		{name: "nothing is written", write: func(context.Context, client.Client) error { return nil }},
		{name: "a write that failed", write: create, fails: errors.New("no")},
		{name: "a deletion that failed", write: remove, fails: errors.New("no")},
		{
			name: "a creation", write: create,
			early: func(l *lagging) { l.shows(pod("other", "3", "9")) },
			late:  func(l *lagging) { l.shows(pod("new", "1", "10")) },
		},
		{
			name: "a creation that is gone before it is seen", write: create,
			early: func(l *lagging) { l.shows(pod("other", "3", "9")) },
			late:  func(l *lagging) { l.handler.OnDelete(pod("new", "1", "11")) },
		},
		{
			name: "the end of a watch hides what has gone", write: create,
			early: func(*lagging) {},
			late: func(l *lagging) {
				l.handler.OnDelete(toolscache.DeletedFinalStateUnknown{Obj: pod("new", "1", "11")})
			},
		},
		{
			name: "a deletion that takes its time", write: remove,
			early: func(l *lagging) { l.shows(pod("other", "3", "11")) },
			late:  func(l *lagging) { l.shows(going) },
		},
		{
			name: "a deletion at once", write: remove,
			early: func(l *lagging) { l.shows(pod("old", "2", "7")) },
			late: func(l *lagging) {
				delete(l.pods, client.ObjectKey{Name: "old"})
				l.handler.OnDelete(pod("old", "2", "10"))
			},
		},
		{
			name: "another takes the name", write: remove,
			early: func(l *lagging) { l.shows(pod("old", "2", "7")) },
			late:  func(l *lagging) { l.shows(pod("old", "4", "12")) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				l := &lagging{version: "10", fails: c.fails, pods: map[client.ObjectKey]*corev1.Pod{{Name: "old"}: pod("old", "2", "5")}}
				read := NewClient(nil, l, NewProgress(l))
				write := c.write
				r := Remembered(reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
					if err := read.List(ctx, &corev1.PodList{}); err != nil {
						return reconcile.Result{}, err
					}
					if write == nil {
						return reconcile.Result{}, nil
					}
					return reconcile.Result{}, write(ctx, read)
				}))
				mine, other := reconcile.Request{}, reconcile.Request{NamespacedName: types.NamespacedName{Name: "other"}}
				if _, err := r.Reconcile(ctx, mine); !errors.Is(err, c.fails) {
					t.Fatal(err)
				}
				write = nil
				if _, err := r.Reconcile(ctx, other); err != nil {
					t.Fatal("of another object:", err)
				}
				done := make(chan error, 1)
				go func() {
					_, err := r.Reconcile(ctx, mine)
					done <- err
				}()
				waits := func() bool {
					synctest.Wait()
					return len(done) == 0
				}
				if c.late != nil {
					if !waits() {
						t.Fatal("reads from a cache that has seen nothing")
					}
					if c.early(l); !waits() {
						t.Fatal("reads from a cache that has not seen the write")
					}
					c.late(l)
				}
				if waits() {
					t.Fatal("does not read from a cache that has seen the write")
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// An object that goes while there is no watch is in no event: that the cache has listed anew is enough.
func TestGoneBetweenLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lagging{version: "10", listed: "9", pods: map[client.ObjectKey]*corev1.Pod{}}
		c := NewClient(nil, l, NewProgress(l))
		r := Remembered(reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
			if err := c.Create(ctx, pod("new", "1", "")); err != nil {
				return reconcile.Result{}, err
			}
			return reconcile.Result{}, c.List(ctx, &corev1.PodList{})
		}))
		done := make(chan error, 1)
		go func() {
			_, err := r.Reconcile(t.Context(), reconcile.Request{})
			done <- err
		}()
		time.Sleep(2 * lull)
		if synctest.Wait(); len(done) > 0 {
			t.Fatal("does not wait for the list")
		}
		l.listed = "12"
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A cache that sees nothing more holds a reconciliation up as long as its context lasts, and the next one knows what there is to wait for.
func TestNothingSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lagging{version: "10", pods: map[client.ObjectKey]*corev1.Pod{}}
		c := NewClient(nil, l, NewProgress(l))
		r := Remembered(reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
			if err := c.Create(ctx, pod("new", "1", "")); err != nil {
				return reconcile.Result{}, err
			}
			return reconcile.Result{}, c.List(ctx, &corev1.PodList{}) // its own write, as well
		}))
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := r.Reconcile(ctx, reconcile.Request{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
		}
		l.shows(pod("new", "1", "10"))
		if _, err := r.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Error(err)
		}
	})
}
