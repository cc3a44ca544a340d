package podgroup

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"
)

func groupPod(name, node string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)},
		Spec:       v1.PodSpec{NodeName: node, SchedulingGroup: &v1.PodSchedulingGroup{PodGroupName: ptr.To("g")}},
	}
}

func newGroups(t *testing.T, objects ...runtime.Object) *Groups {
	t.Helper()
	f := informers.NewSharedInformerFactory(nil, 0)
	g, err := New(f, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := f.InformerFor(o, nil).GetStore().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// A pod of a group waits, is assumed, and is assigned or waits again.
func TestGroups(t *testing.T) {
	g, key := newGroups(t), types.NamespacedName{Namespace: "shop", Name: "g"}
	check := func(what string, waiting, assumed, assigned int) {
		t.Helper()
		s := g.State(key)
		if w, a, b := len(s.UnscheduledPods()), s.AssumedPods().Len(), s.AssignedPods().Len(); w != waiting || a != assumed || b != assigned {
			t.Errorf("%s: %d wait, %d are assumed and %d assigned, want %d, %d and %d", what, w, a, b, waiting, assumed, assigned)
		}
		if s.AllPodsCount() != waiting+assumed+assigned || s.ScheduledPodsCount() != assumed+assigned || len(s.Waiting()) != waiting {
			t.Errorf("%s: the counts are wrong", what)
		}
	}
	g.Set(groupPod("a", ""))
	g.Set(groupPod("b", ""))
	g.Set(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "other"}})
	check("two pods", 2, 0, 0)
	g.Assume(groupPod("a", "n"))
	g.Set(groupPod("a", "")) // a change of the pod that comes before its binding
	check("one assumed", 1, 1, 0)
	g.Forget(groupPod("a", "n"))
	check("forgotten", 2, 0, 0)
	g.Assume(groupPod("a", "n"))
	g.Set(groupPod("a", "n"))
	check("confirmed", 1, 0, 1)
	g.Forget(groupPod("a", "n"))
	check("what is confirmed is not forgotten", 1, 0, 1)
	copied := newGroups(t)
	copied.TakePodsOf(g)
	g.Delete(groupPod("a", "n"))
	g.Delete(groupPod("b", ""))
	check("gone", 0, 0, 0)
	if n := copied.State(key).AllPodsCount(); n != 2 {
		t.Errorf("the copy has %d pods, want 2", n)
	}
	if len(g.members) != 0 {
		t.Error("a group without pods is kept")
	}
	var none *Groups
	none.Set(groupPod("a", "")) // the gate is off
}

func TestConditions(t *testing.T) {
	yes := metav1.Condition{Type: schedulingv1beta1.PodGroupInitiallyScheduled, Status: metav1.ConditionTrue, Reason: "Scheduled", ObservedGeneration: 7}
	for name, tc := range map[string]struct {
		before metav1.Condition
		status *fwk.Status
		want   metav1.Condition
	}{
		"scheduled":              {status: nil, want: yes},
		"unschedulable":          {status: fwk.NewStatus(fwk.Unschedulable, "too little", "no help"), want: metav1.Condition{Status: "False", Reason: "Unschedulable", Message: "too little, no help"}},
		"an error":               {status: fwk.NewStatus(fwk.Error, "broken"), want: metav1.Condition{Status: "False", Reason: "SchedulerError", Message: "broken"}},
		"once scheduled, always": {before: yes, status: fwk.NewStatus(fwk.Unschedulable, "too little"), want: yes},
	} {
		g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Generation: 7}}
		if tc.before.Type != "" {
			g.Status.Conditions = []metav1.Condition{tc.before}
		}
		got := With(g, Condition(tc.status))
		if len(got) != 1 || got[0].Status != tc.want.Status || got[0].Reason != tc.want.Reason || got[0].Message != tc.want.Message || got[0].ObservedGeneration != 7 {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestValidate(t *testing.T) {
	never, lower := v1.PreemptNever, v1.PreemptLowerPriority
	group := func(p schedulingv1beta1.PreemptionPolicy) *schedulingv1beta1.PodGroup {
		return &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: "g"}, Spec: schedulingv1beta1.PodGroupSpec{PreemptionPolicy: &p}}
	}
	pod := func(p *v1.PreemptionPolicy, priority int32) *v1.Pod {
		return &v1.Pod{Spec: v1.PodSpec{PreemptionPolicy: p, Priority: &priority}}
	}
	for name, tc := range map[string]struct {
		group     *schedulingv1beta1.PodGroup
		pods      []*v1.Pod
		scheduled []*v1.Pod
		policies  bool
		ok        bool
	}{
		"no pods":                        {group("PreemptLowerPriority"), nil, nil, false, false},
		"alike":                          {group("Never"), []*v1.Pod{pod(&never, 0), pod(&never, 0)}, nil, true, true},
		"another policy among pods":      {group("Never"), []*v1.Pod{pod(&never, 0), pod(&lower, 0)}, nil, false, false},
		"another policy than the group":  {group("Never"), []*v1.Pod{pod(&lower, 0)}, nil, true, false},
		"which does not count":           {group("Never"), []*v1.Pod{pod(&lower, 0)}, nil, false, true},
		"the policy by default":          {group("PreemptLowerPriority"), []*v1.Pod{pod(nil, 0), pod(&lower, 0)}, nil, true, true},
		"another priority":               {group("PreemptLowerPriority"), []*v1.Pod{pod(nil, 0), pod(nil, 1)}, nil, false, false},
		"another priority than one runs": {group("PreemptLowerPriority"), []*v1.Pod{pod(nil, 0)}, []*v1.Pod{pod(nil, 1)}, false, false},
	} {
		err := (&Info{Group: tc.group, Pods: tc.pods}).Validate(tc.scheduled, tc.policies)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
