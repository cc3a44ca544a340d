package gangscheduling

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
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
		for _, info := range []*podgroup.Info{{Group: gang("a", "g", tc.minCount)}, {Composite: composite("g", "", tc.minCount)}} {
			s := (&Plugin{}).PlacementFeasible(t.Context(), nil, info, framework.Progress{Scheduled: tc.scheduled, Remaining: tc.remaining})
			if s.Code() != tc.want {
				t.Errorf("%s: %v of a %s, want %v", tc.name, s.Code(), info.GetType(), tc.want)
			}
		}
	}
}

func TestHints(t *testing.T) {
	groups, err := podgroup.New(informers.NewSharedInformerFactory(nil, 0), false)
	if err != nil {
		t.Fatal(err)
	}
	p := &Plugin{groups: groups}
	mine := pod("a", "g")
	for _, tc := range []struct {
		name     string
		hint     fwk.QueueingHintFn
		pod      *v1.Pod
		old, new any
		want     fwk.QueueingHint
	}{
		{"a mate comes", p.afterPod, mine, nil, pod("a", "g"), fwk.Queue},
		{"a pod of another group comes", p.afterPod, mine, nil, pod("a", "h"), fwk.QueueSkip},
		{"a pod of a group of that name elsewhere comes", p.afterPod, mine, nil, pod("b", "g"), fwk.QueueSkip},
		{"a pod of no group comes", p.afterPod, mine, nil, pod("a", ""), fwk.QueueSkip},
		{"the group comes", p.afterGroup, mine, nil, gang("a", "g", 1), fwk.Queue},
		{"another group comes", p.afterGroup, mine, nil, gang("a", "h", 1), fwk.QueueSkip},
		{"the group elsewhere comes", p.afterGroup, mine, nil, gang("b", "g", 1), fwk.QueueSkip},
		{"the gang needs fewer", p.afterGroupChange, mine, gang("a", "g", 4), gang("a", "g", 3), fwk.Queue},
		{"the gang needs more", p.afterGroupChange, mine, gang("a", "g", 3), gang("a", "g", 4), fwk.QueueSkip},
		{"the gang needs as many", p.afterGroupChange, mine, gang("a", "g", 3), gang("a", "g", 3), fwk.QueueSkip},
		{"another gang needs fewer", p.afterGroupChange, mine, gang("a", "h", 4), gang("a", "h", 3), fwk.QueueSkip},
		{"a basic group changes", p.afterGroupChange, mine, gang("a", "g", 0), gang("a", "g", 0), fwk.QueueSkip},
		{"a pod of no group", p.afterGroupChange, pod("a", ""), gang("a", "g", 4), gang("a", "g", 3), fwk.QueueSkip},
	} {
		if got, err := tc.hint(klog.Background(), tc.pod, tc.old, tc.new); got != tc.want || err != nil {
			t.Errorf("%s: %v (%v), want %v", tc.name, got, err, tc.want)
		}
	}
}

func composite(name, parent string, minGroups int32) *schedulingv1alpha3.CompositePodGroup {
	g := &schedulingv1alpha3.CompositePodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
	if parent != "" {
		g.Spec.ParentCompositePodGroupName = &parent
	}
	if minGroups > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1alpha3.CompositeGangSchedulingPolicy{MinGroupCount: minGroups}
	}
	return g
}

// A tree of groups enters the queue when its root has as many groups as it needs that have as
// many pods as they need.
func TestTreeEnters(t *testing.T) {
	under := func(parent, name string, minCount int32) *schedulingv1beta1.PodGroup {
		g := gang("a", name, minCount)
		g.Spec.ParentCompositePodGroupName = &parent
		return g
	}
	tree := []runtime.Object{
		composite("root", "", 2), composite("sub1", "root", 2), composite("sub2", "root", 0), composite("sub3", "root", 2),
		under("sub1", "1", 1), under("sub1", "2", 2), under("sub1", "3", 1), under("sub2", "4", 0), under("sub2", "5", 1), under("sub3", "6", 1), under("sub3", "7", 1),
		under("gone", "orphan", 1), gang("a", "alone", 2),
	}
	for _, tc := range []struct {
		name string
		pods []string // the groups of which there are pods; the first is asked about
		want string
	}{
		{"one group of two", []string{"1"}, `waiting for composite pod group "root" tree to meet quorum`},
		{"two groups that the first needs", []string{"1", "2", "2"}, `waiting for composite pod group "root" tree to meet quorum`},
		{"and one of another that needs two", []string{"6", "1", "2", "2"}, `waiting for composite pod group "root" tree to meet quorum`},
		{"and one of another that takes what there is", []string{"4", "1", "2", "2"}, ""},
		{"the gang that is not whole is let in with the others", []string{"2", "1", "3", "5"}, ""},
		{"what is above is not there", []string{"orphan"}, `waiting for composite pod group "gone" to appear in scheduling queue`},
		{"the group is not there", []string{"nothing"}, `waiting for pods's pod group "nothing" to appear in scheduling queue`},
		{"nothing is above it", []string{"alone"}, "waiting for minCount pods from a gang to appear in scheduling queue"},
		{"and it is whole", []string{"alone", "alone"}, ""},
	} {
		f := informers.NewSharedInformerFactory(nil, 0)
		groups, err := podgroup.New(f, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range tree {
			if err := f.InformerFor(o, nil).GetStore().Add(o); err != nil {
				t.Fatal(err)
			}
		}
		var first *v1.Pod
		for i, group := range tc.pods {
			p := pod("a", group)
			p.UID = types.UID(fmt.Sprint(i))
			if groups.Set(p); first == nil {
				first = p
			}
		}
		if s := (&Plugin{groups: groups}).PreEnqueue(t.Context(), first); s.Message() != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, s.Message(), tc.want)
		}
	}
}
