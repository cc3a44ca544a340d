package scheduler

import (
	"context"
	"errors"
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

func makeNode(name, cpu, memory string, change ...func(*v1.Node)) *v1.Node {
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}},
		Status: v1.NodeStatus{Allocatable: v1.ResourceList{
			v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory), v1.ResourcePods: resource.MustParse("110"),
		}},
	}
	for _, f := range change {
		f(n)
	}
	return n
}

func makePod(name, cpu, memory string, change ...func(*v1.Pod)) *v1.Pod {
	requests := v1.ResourceList{}
	if cpu != "" {
		requests[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		requests[v1.ResourceMemory] = resource.MustParse(memory)
	}
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec: v1.PodSpec{
			SchedulerName: config.DefaultSchedulerName,
			Containers:    []v1.Container{{Name: "c", Image: "busybox", Resources: v1.ResourceRequirements{Requests: requests}}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func on(node string) func(*v1.Pod) { return func(p *v1.Pod) { p.Spec.NodeName = node } }

// try runs one cycle of the default profile and says where the pod goes, or why nowhere.
func try(t *testing.T, pod *v1.Pod, nodes []*v1.Node, pods ...*v1.Pod) string {
	t.Helper()
	ctx := context.Background()
	snapshot := cache.NewSnapshotOf(nodes, pods)
	var q *queue.Queue
	fw, err := framework.New(ctx, config.Specs(config.Default(), framework.Gates{})[0], plugins.Registry(), framework.Deps{
		Snapshot: snapshot, Nominator: func() *queue.Queue { return q }, Waiting: framework.NewWaitingPods(), Parallelism: 4,
		Informers: informers.NewSharedInformerFactory(nil, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	q = queue.New(queue.Config{Less: fw.Less})
	c := &cycle{fw: fw, snapshot: snapshot}
	p, err := c.run(ctx, framework.NewCycleState(false), pod, seedOf(pod, 1))
	var fit *framework.FitError
	switch {
	case errors.As(err, &fit):
		return fit.Error()
	case err != nil:
		t.Fatal(err)
	}
	return p.node
}

func TestCycle(t *testing.T) {
	small, big := makeNode("small", "2", "4Gi"), makeNode("big", "8", "16Gi")
	cordoned := makeNode("cordoned", "8", "16Gi", func(n *v1.Node) { n.Spec.Unschedulable = true })
	tainted := makeNode("tainted", "8", "16Gi", func(n *v1.Node) {
		n.Spec.Taints = []v1.Taint{{Key: "gpu", Effect: v1.TaintEffectNoSchedule}}
	})
	disliked := makeNode("disliked", "80", "160Gi", func(n *v1.Node) {
		n.Spec.Taints = []v1.Taint{{Key: "old", Effect: v1.TaintEffectPreferNoSchedule}}
	})
	ssd := makeNode("ssd", "2", "4Gi", func(n *v1.Node) { n.Labels["disk"] = "ssd" })
	port := func(p *v1.Pod) { p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80, ContainerPort: 80}} }
	full := makeNode("full", "8", "16Gi", func(n *v1.Node) { n.Status.Allocatable[v1.ResourcePods] = resource.MustParse("1") })
	named := func(names ...string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{
				NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchFields: []v1.NodeSelectorRequirement{{Key: "metadata.name", Operator: v1.NodeSelectorOpIn, Values: names}}}},
			}}}
		}
	}

	for _, tc := range []struct {
		name  string
		pod   *v1.Pod
		nodes []*v1.Node
		pods  []*v1.Pod
		want  string
	}{
		{"no nodes", makePod("p", "1", ""), nil, nil, "no nodes available to schedule pods"},
		{"the emptier node", makePod("p", "1", "1Gi"), []*v1.Node{small, big}, nil, "big"},
		{"away from a busy node", makePod("p", "1", "1Gi"), []*v1.Node{small, big}, []*v1.Pod{makePod("q", "7", "14Gi", on("big"))}, "small"},
		{"what containers without requests are taken to need counts", makePod("p", "", ""), []*v1.Node{makeNode("a", "1", "1Gi"), makeNode("b", "1", "1Gi")},
			[]*v1.Pod{makePod("q", "", "", on("a"))}, "b"},
		{"too little of everything", makePod("p", "10", "20Gi"), []*v1.Node{small, big}, nil,
			"0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory."},
		{"different reasons", makePod("p", "4", "1Gi"), []*v1.Node{small, cordoned, tainted}, nil,
			"0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."},
		{"tolerated", makePod("p", "4", "1Gi", func(p *v1.Pod) { p.Spec.Tolerations = []v1.Toleration{{Operator: v1.TolerationOpExists}} }),
			[]*v1.Node{tainted}, nil, "tainted"},
		{"soft taints are avoided", makePod("p", "1", "1Gi"), []*v1.Node{disliked, small}, nil, "small"},
		{"no more pods", makePod("p", "1", "1Gi"), []*v1.Node{full}, []*v1.Pod{makePod("q", "1", "", on("full"))}, "0/1 nodes are available: 1 Too many pods."},
		{"node selector", makePod("p", "1", "1Gi", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), []*v1.Node{big, ssd}, nil, "ssd"},
		{"node selector that nothing matches", makePod("p", "1", "1Gi", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "tape"} }), []*v1.Node{big, ssd}, nil,
			"0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."},
		{"node by name", makePod("p", "1", "1Gi", named("small")), []*v1.Node{big, small}, nil, "small"},
		{"node by a name that is not there", makePod("p", "1", "1Gi", named("gone")), []*v1.Node{big, small}, nil,
			"0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."},
		{"bound meanwhile to a node that is full", makePod("p", "4", "1Gi", on("small")), []*v1.Node{big, small}, nil,
			"0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeName]."},
		{"bound meanwhile to a node that is not there", makePod("p", "4", "1Gi", on("gone")), []*v1.Node{big}, nil,
			"0/1 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeName]."},
		{"bound meanwhile to a node that it must not be on", makePod("p", "1", "1Gi", on("small"), named("big")), []*v1.Node{big, small}, nil,
			"0/2 nodes are available: node(s) didn't satisfy plugin(s) [NodeAffinity NodeName] simultaneously."},
		{"host port in use", makePod("p", "1", "1Gi", port), []*v1.Node{small, big}, []*v1.Pod{makePod("q", "1", "", port, on("big"))}, "small"},
		{"host port in use everywhere", makePod("p", "1", "1Gi", port), []*v1.Node{big}, []*v1.Pod{makePod("q", "1", "", port, on("big"))},
			"0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
	} {
		if got := try(t, tc.pod, tc.nodes, tc.pods...); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// Objects that no API server would let pass, or that are larger than anybody's, are answered.
func TestObjectsThatLie(t *testing.T) {
	nowhere := makeNode("nowhere", "8", "16Gi", func(n *v1.Node) { n.Labels = nil })
	negative := makeNode("negative", "-8", "16Gi")
	full := makeNode("full", "1", "1Gi")
	var tainted []*v1.Node
	for i := range 200 {
		tainted = append(tainted, makeNode(fmt.Sprint("tainted-", i), "8", "16Gi", func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: "key-9999", Effect: v1.TaintEffectNoSchedule}, {Key: "soft", Effect: v1.TaintEffectPreferNoSchedule}}
		}))
	}
	tolerant := func(first, last int) func(*v1.Pod) {
		return func(p *v1.Pod) {
			for i := first; i < last; i++ {
				p.Spec.Tolerations = append(p.Spec.Tolerations, v1.Toleration{Key: fmt.Sprint("key-", i), Operator: v1.TolerationOpExists})
			}
		}
	}
	for _, tc := range []struct {
		name  string
		pod   *v1.Pod
		nodes []*v1.Node
		pods  []*v1.Pod
		want  string
	}{
		{"a pod on a node that asks for less than nothing makes no room", makePod("p", "1", ""), []*v1.Node{full},
			[]*v1.Pod{makePod("q", "1", "", on("full")), makePod("r", "-5", "-5Gi", on("full"))}, "0/1 nodes are available: 1 Insufficient cpu."},
		{"a pod that asks for less than nothing", makePod("p", "-1", ""), []*v1.Node{full}, nil, "full"},
		{"a node with less than nothing", makePod("p", "1", ""), []*v1.Node{negative}, nil, "0/1 nodes are available: 1 Insufficient cpu."},
		{"spread without a zone", makePod("p", "1", "", spread(zoneKey, 1, v1.DoNotSchedule)), []*v1.Node{nowhere}, nil,
			"0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label)."},
		{"affinity without a zone", makePod("p", "1", "", app("web"), near(term(zoneKey, "web"))), []*v1.Node{nowhere}, nil,
			"0/1 nodes are available: 1 node(s) didn't match pod affinity rules."},
		{"10,000 tolerations, the last of which counts", makePod("p", "1", "", tolerant(0, 10000)), tainted[:1], nil, "tainted-0"},
		{"10,000 tolerations, none of which counts", makePod("p", "1", "", tolerant(10000, 20000)), tainted, nil,
			"0/200 nodes are available: 200 node(s) had untolerated taint(s)."},
	} {
		if got := try(t, tc.pod, tc.nodes, tc.pods...); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// The same snapshot, pod and seed give the same node, whatever the processors do.
func TestCycleIsDeterministic(t *testing.T) {
	var nodes []*v1.Node
	for i := range 1000 {
		nodes = append(nodes, makeNode(fmt.Sprintf("n%03d", i), "4", "8Gi"))
	}
	first := try(t, makePod("p", "1", "1Gi"), nodes)
	for range 5 {
		if again := try(t, makePod("p", "1", "1Gi"), nodes); again != first {
			t.Fatalf("%s, then %s", first, again)
		}
	}
	others := map[string]bool{}
	for i := range 20 {
		others[try(t, makePod(fmt.Sprint("p", i), "1", "1Gi"), nodes)] = true
	}
	if len(others) < 10 {
		t.Errorf("20 pods went to %d of 1000 equal nodes", len(others))
	}
}

func TestFeasibleNodesToFind(t *testing.T) {
	for _, tc := range []struct {
		percentage int32
		nodes      int
		want       int
	}{{0, 10, 10}, {0, 100, 100}, {0, 1000, 420}, {0, 5000, 500}, {0, 20000, 1000}, {30, 1000, 300}, {1, 1000, 100}, {100, 1000, 1000}} {
		if got := feasibleNodesToFind(tc.percentage, tc.nodes); got != tc.want {
			t.Errorf("%d %% of %d nodes: %d, want %d", tc.percentage, tc.nodes, got, tc.want)
		}
	}
}

// Among the nodes with the highest score the seed chooses, however low that is: an
// extender's opinion can be negative.
func TestBest(t *testing.T) {
	scores := func(totals ...int64) (out []fwk.NodePluginScores) {
		for i, total := range totals {
			out = append(out, fwk.NodePluginScores{Name: fmt.Sprint("n", i), TotalScore: total})
		}
		return out
	}
	for _, tc := range []struct {
		scores []fwk.NodePluginScores
		seed   uint64
		want   string
	}{
		{scores(1, 3, 2), 7, "n1"},
		{scores(3, 1, 3, 3), 0, "n0"},
		{scores(3, 1, 3, 3), 4, "n2"},
		{scores(3, 1, 3, 3), 5, "n3"},
		{scores(-30, -20), 1, "n1"},
	} {
		if got := best(tc.scores, tc.seed); got != tc.want {
			t.Errorf("%v, seed %d: %s, want %s", tc.scores, tc.seed, got, tc.want)
		}
	}
}
