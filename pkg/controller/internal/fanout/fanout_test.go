package fanout

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// source is an informer of which the test plays the events.
type source struct {
	cache.Informer
	toolscache.Store
	listeners []toolscache.ResourceEventHandler
}

func (s *source) GetStore() toolscache.Store { return s.Store }

func (s *source) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	s.listeners = append(s.listeners, h)
	return struct {
		toolscache.ResourceEventHandlerRegistration
	}{}, nil
}

// ear writes down what it hears.
func ear(heard *[]string) toolscache.ResourceEventHandler {
	note := func(what string) func(o any) {
		return func(o any) { *heard = append(*heard, what+" "+o.(*corev1.Pod).Name) }
	}
	return toolscache.ResourceEventHandlerFuncs{AddFunc: note("added"), UpdateFunc: func(_, o any) { note("updated")(o) }, DeleteFunc: note("deleted")}
}

func TestListeners(t *testing.T) {
	pod := func(name string) *corev1.Pod { return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	s := &source{Store: toolscache.NewStore(toolscache.MetaNamespaceKeyFunc)}
	f := &fanning{informers: map[cache.Informer]*informer{}}
	i := f.of(s)
	if f.of(s) != i {
		t.Fatal("one informer has two that listen for all")
	}

	var first, second []string
	add := func(heard *[]string) toolscache.ResourceEventHandlerRegistration {
		t.Helper()
		r, err := i.AddEventHandlerWithOptions(ear(heard), toolscache.HandlerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	check := func(what string, heard, want []string) {
		t.Helper()
		if !slices.Equal(heard, want) {
			t.Errorf("%s: %q, want %q", what, heard, want)
		}
	}
	leaves := add(&first)
	if len(s.listeners) != 1 {
		t.Fatalf("the informer has %d listeners", len(s.listeners))
	}
	one := s.listeners[0]

	if err := s.Add(pod("a")); err != nil {
		t.Fatal(err)
	}
	one.OnAdd(pod("a"), true)
	check("the first hears", first, []string{"added a"})

	add(&second)
	if len(s.listeners) != 1 {
		t.Errorf("the informer has %d listeners", len(s.listeners))
	}
	check("who comes later hears of what is there", second, []string{"added a"})
	check("the first hears of it once", first, []string{"added a"})

	one.OnUpdate(pod("a"), pod("a"))
	check("the first", first, []string{"added a", "updated a"})
	check("the second", second, []string{"added a", "updated a"})

	if err := i.RemoveEventHandler(leaves); err != nil {
		t.Fatal(err)
	}
	one.OnDelete(pod("a"))
	check("who has left hears nothing more", first, []string{"added a", "updated a"})
	check("who stays", second, []string{"added a", "updated a", "deleted a"})
}

// An informer that shows no store, as one of several namespaces, keeps its own listeners.
func TestSeveral(t *testing.T) {
	several := struct{ cache.Informer }{&source{}}
	f := &fanning{informers: map[cache.Informer]*informer{}}
	if got := f.of(several); got != cache.Informer(several) {
		t.Errorf("it is replaced by a %T", got)
	}
}
