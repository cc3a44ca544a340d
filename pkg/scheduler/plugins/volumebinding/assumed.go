package volumebinding

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// assumed are objects as they will be once what was decided about them is written. Each
// counts until the informer shows another version than the one that it was made from.
type assumed[T metav1.Object] struct {
	mu      sync.RWMutex
	objects map[string]assumption[T]
}

type assumption[T metav1.Object] struct {
	object T
	from   string // resource version
}

func newAssumed[T metav1.Object]() *assumed[T] {
	return &assumed[T]{objects: map[string]assumption[T]{}}
}

func keyOf(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// now returns what an object that the informer shows is taken to be.
func (a *assumed[T]) now(seen T) T {
	a.mu.RLock()
	x, ok := a.objects[keyOf(seen)]
	a.mu.RUnlock()
	switch {
	case !ok:
		return seen
	case x.from == seen.GetResourceVersion():
		return x.object
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if x, ok := a.objects[keyOf(seen)]; ok && x.from != seen.GetResourceVersion() {
		delete(a.objects, keyOf(seen))
	}
	return seen
}

// assume takes an object, made from the version of it that the informer shows, for true.
func (a *assumed[T]) assume(object T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects[keyOf(object)] = assumption[T]{object, object.GetResourceVersion()}
}

// forget takes the informer's word again.
func (a *assumed[T]) forget(object T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.objects, keyOf(object))
}

// all returns the objects that are taken for true.
func (a *assumed[T]) all() []T {
	a.mu.RLock()
	defer a.mu.RUnlock()
	out := make([]T, 0, len(a.objects))
	for _, x := range a.objects {
		out = append(out, x.object)
	}
	return out
}
