package queue

import (
	"context"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
)

// Mates are taken along wherever they wait.
func TestMates(t *testing.T) {
	f := newQueue(t)
	ctx, mates := context.Background(), []types.UID{"a", "b", "c", "unknown"}
	f.add(pod("c", 0))
	f.reject(f.pop("c"), "Fit")
	f.add(pod("b", 0))
	p := f.pop("b")
	p.ConsecutiveErrors++ // an error, after which it backs off
	f.Return(ctx, p)
	f.add(pod("a", 0))
	f.add(pod("other", 0))
	f.counts(2, 1, 1, 0)

	first := f.pop("a")
	taken, ok := f.Take(ctx, first, mates)
	names := sets.New[string]()
	for _, p := range taken {
		names.Insert(p.Pod.Name)
		if p.Attempts != 2 {
			t.Errorf("pod %s has been tried %d times, want 2", p.Pod.Name, p.Attempts)
		}
	}
	if !ok || !names.Equal(sets.New("b", "c")) {
		t.Fatalf("taken are %v (%v), want b and c", names, ok)
	}
	f.counts(1, 0, 0, 0)

	stamp := taken[0].Timestamp
	f.Again(ctx, taken[0]) // it got no node, the others did
	f.Done(first.Pod.UID)
	f.Done(taken[1].Pod.UID)
	f.counts(2, 0, 0, 0)
	if p := f.pop(taken[0].Pod.Name); p.Timestamp != stamp {
		t.Error("a pod that is tried again at once has lost its place")
	}
}

// A mate that is held back holds all back, until its gate opens or it is gone.
func TestHeldMate(t *testing.T) {
	ctx, mates := context.Background(), []types.UID{"a", "b", "held"}
	for name, free := range map[string]func(f *fixture, held *v1.Pod){
		"its gate opens": func(f *fixture, held *v1.Pod) {
			open := held.DeepCopy()
			open.Spec.SchedulingGates = nil
			f.Update(ctx, held, open)
			taken, ok := f.Take(ctx, f.pop("held"), mates)
			if !ok || len(taken) != 2 {
				t.Errorf("taken are %d, want 2", len(taken))
			}
		},
		"it is gone": func(f *fixture, held *v1.Pod) {
			f.Delete(held)
			f.Release(ctx, mates)
			taken, ok := f.Take(ctx, f.pop("a"), mates)
			if !ok || len(taken) != 1 {
				t.Errorf("taken are %d, want 1", len(taken))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newQueue(t)
			held := pod("held", 0)
			held.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "later"}}
			f.add(held)
			f.add(pod("a", 0))
			f.add(pod("b", 0))
			for _, name := range []string{"a", "b"} {
				p := f.pop(name)
				if _, ok := f.Take(ctx, p, mates); ok {
					t.Errorf("pod %s is tried while a mate is held back", name)
				}
				if p.Attempts != 0 {
					t.Errorf("pod %s was not tried, and its attempts are %d", name, p.Attempts)
				}
			}
			f.counts(0, 0, 0, 3)
			free(f, held)
		})
	}
}
