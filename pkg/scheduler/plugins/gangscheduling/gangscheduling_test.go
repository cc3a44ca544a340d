package gangscheduling

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

func gang(namespace, name string, minCount int32) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if minCount > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: minCount}
	}
	return g
}

func pod(namespace, group string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}
	if group != "" {
		p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: ptr.To(group)}
	}
	return p
}

func TestPlacementFeasible(t *testing.T) {
	for _, tc := range []struct {
		name                 string
		minCount             int32
		scheduled, remaining int
		want                 fwk.Code
	}{
		{"enough", 2, 2, 0, fwk.Success},
		{"enough, and more to try", 2, 3, 5, fwk.Success},
		{"enough may come", 2, 1, 1, fwk.Wait},
		{"too few can come", 3, 1, 1, fwk.Unschedulable},
		{"too few from the first", 4, 0, 3, fwk.Unschedulable},
		{"one of a basic group", 0, 1, 0, fwk.Success},
		{"one of a basic group may come", 0, 0, 1, fwk.Wait},
		{"none of a basic group", 0, 0, 0, fwk.Unschedulable},
	} {
		info := &podgroup.Info{Group: gang("a", "g", tc.minCount)}
		s := (&Plugin{}).PlacementFeasible(t.Context(), nil, info, framework.Progress{Scheduled: tc.scheduled, Remaining: tc.remaining})
		if s.Code() != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, s.Code(), tc.want)
		}
	}
}

func TestHints(t *testing.T) {
	mine := pod("a", "g")
	for _, tc := range []struct {
		name     string
		hint     fwk.QueueingHintFn
		pod      *v1.Pod
		old, new any
		want     fwk.QueueingHint
	}{
		{"a mate comes", afterPod, mine, nil, pod("a", "g"), fwk.Queue},
		{"a pod of another group comes", afterPod, mine, nil, pod("a", "h"), fwk.QueueSkip},
		{"a pod of a group of that name elsewhere comes", afterPod, mine, nil, pod("b", "g"), fwk.QueueSkip},
		{"a pod of no group comes", afterPod, mine, nil, pod("a", ""), fwk.QueueSkip},
		{"the group comes", afterGroup, mine, nil, gang("a", "g", 1), fwk.Queue},
		{"another group comes", afterGroup, mine, nil, gang("a", "h", 1), fwk.QueueSkip},
		{"the group elsewhere comes", afterGroup, mine, nil, gang("b", "g", 1), fwk.QueueSkip},
		{"the gang needs fewer", afterGroupChange, mine, gang("a", "g", 4), gang("a", "g", 3), fwk.Queue},
		{"the gang needs more", afterGroupChange, mine, gang("a", "g", 3), gang("a", "g", 4), fwk.QueueSkip},
		{"the gang needs as many", afterGroupChange, mine, gang("a", "g", 3), gang("a", "g", 3), fwk.QueueSkip},
		{"another gang needs fewer", afterGroupChange, mine, gang("a", "h", 4), gang("a", "h", 3), fwk.QueueSkip},
		{"a basic group changes", afterGroupChange, mine, gang("a", "g", 0), gang("a", "g", 0), fwk.QueueSkip},
		{"a pod of no group", afterGroupChange, pod("a", ""), gang("a", "g", 4), gang("a", "g", 3), fwk.QueueSkip},
	} {
		if got, err := tc.hint(klog.Background(), tc.pod, tc.old, tc.new); got != tc.want || err != nil {
			t.Errorf("%s: %v (%v), want %v", tc.name, got, err, tc.want)
		}
	}
}
