package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

var allGates = framework.Gates{GenericWorkload: true, TopologyAwareWorkloadScheduling: true, PodGroupPreemptionPolicy: true, CompositePodGroup: true}

func makeGroup(name string, minCount int32, change ...func(*schedulingv1beta1.PodGroup)) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
	if minCount > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: minCount}
	}
	for _, f := range change {
		f(g)
	}
	return g
}

func groupPriority(p int32) func(*schedulingv1beta1.PodGroup) {
	return func(g *schedulingv1beta1.PodGroup) { g.Spec.Priority = &p }
}

func together(g *schedulingv1beta1.PodGroup) {
	g.Spec.DisruptionMode = &schedulingv1beta1.DisruptionMode{All: &schedulingv1beta1.AllDisruptionMode{}}
}

func inOne(key string) func(*schedulingv1beta1.PodGroup) {
	return func(g *schedulingv1beta1.PodGroup) {
		g.Spec.SchedulingConstraints = &schedulingv1beta1.PodGroupSchedulingConstraints{Topology: []schedulingv1beta1.TopologyConstraint{{Key: key}}}
	}
}

func of(group string) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: &group} }
}

func inRack(rack string) func(*v1.Node) { return func(n *v1.Node) { n.Labels["rack"] = rack } }

// gangWorld is what decisions about groups are made from.
func gangWorld(t *testing.T, gates framework.Gates, nodes []*v1.Node, pods []*v1.Pod, groups []*schedulingv1beta1.PodGroup, others ...runtime.Object) *mind {
	t.Helper()
	client := fake.NewClientset()
	known := informers.NewSharedInformerFactory(client, 0)
	m, err := newMind(t.Context(), config.Default(), plugins.Registry(), framework.Deps{Client: client, Informers: known, Gates: gates},
		func(string) events.EventRecorderLogger { return events.NewFakeRecorder(100) })
	if err != nil {
		t.Fatal(err)
	}
	m.queue = queue.New(queue.Config{Less: m.less()})
	for _, g := range groups {
		if err := known.Scheduling().V1beta1().PodGroups().Informer().GetStore().Add(g); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range others {
		if err := known.InformerFor(o, nil).GetStore().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		m.cache.SetNode(n)
	}
	for _, p := range pods {
		if err := known.Core().V1().Pods().Informer().GetStore().Add(p); err != nil {
			t.Fatal(err)
		}
		m.podChanged(t.Context(), nil, p)
	}
	return m
}

// state says which pods are on which nodes of the snapshot.
func (m *mind) state() string {
	var out []string
	nodes, _ := m.snapshot.List()
	for _, n := range nodes {
		for _, p := range n.GetPods() {
			out = append(out, n.Node().Name+"/"+p.GetPod().Name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// decideOn decides about the pods of a group, or below a group of groups, that have no node,
// and makes sure that nothing changes by that.
func decideOn(t *testing.T, m *mind, name string) groupDecision {
	t.Helper()
	root := fwk.PodGroupKey("default", name)
	if _, err := m.groups.CompositePodGroups().Get("default", name); err == nil {
		root = fwk.CompositePodGroupKey("default", name)
	}
	states, err := podgroup.States(m.groups, root)
	if err != nil {
		t.Fatal(err)
	}
	var pods []*v1.Pod
	for _, s := range states {
		pods = slices.AppendSeq(pods, maps.Values(s.UnscheduledPods()))
	}
	slices.SortFunc(pods, func(a, b *v1.Pod) int { return strings.Compare(a.Name, b.Name) })
	info, err := m.groups.Tree(root, pods)
	if err != nil {
		t.Fatal(err)
	}
	q := groupQuestion{fw: m.profiles[config.DefaultSchedulerName], trial: true, group: info, attempts: make([]int, len(info.Pods)), seed: 1}
	m.cache.UpdateSnapshot(m.snapshot)
	before := m.state()
	d := m.decideGroup(t.Context(), q)
	if after := m.state(); after != before || m.snapshot.Mark() != 0 {
		t.Errorf("the decision leaves %q on the snapshot, which had %q", after, before)
	}
	again := m.decideGroup(t.Context(), q)
	if same, err := equal(again.outcome(), d.outcome()); !same || err != nil {
		t.Errorf("decided again it is %v, not %v (%v)", again.outcome(), d.outcome(), err)
	}
	return d
}

func TestDecideGroup(t *testing.T) {
	a, b := makeNode("a", "2", "8Gi"), makeNode("b", "2", "8Gi")
	racks := []*v1.Node{
		makeNode("a1", "2", "8Gi", inRack("a")), makeNode("b1", "2", "8Gi", inRack("b")), makeNode("b2", "2", "8Gi", inRack("b")), makeNode("none", "8", "32Gi"),
	}
	scattered := func(p *v1.Pod) {
		labelled("app", "x")(p)
		p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{{
			TopologyKey: v1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}},
		}}}}
	}
	other := func(p *v1.Pod) { p.Spec.SchedulerName = "other" }
	const nowhere = "pod group is unschedulable, 0/1 placements are available, first placement status: "
	for _, tc := range []struct {
		name    string
		nodes   []*v1.Node
		pods    []*v1.Pod
		group   *schedulingv1beta1.PodGroup
		want    string // how many pods get nodes on which
		message string
	}{
		{"all fit", []*v1.Node{a, b}, []*v1.Pod{makePod("p", "1", "", of("g")), makePod("q", "2", "", of("g"))}, makeGroup("g", 2), "a b", ""},
		{"too few fit", []*v1.Node{a}, []*v1.Pod{makePod("p", "1", "", of("g")), makePod("q", "2", "", of("g"))}, makeGroup("g", 2), "", nowhere + "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining"},
		{"enough fit", []*v1.Node{a}, []*v1.Pod{makePod("p", "1", "", of("g")), makePod("q", "2", "", of("g"))}, makeGroup("g", 1), "a", ""},
		{"enough with those that run", []*v1.Node{a}, []*v1.Pod{makePod("p", "1", "", of("g")), makePod("q", "2", "", of("g")), makePod("r", "1", "", of("g"), on("a"))}, makeGroup("g", 2), "a", ""},
		{"enough run, and no other fits", []*v1.Node{a}, []*v1.Pod{makePod("p", "2", "", of("g")), makePod("r", "1", "", of("g"), on("a"))}, makeGroup("g", 1), "",
			nowhere + "pod group is unschedulable"},
		{"a basic group takes what there is", []*v1.Node{a}, []*v1.Pod{makePod("p", "2", "", of("g")), makePod("q", "2", "", of("g"))}, makeGroup("g", 0), "a", ""},
		{"pods see each other", []*v1.Node{a, b}, []*v1.Pod{makePod("p", "", "", of("g"), scattered), makePod("q", "", "", of("g"), scattered)}, makeGroup("g", 2), "a b", ""},
		{"and can be in each other's way", []*v1.Node{a}, []*v1.Pod{makePod("p", "", "", of("g"), scattered), makePod("q", "", "", of("g"), scattered)}, makeGroup("g", 2), "",
			nowhere + "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining"},
		{"different schedulers", []*v1.Node{a}, []*v1.Pod{makePod("p", "", "", of("g")), makePod("q", "", "", of("g"), other)}, makeGroup("g", 2), "",
			`all pods in a single pod group should have the same .spec.schedulerName set, got: "other" and "default-scheduler"`},
		{"another priority than the group's", []*v1.Node{a}, []*v1.Pod{makePod("p", "", "", of("g"))}, makeGroup("g", 1, groupPriority(3)), "",
			"all pods in a single pod group should have the same priority as the pod group's priority, got 0 and 3"},
		{"a rack with room for all", racks, []*v1.Pod{makePod("p", "1500m", "", of("g")), makePod("q", "1500m", "", of("g"))}, makeGroup("g", 2, inOne("rack")), "b1 b2", ""},
		{"the rack that is left fullest", racks, []*v1.Pod{makePod("p", "1", "1Gi", of("g")), makePod("q", "1", "1Gi", of("g"))}, makeGroup("g", 2, inOne("rack")), "a1", ""},
		{"the rack that takes most", racks, []*v1.Pod{makePod("p", "1500m", "", of("g")), makePod("q", "1500m", "", of("g"))}, makeGroup("g", 1, inOne("rack")), "b1 b2", ""},
		{"the rack of those that run", racks, []*v1.Pod{makePod("p", "1", "", of("g")), makePod("r", "1", "", of("g"), on("b2"))}, makeGroup("g", 1, inOne("rack")), "b1", ""},
		{"no rack with room for all", racks, []*v1.Pod{makePod("p", "2", "", of("g")), makePod("q", "2", "", of("g")), makePod("r", "2", "", of("g"))}, makeGroup("g", 3, inOne("rack")), "",
			"pod group is unschedulable, 0/2 placements are available, first placement status: minCount (3) cannot be satisfied: 1 scheduled, 1 remaining"},
		{"no rack", []*v1.Node{a}, []*v1.Pod{makePod("p", "", "", of("g"))}, makeGroup("g", 1, inOne("rack")), "", "no feasible placements found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := gangWorld(t, allGates, tc.nodes, tc.pods, []*schedulingv1beta1.PodGroup{tc.group})
			d := decideOn(t, m, "g")
			var nodes []string
			for _, p := range d.members {
				if p.err == nil {
					nodes = append(nodes, p.node)
				}
			}
			slices.Sort(nodes)
			message := strings.Split(d.status.Message(), ", pod group preemption")[0]
			if got := strings.Join(slices.Compact(nodes), " "); got != tc.want || message != tc.message {
				t.Errorf("on %q (%s), want %q (%s)", got, message, tc.want, tc.message)
			}
			if d.status.IsRejected() {
				for i, p := range d.members {
					if p.fit == nil || p.fit.Diagnosis.UnschedulablePlugins.Len() == 0 {
						t.Errorf("nobody has rejected pod %d: %v", i, p.err)
					}
				}
			}
		})
	}
}

func TestPreemptionForGroups(t *testing.T) {
	nodes := []*v1.Node{makeNode("a", "2", "8Gi"), makeNode("b", "2", "8Gi")}
	low := func(name, node string, p int32, change ...func(*v1.Pod)) *v1.Pod {
		return makePod(name, "1", "", append([]func(*v1.Pod){on(node), priority(p)}, change...)...)
	}
	gang := func(n int) (pods []*v1.Pod) {
		for i := range n {
			pods = append(pods, makePod(fmt.Sprint("p", i), "1", "", of("g"), priority(100)))
		}
		return pods
	}
	full := func(change ...func(*v1.Pod)) []*v1.Pod {
		return []*v1.Pod{low("x1", "a", 10, change...), low("x2", "a", 10, change...), low("y1", "b", 5, change...), low("y2", "b", 5, change...)}
	}
	keep := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "keep"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "keep"}}},
	}
	never := schedulingv1beta1.PreemptNever
	for _, tc := range []struct {
		name    string
		pods    []*v1.Pod
		groups  []*schedulingv1beta1.PodGroup
		victims string
		message string
	}{
		{"the least important go, wherever they are", slices.Concat(full(), gang(2)), []*schedulingv1beta1.PodGroup{makeGroup("g", 2, groupPriority(100))}, "y1 y2", "found a placement for podgroup, preempting 2 victims"},
		{"no more go than must", slices.Concat(full(), gang(1)), []*schedulingv1beta1.PodGroup{makeGroup("g", 1, groupPriority(100))}, "y2", "preempting 1 victims"},
		{"as many pods as can be are made room for", slices.Concat(full(), gang(4)), []*schedulingv1beta1.PodGroup{makeGroup("g", 1, groupPriority(100))}, "x1 x2 y1 y2", "preempting 4 victims"},
		{"none go for a gang that does not fit", slices.Concat(full(), gang(5)), []*schedulingv1beta1.PodGroup{makeGroup("g", 5, groupPriority(100))}, "", "pod group preemption: pod group is unschedulable, 0/1 placements are available, first placement status: minCount (5) cannot be satisfied: 4 scheduled, 0 remaining"},
		{"equals do not go", slices.Concat([]*v1.Pod{low("x1", "a", 100), low("x2", "a", 100), low("y1", "b", 100), low("y2", "b", 100)}, gang(1)),
			[]*schedulingv1beta1.PodGroup{makeGroup("g", 1, groupPriority(100))}, "", "No preemption victims found for incoming preemptor"},
		{"pods of a budget are spared, though less important", slices.Concat([]*v1.Pod{low("x1", "a", 10), low("x2", "a", 10), low("y1", "b", 5, labelled("app", "keep")), low("y2", "b", 5, labelled("app", "keep"))}, gang(1)),
			[]*schedulingv1beta1.PodGroup{makeGroup("g", 1, groupPriority(100))}, "x2", "preempting 1 victims"},
		{"a group goes as a whole", slices.Concat([]*v1.Pod{low("x1", "a", 10), low("x2", "a", 5, of("v")), low("y1", "b", 10), low("y2", "b", 5, of("v"))}, gang(1)),
			[]*schedulingv1beta1.PodGroup{makeGroup("g", 1, groupPriority(100)), makeGroup("v", 1, groupPriority(5), together)}, "x2 y2", "preempting 2 victims"},
		{"a pod of its own goes before a group", slices.Concat([]*v1.Pod{low("x1", "a", 5), low("x2", "a", 5, of("v")), low("y1", "b", 10), low("y2", "b", 5, of("v"))}, gang(1)),
			[]*schedulingv1beta1.PodGroup{makeGroup("g", 1, groupPriority(100)), makeGroup("v", 1, groupPriority(5), together)}, "x1", "preempting 1 victims"},
		{"the priority of a group counts, not that of its pods", slices.Concat([]*v1.Pod{low("x1", "a", 200, of("v")), low("x2", "a", 200), low("y1", "b", 200), low("y2", "b", 200)}, gang(1)),
			[]*schedulingv1beta1.PodGroup{makeGroup("g", 1, groupPriority(100)), makeGroup("v", 1, groupPriority(5))}, "x1", "preempting 1 victims"},
		{"a group that must not preempt", slices.Concat(full(), []*v1.Pod{makePod("p", "1", "", of("g"), priority(100), func(p *v1.Pod) { p.Spec.PreemptionPolicy = new(v1.PreemptNever) })}),
			[]*schedulingv1beta1.PodGroup{makeGroup("g", 1, groupPriority(100), func(g *schedulingv1beta1.PodGroup) { g.Spec.PreemptionPolicy = &never })}, "", "not eligible due to preemptionPolicy=Never."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := decideOn(t, gangWorld(t, allGates, nodes, tc.pods, tc.groups, keep), "g")
			var victims []string
			promised := 0
			if p := d.told.Preemption; p != nil {
				for _, c := range p.Candidates {
					for _, v := range c.Victims {
						victims = append(victims, strings.TrimPrefix(v, "default/"))
					}
				}
			}
			for _, m := range d.members {
				if m.nominated != nil && m.nominated.NominatedNodeName != "" {
					promised++
				}
			}
			slices.Sort(victims)
			if got := strings.Join(victims, " "); got != tc.victims || !strings.Contains(d.status.Message(), "pod group preemption: ") || !strings.Contains(d.status.Message(), tc.message) {
				t.Errorf("%q go (%s), want %q (%s)", got, d.status.Message(), tc.victims, tc.message)
			}
			if (promised > 0) != (tc.victims != "") || d.status.IsSuccess() {
				t.Errorf("%d pods are promised nodes: %v", promised, d.status)
			}
		})
	}
}

// A pod of its own preempts a group that goes as a whole.
func TestPodPreemptsGroup(t *testing.T) {
	nodes := []*v1.Node{makeNode("a", "2", "8Gi"), makeNode("b", "2", "8Gi")}
	pods := []*v1.Pod{
		makePod("x1", "1", "", on("a"), priority(5), of("v")), makePod("x2", "1", "", on("a"), priority(5), of("v")),
		makePod("y1", "1", "", on("b"), priority(5), of("v")), makePod("y2", "1", "", on("b"), priority(500)),
		makePod("p", "1", "", priority(100)),
	}
	m := gangWorld(t, allGates, nodes, pods, []*schedulingv1beta1.PodGroup{makeGroup("v", 1, groupPriority(5), together)})
	d := m.decide(t.Context(), question{fw: m.profiles[config.DefaultSchedulerName], state: framework.NewTrialState(), pod: pods[4], seed: 1})
	victims := d.outcome().Victims
	slices.Sort(victims)
	if want := []string{"default/x1", "default/x2", "default/y1"}; !slices.Equal(victims, want) {
		t.Errorf("%v go (%s), want %v", victims, d.told.Message, want)
	}
}
