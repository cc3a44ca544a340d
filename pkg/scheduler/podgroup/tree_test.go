package podgroup

import (
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"
)

func object(name string, age int64) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, CreationTimestamp: metav1.NewTime(time.Unix(age, 0))}
}

func group(name, parent string, age int64) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{ObjectMeta: object(name, age)}
	if parent != "" {
		g.Spec.ParentCompositePodGroupName = &parent
	}
	return g
}

func composite(name, parent string) *schedulingv1alpha3.CompositePodGroup {
	g := &schedulingv1alpha3.CompositePodGroup{ObjectMeta: object(name, 0)}
	if parent != "" {
		g.Spec.ParentCompositePodGroupName = &parent
	}
	return g
}

func podOf(name, group string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)},
		Spec:       v1.PodSpec{SchedulingGroup: &v1.PodSchedulingGroup{PodGroupName: ptr.To(group)}},
	}
}

func TestRoot(t *testing.T) {
	g := newGroups(t, group("alone", "", 0), group("low", "mid", 0), composite("mid", "top"), composite("top", ""),
		group("orphan", "gone", 0), composite("x", "y"), composite("y", "x"), group("circle", "x", 0),
		composite("1", ""), composite("2", "1"), composite("3", "2"), composite("4", "3"), composite("5", "4"), group("four", "4", 0), group("five", "5", 0))
	off := newGroups(t)
	off.composites = nil
	for _, tc := range []struct {
		groups *Groups
		of     string
		want   fwk.EntityKey
		ok     bool
		err    bool
	}{
		{g, "alone", fwk.PodGroupKey("shop", "alone"), true, false},
		{g, "low", fwk.CompositePodGroupKey("shop", "top"), true, false},
		{g, "nothing", fwk.PodGroupKey("shop", "nothing"), false, false},
		{g, "orphan", fwk.CompositePodGroupKey("shop", "gone"), false, false},
		{g, "circle", fwk.EntityKey{}, false, true},
		{g, "four", fwk.CompositePodGroupKey("shop", "1"), true, false},
		{g, "five", fwk.EntityKey{}, false, true},
		{off, "low", fwk.PodGroupKey("shop", "low"), true, false},
	} {
		got, ok, err := tc.groups.GetRootKeyForGroup(fwk.PodGroupKey("shop", tc.of))
		if ok != tc.ok || (err != nil) != tc.err || err == nil && got != tc.want {
			t.Errorf("above %s is %v, %t (%v), want %v", tc.of, got, ok, err, tc.want)
		}
		if _, err := tc.groups.BuildHierarchySnapshotFromPod(podOf("p", tc.of)); (err == nil) != tc.ok && tc.groups == g {
			t.Errorf("the hierarchy of a pod of %s: %v", tc.of, err)
		}
	}
	if low, orphan, alone := fwk.PodGroupKey("shop", "low"), fwk.PodGroupKey("shop", "orphan"), fwk.PodGroupKey("shop", "alone"); !Related(g, low, fwk.CompositePodGroupKey("shop", "mid")) ||
		!Related(g, orphan, fwk.CompositePodGroupKey("shop", "gone")) || Related(g, low, alone) || Related(g, fwk.PodGroupKey("shop", "circle"), alone) {
		t.Error("it is not told right who is related")
	}
}

// The tree of a group has its groups by age and name, and in each its pods.
func TestTree(t *testing.T) {
	g := newGroups(t, composite("top", ""), group("z", "top", 1), group("b", "top", 2), group("a", "top", 2), composite("mid", "top"), group("low", "mid", 0), group("other", "", 0))
	for _, p := range []*v1.Pod{podOf("p", "a"), podOf("q", "low"), podOf("r", "a"), podOf("s", "other")} {
		g.Set(p)
	}
	root := fwk.CompositePodGroupKey("shop", "top")
	tree, err := g.Tree(root, []*v1.Pod{podOf("r", "a"), podOf("q", "low"), podOf("p", "a"), podOf("s", "other")})
	if err != nil {
		t.Fatal(err)
	}
	var show func(i fwk.PodGroupInfo) string
	show = func(i fwk.PodGroupInfo) string {
		s := i.GetName()
		for _, p := range i.GetUnscheduledPods() {
			s += " " + p.Name
		}
		for _, c := range i.GetChildren() {
			s += " (" + show(c) + ")"
		}
		return s
	}
	if got, want := show(tree), "top q r p (mid q (low q)) (z) (a r p) (b)"; got != want {
		t.Errorf("the tree is %s, want %s", got, want)
	}
	if got := fmt.Sprint(len(g.Waiting(root)), len(g.Mates(fwk.PodGroupKey("shop", "z"))), len(g.Mates(fwk.PodGroupKey("shop", "other")))); got != "3 3 1" {
		t.Errorf("pods that wait: %s", got)
	}
	g.Assume(func() *v1.Pod { p := podOf("q", "low"); p.Spec.NodeName = "n"; return p }())
	if pods, err := ScheduledPods(g, root); err != nil || len(pods) != 1 {
		t.Errorf("%d pods are scheduled (%v), want 1", len(pods), err)
	}
}
