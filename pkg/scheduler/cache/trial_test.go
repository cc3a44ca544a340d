package cache

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// What is tried on a snapshot is seen, by node, and gone afterwards: the very same nodes are there again.
func TestTrial(t *testing.T) {
	pod := func(name, node string) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}, Spec: v1.PodSpec{NodeName: node}}
	}
	x, y := pod("x", "a"), pod("y", "b")
	s := NewSnapshotOf([]*v1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, {ObjectMeta: metav1.ObjectMeta{Name: "b"}}}, []*v1.Pod{x})
	count := func(node string) int {
		n, err := s.Get(node)
		if err != nil {
			t.Fatal(err)
		}
		if all, _ := s.List(); all[s.Position(node)] != n {
			t.Errorf("the list has another node %s than Get returns", node)
		}
		return len(n.GetPods())
	}
	before, _ := s.Get("a")

	if err := s.StartMutations(); err != nil {
		t.Fatal(err)
	}
	if s.StartMutations() == nil {
		t.Error("a second session begins in the first")
	}
	if err := s.RemovePod(klog.Background(), x, "a"); err != nil {
		t.Fatal(err)
	}
	if s.RemovePod(klog.Background(), x, "a") == nil {
		t.Error("a pod goes twice")
	}
	mark := s.Mark()
	info, _ := NewPodInfo(y)
	for _, node := range []string{"a", "b", "a"} {
		if err := s.AddPod(info, node); err != nil {
			t.Fatal(err)
		}
	}
	if s.AddPod(info, "nowhere") == nil {
		t.Error("a pod comes to a node that is not there")
	}
	if a, b := count("a"), count("b"); a != 2 || b != 1 {
		t.Errorf("there are %d and %d pods, want 2 and 1", a, b)
	}
	s.Revert(mark)
	if a, b := count("a"), count("b"); a != 0 || b != 0 {
		t.Errorf("after going back to the mark there are %d and %d pods, want none", a, b)
	}
	if err := s.EndMutations(); err != nil {
		t.Fatal(err)
	}
	if after, _ := s.Get("a"); after != before {
		t.Error("the node is not what it was before")
	}
	if s.EndMutations() == nil {
		t.Error("a session ends twice")
	}
}
