package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// composite makes a group of groups that wants so many groups at once; a basic one for none.
func composite(name, parent string, minGroups int32, change ...func(*schedulingv1alpha3.CompositePodGroup)) *schedulingv1alpha3.CompositePodGroup {
	g := &schedulingv1alpha3.CompositePodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
	if parent != "" {
		g.Spec.ParentCompositePodGroupName = &parent
	}
	if minGroups > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1alpha3.CompositeGangSchedulingPolicy{MinGroupCount: minGroups}
	}
	for _, f := range change {
		f(g)
	}
	return g
}

func below(parent string) func(*schedulingv1beta1.PodGroup) {
	return func(g *schedulingv1beta1.PodGroup) { g.Spec.ParentCompositePodGroupName = &parent }
}

func allInOne(key string) func(*schedulingv1alpha3.CompositePodGroup) {
	return func(g *schedulingv1alpha3.CompositePodGroup) {
		g.Spec.SchedulingConstraints = &schedulingv1alpha3.CompositePodGroupSchedulingConstraints{Topology: []schedulingv1alpha3.TopologyConstraint{{Key: key}}}
	}
}

func allTogether(g *schedulingv1alpha3.CompositePodGroup) {
	g.Spec.DisruptionMode = &schedulingv1alpha3.CompositeDisruptionMode{All: &schedulingv1alpha3.AllCompositeDisruptionMode{}}
}

func compositePriority(p int32) func(*schedulingv1alpha3.CompositePodGroup) {
	return func(g *schedulingv1alpha3.CompositePodGroup) { g.Spec.Priority = &p }
}

// podsOf makes pods for groups: "a=1,1 b=2" are two of group a that want a CPU each, and one of b.
func podsOf(spec string, change ...func(*v1.Pod)) (pods []*v1.Pod) {
	for _, group := range strings.Fields(spec) {
		name, wants, _ := strings.Cut(group, "=")
		for i, cpu := range strings.Split(wants, ",") {
			pods = append(pods, makePod(fmt.Sprint(name, i), cpu, "", append([]func(*v1.Pod){of(name)}, change...)...))
		}
	}
	return pods
}

// What is decided about groups of groups is what the original decides: these are its answers.
func TestDecideTree(t *testing.T) {
	const nowhere = "pod group is unschedulable, 0/1 placements are available, first placement status: "
	node := []*v1.Node{makeNode("n", "4", "64Gi")}
	racks := []*v1.Node{makeNode("a1", "3", "8Gi", inRack("a")), makeNode("b1", "3", "8Gi", inRack("b")), makeNode("b2", "3", "8Gi", inRack("b"))}
	type groups = []*schedulingv1beta1.PodGroup
	for _, tc := range []struct {
		name   string
		nodes  []*v1.Node
		pods   []*v1.Pod
		groups groups
		above  []runtime.Object
		want   string            // where which pods go
		told   map[string]string // why groups get nothing
	}{
		{"both fit", node, podsOf("a=1,1 b=1,1"), groups{makeGroup("a", 2, below("root")), makeGroup("b", 2, below("root"))},
			[]runtime.Object{composite("root", "", 2)}, "a0@n a1@n b0@n b1@n", nil},
		{"of two that are needed one fits", node, podsOf("a=1,1 b=3,3"), groups{makeGroup("a", 2, below("root")), makeGroup("b", 2, below("root"))},
			[]runtime.Object{composite("root", "", 2)}, "",
			map[string]string{"a": nowhere + "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining", "b": nowhere + "minCount (2) cannot be satisfied: 0 scheduled, 1 remaining"}},
		{"one is needed and one fits", node, podsOf("a=1,1 b=3,3"), groups{makeGroup("a", 2, below("root")), makeGroup("b", 2, below("root"))},
			[]runtime.Object{composite("root", "", 1)}, "a0@n a1@n", map[string]string{"b": nowhere + "minCount (2) cannot be satisfied: 0 scheduled, 1 remaining"}},
		{"a basic one takes what there is", node, podsOf("a=3,3 b=3,1"), groups{makeGroup("a", 2, below("root")), makeGroup("b", 0, below("root"))},
			[]runtime.Object{composite("root", "", 0)}, "b0@n b1@n", map[string]string{"a": nowhere + "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining"}},
		{"a group without pods does not count", node, podsOf("a=1"), groups{makeGroup("a", 1, below("root")), makeGroup("b", 0, below("root"))},
			[]runtime.Object{composite("root", "", 2)}, "",
			map[string]string{"a": nowhere + "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining", "b": nowhere + "pod group is unschedulable"}},
		{"one whose pods all run does", node, append(podsOf("a=1", on("n")), podsOf("b=1")...), groups{makeGroup("a", 1, below("root")), makeGroup("b", 1, below("root"))},
			[]runtime.Object{composite("root", "", 2)}, "b0@n", nil},
		{"what does not get enough gives its room back", node, podsOf("a=2 b=3 c=2,2"), groups{makeGroup("a", 1, below("x")), makeGroup("b", 1, below("x")), makeGroup("c", 2, below("y"))},
			[]runtime.Object{composite("root", "", 1), composite("x", "root", 2), composite("y", "root", 1)}, "c0@n c1@n",
			map[string]string{"a": nowhere + "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining", "b": nowhere + "minCount (1) cannot be satisfied: 0 scheduled, 0 remaining"}},
		{"the older comes first", node, podsOf("a=3 z=3"), groups{
			makeGroup("a", 1, below("root"), func(g *schedulingv1beta1.PodGroup) { g.CreationTimestamp = metav1.NewTime(time.Unix(2, 0)) }),
			makeGroup("z", 1, below("root"), func(g *schedulingv1beta1.PodGroup) { g.CreationTimestamp = metav1.NewTime(time.Unix(1, 0)) })},
			[]runtime.Object{composite("root", "", 1)}, "z0@n", map[string]string{"a": nowhere + "minCount (1) cannot be satisfied: 0 scheduled, 0 remaining"}},
		{"all in one rack", racks, podsOf("a=2 b=2"), groups{makeGroup("a", 1, below("root")), makeGroup("b", 1, below("root"))},
			[]runtime.Object{composite("root", "", 2, allInOne("rack"))}, "a0@b b0@b", nil},
		{"the rack of those that run", racks, append(podsOf("a=1", on("b1")), podsOf("b=1")...), groups{makeGroup("a", 1, below("root")), makeGroup("b", 1, below("root"))},
			[]runtime.Object{composite("root", "", 1, allInOne("rack"))}, "b0@b", nil},
		{"a rack for each", racks, podsOf("a=2,2 b=3"), groups{makeGroup("a", 2, below("root"), inOne("rack")), makeGroup("b", 1, below("root"), inOne("rack"))},
			[]runtime.Object{composite("root", "", 2)}, "a0@b a1@b b0@a1", nil},
		{"no rack for all", racks, podsOf("a=2,2 b=2,2"), groups{makeGroup("a", 2, below("root")), makeGroup("b", 2, below("root"))},
			[]runtime.Object{composite("root", "", 2, allInOne("rack"))}, "",
			map[string]string{"a": "pod group is unschedulable, 0/1 placements are available, first placement status: minCount (2) cannot be satisfied: 1 scheduled, 0 remaining",
				"b": "pod group is unschedulable, 0/2 placements are available, first placement status: minCount (2) cannot be satisfied: 0 scheduled, 1 remaining"}},
		{"no rack", node, podsOf("a=1"), groups{makeGroup("a", 1, below("root"))}, []runtime.Object{composite("root", "", 1, allInOne("rack"))}, "",
			map[string]string{"a": "no feasible placements found"}},
		{"another priority than that of the root", node, podsOf("a=1"), groups{makeGroup("a", 1, below("root"))}, []runtime.Object{composite("root", "", 1, compositePriority(7))}, "",
			map[string]string{"a": "all pods in a single pod group should have the same priority as the pod group's priority, got 0 and 7"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := gangWorld(t, allGates, tc.nodes, tc.pods, tc.groups, tc.above...)
			d := decideOn(t, m, "root")
			want := strings.Fields(tc.want)
			var got []string
			for i := range d.members {
				if p := &d.members[i]; p.err == nil {
					got = append(got, p.info.Pod.Name+"@"+p.node)
				}
			}
			slices.Sort(got)
			if !slices.EqualFunc(got, want, strings.HasPrefix) {
				t.Errorf("pods go to %v (%s), want %v", got, d.status.Message(), want)
			}
			told := map[string]string{}
			for _, o := range d.groups {
				if !o.status.IsSuccess() {
					told[o.group.Name], _, _ = strings.Cut(o.status.Message(), ", pod group preemption")
				}
			}
			if !maps.Equal(told, tc.told) {
				t.Errorf("groups are told %q, want %q", told, tc.told)
			}
			for i := range d.members {
				if p := &d.members[i]; p.err != nil && d.status.IsRejected() && (p.fit == nil || p.fit.Diagnosis.UnschedulablePlugins.Len() == 0) {
					t.Errorf("nobody has rejected pod %d: %v", i, p.err)
				}
			}
		})
	}
}

// Pods below a group of groups go with it, and for it others go.
func TestPreemptionForTrees(t *testing.T) {
	nodes := []*v1.Node{makeNode("a", "2", "8Gi"), makeNode("b", "2", "8Gi")}
	running := func(name, node, group string) *v1.Pod {
		return makePod(name, "1", "", on(node), priority(5), of(group))
	}
	high := func(pods []*v1.Pod) []*v1.Pod {
		for _, p := range pods {
			p.Spec.Priority = ptr.To[int32](100)
		}
		return pods
	}
	full := []*v1.Pod{running("v0", "a", "v"), running("v1", "b", "v"), running("w0", "a", "w"), running("w1", "b", "w")}
	victims := func(mode func(*schedulingv1beta1.PodGroup)) []*schedulingv1beta1.PodGroup {
		return []*schedulingv1beta1.PodGroup{
			makeGroup("v", 1, groupPriority(5), below("x"), mode), makeGroup("w", 1, groupPriority(5), below("y"), mode),
			makeGroup("g", 1, groupPriority(100), below("root")), makeGroup("h", 1, groupPriority(100), below("root")),
		}
	}
	single := func(*schedulingv1beta1.PodGroup) {}
	for _, tc := range []struct {
		name   string
		groups []*schedulingv1beta1.PodGroup
		above  []runtime.Object
		pods   string
		want   string
	}{
		{"the highest that goes as a whole", victims(single), []runtime.Object{
			composite("top", "", 1, compositePriority(5), allTogether), composite("x", "top", 1), composite("y", "top", 1)}, "g=1", "v0 v1 w0 w1"},
		{"a part of the tree", victims(single), []runtime.Object{
			composite("top", "", 1, compositePriority(5)), composite("x", "top", 1, allTogether), composite("y", "top", 1)}, "g=1", "w1"},
		{"a group on its own", victims(together), []runtime.Object{
			composite("top", "", 1, compositePriority(5)), composite("x", "top", 1), composite("y", "top", 1)}, "g=1", "w0 w1"},
		{"what is above is not there", victims(together), nil, "g=1", "w0 w1"},
		{"the priority of the root counts", victims(single), []runtime.Object{
			composite("x", "", 1, compositePriority(200)), composite("y", "", 1, compositePriority(5))}, "g=1 h=1", "w0 w1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			above := append(tc.above, composite("root", "", 1, compositePriority(100)))
			d := decideOn(t, gangWorld(t, allGates, nodes, append(high(podsOf(tc.pods)), full...), tc.groups, above...), "root")
			var victims []string
			for _, v := range d.outcome().Victims {
				victims = append(victims, strings.TrimPrefix(v, "default/"))
			}
			slices.Sort(victims)
			if got := strings.Join(victims, " "); got != tc.want {
				t.Errorf("%q go (%s), want %q", got, d.status.Message(), tc.want)
			}
		})
	}
	// A pod on its own has them go as well.
	m := gangWorld(t, allGates, nodes, append(slices.Clone(full), makePod("p", "1", "", priority(100))), victims(single),
		composite("top", "", 1, compositePriority(5), allTogether), composite("x", "top", 1), composite("y", "top", 1))
	pod, err := m.pods.Pods("default").Get("p")
	if err != nil {
		t.Fatal(err)
	}
	d := m.decide(t.Context(), question{fw: m.profiles[config.DefaultSchedulerName], state: framework.NewTrialState(), pod: pod, seed: 1})
	if got := d.outcome().Victims; len(got) != 4 {
		t.Errorf("%v go (%s), want all four", got, d.told.Message)
	}
}
