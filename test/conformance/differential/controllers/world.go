package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

// A world is all that an API server has, as its watches tell it, by scenario.
type world struct {
	client dynamic.Interface
	mapper meta.RESTMapper

	mu     sync.Mutex
	scenes map[string]*scene // by namespace
	onPod  func(*unstructured.Unstructured)
}

// A scene is what there is of one scenario.
type scene struct {
	ns      string
	objects map[string]*unstructured.Unstructured
	// generated are what generated names have ever started with.
	generated map[string]bool
	changed   time.Time
}

// unwatched are resources that say nothing of a scenario: leases change without end, and
// events are there twice.
var unwatched = []schema.GroupResource{{Group: "coordination.k8s.io", Resource: "leases"}, {Group: "events.k8s.io", Resource: "events"}}

// makers are the resources that pods have their names from.
var makers = []string{"replicasets", "replicationcontrollers", "daemonsets", "jobs"}

func newWorld(client dynamic.Interface, mapper meta.RESTMapper) *world {
	return &world{client: client, mapper: mapper, scenes: map[string]*scene{}}
}

// start watches every resource, until ctx is done.
func (w *world) start(ctx context.Context, d discovery.DiscoveryInterface) error {
	lists, err := discovery.ServerPreferredResources(d)
	if err != nil {
		return err
	}
	f := dynamicinformer.NewDynamicSharedInformerFactory(w.client, 0)
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return err
		}
		for _, r := range list.APIResources {
			resource := gv.WithResource(r.Name)
			if !slices.Contains(r.Verbs, "watch") || slices.Contains(unwatched, resource.GroupResource()) {
				continue
			}
			informer := f.ForResource(resource).Informer()
			if err := informer.SetTransform(withoutManagers); err != nil {
				return err
			}
			if _, err := informer.AddEventHandler(w.handler(resource)); err != nil {
				return err
			}
		}
	}
	f.Start(ctx.Done())
	for resource, synced := range f.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("the watch of %v has not started", resource)
		}
	}
	return nil
}

// withoutManagers keeps the world small.
func withoutManagers(o any) (any, error) {
	if u, ok := o.(*unstructured.Unstructured); ok {
		u.SetManagedFields(nil)
	}
	return o, nil
}

func (w *world) handler(r schema.GroupVersionResource) cache.ResourceEventHandler {
	set := func(o any, quiet bool) {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return
		}
		w.set(r.GroupResource(), u, quiet)
		if r.Resource == "pods" && w.onPod != nil {
			w.onPod(u)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { set(o, false) },
		// Events that are told once more are no change: some are told again and again.
		UpdateFunc: func(_, o any) { set(o, r.Resource == "events") },
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if u, ok := o.(*unstructured.Unstructured); ok {
				w.remove(r.GroupResource(), u)
			}
		},
	}
}

func key(r schema.GroupResource, namespace, name string) string {
	return r.String() + "/" + namespace + "/" + name
}

// add makes a scene for a scenario.
func (w *world) add(ns string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scenes[ns] = &scene{ns: ns, objects: map[string]*unstructured.Unstructured{}, generated: map[string]bool{}, changed: time.Now()}
}

// drop forgets a scene.
func (w *world) drop(ns string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.scenes, ns)
}

// of returns the scene of an object: that of its namespace, or, where several share
// one, that whose namespace its name has in it.
func (w *world) of(u *unstructured.Unstructured) *scene {
	if s := w.scenes[u.GetNamespace()]; s != nil {
		return s
	}
	name := u.GetName()
	if u.GetKind() == "Event" {
		name, _, _ = unstructured.NestedString(u.Object, "involvedObject", "name")
	}
	for i := 0; i+nsLength <= len(name); i++ {
		if name[i] == 't' {
			if s := w.scenes[name[i:i+nsLength]]; s != nil {
				return s
			}
		}
	}
	return nil
}

const nsLength = len("t00000")

func (w *world) set(r schema.GroupResource, u *unstructured.Unstructured, quiet bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.of(u)
	if s == nil {
		return
	}
	s.objects[key(r, u.GetNamespace(), u.GetName())] = u
	if g := u.GetGenerateName(); g != "" {
		s.generated[g] = true
	}
	if slices.Contains(makers, r.Resource) { // the names of what it could not make are in its messages
		s.generated[u.GetName()+"-"] = true
	}
	if !quiet {
		s.changed = time.Now()
	}
}

func (w *world) remove(r schema.GroupResource, u *unstructured.Unstructured) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.of(u); s != nil {
		delete(s.objects, key(r, u.GetNamespace(), u.GetName()))
		s.changed = time.Now()
	}
}

// touch notes that something was done in a scene.
func (w *world) touch(ns string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.scenes[ns]; s != nil {
		s.changed = time.Now()
	}
}

// get returns an object of a scene, or nil.
func (w *world) get(ns string, r schema.GroupResource, namespace, name string) *unstructured.Unstructured {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.scenes[ns]; s != nil {
		return s.objects[key(r, namespace, name)]
	}
	return nil
}

// pods returns the pods of a scene by node, the oldest first.
func (w *world) pods(ns string) []*unstructured.Unstructured {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*unstructured.Unstructured
	for k, o := range w.scenes[ns].objects {
		if strings.HasPrefix(k, "pods/") && o.GetNamespace() == ns {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *unstructured.Unstructured) int {
		at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return cmp.Or(strings.Compare(nodeOf(a), nodeOf(b)), at.Compare(bt.Time), strings.Compare(a.GetName(), b.GetName()))
	})
	return all
}

func nodeOf(pod *unstructured.Unstructured) string {
	name, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName")
	return name
}

// quiet returns for how long nothing has changed in a scene.
func (w *world) quiet(ns string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.scenes[ns].changed)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// snapshot returns copies of the objects of a scene, and what generated names start with.
func (w *world) snapshot(ns string) ([]*unstructured.Unstructured, []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.scenes[ns]
	var all []*unstructured.Unstructured
	for _, o := range s.objects {
		all = append(all, o.DeepCopy())
	}
	return all, slices.Collect(maps.Keys(s.generated))
}

// deleteOptions are for what the API calls a propagation policy.
func deleteOptions(propagation string) metav1.DeleteOptions {
	if propagation == "" {
		return metav1.DeleteOptions{}
	}
	p := metav1.DeletionPropagation(propagation)
	return metav1.DeleteOptions{PropagationPolicy: &p}
}
