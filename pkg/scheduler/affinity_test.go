package scheduler

import (
	"errors"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

const zoneKey = v1.LabelTopologyZone

func zone(name string) func(*v1.Node) { return func(n *v1.Node) { n.Labels[zoneKey] = name } }

func term(key, app string, change ...func(*v1.PodAffinityTerm)) v1.PodAffinityTerm {
	t := v1.PodAffinityTerm{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
	for _, f := range change {
		f(&t)
	}
	return t
}

func affinity(p *v1.Pod) *v1.Affinity {
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{}, PodAntiAffinity: &v1.PodAntiAffinity{}}
	}
	return p.Spec.Affinity
}

func near(terms ...v1.PodAffinityTerm) func(*v1.Pod) {
	return func(p *v1.Pod) { affinity(p).PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = terms }
}

func apart(terms ...v1.PodAffinityTerm) func(*v1.Pod) {
	return func(p *v1.Pod) { affinity(p).PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = terms }
}

func rather(near bool, weight int32, t v1.PodAffinityTerm) func(*v1.Pod) {
	return func(p *v1.Pod) {
		w := []v1.WeightedPodAffinityTerm{{Weight: weight, PodAffinityTerm: t}}
		if near {
			affinity(p).PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = w
		} else {
			affinity(p).PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = w
		}
	}
}

func app(name string) func(*v1.Pod) { return labelled("app", name) }

// where runs a cycle for pod: the node, or why there is none.
func (w *world) where(t *testing.T, pod *v1.Pod) string {
	t.Helper()
	p, err := (&cycle{fw: w.fw, snapshot: w.snapshot}).run(t.Context(), framework.NewCycleState(false), pod, 0)
	var fit *framework.FitError
	switch {
	case errors.As(err, &fit):
		return fit.Error()
	case err != nil:
		t.Fatal(err)
	}
	return p.node
}

type placementCase struct {
	name  string
	pod   *v1.Pod
	nodes []*v1.Node
	pods  []*v1.Pod
	other []runtime.Object
	want  string
}

func (tc *placementCase) check(t *testing.T) {
	t.Run(tc.name, func(t *testing.T) {
		if got := newWorld(t, tc.nodes, tc.pods, tc.other...).where(t, tc.pod); got != tc.want {
			t.Errorf("%s, want %s", got, tc.want)
		}
	})
}

func TestPodAffinity(t *testing.T) {
	a1, a2, b1 := makeNode("a1", "4", "8Gi", zone("a")), makeNode("a2", "4", "8Gi", zone("a")), makeNode("b1", "8", "16Gi", zone("b"))
	bare := makeNode("bare", "8", "16Gi")
	nodes := []*v1.Node{a1, b1}
	none := "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."
	elsewhere := func(p *v1.Pod) { p.Namespace = "other" }
	teamNS := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other", Labels: map[string]string{"team": "x"}}}
	ofTeam := func(t *v1.PodAffinityTerm) {
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
	}
	for _, tc := range []placementCase{
		{"near a friend", makePod("p", "1", "1Gi", near(term(zoneKey, "db"))), nodes, []*v1.Pod{makePod("db", "3", "7Gi", on("a1"), app("db"))}, nil, "a1"},
		{"in the friend's zone", makePod("p", "2", "1Gi", near(term(zoneKey, "db"))), []*v1.Node{a1, a2, b1}, []*v1.Pod{makePod("db", "3", "1Gi", on("a1"), app("db"))}, nil, "a2"},
		{"no friend", makePod("p", "1", "1Gi", near(term(zoneKey, "db"))), nodes, nil, nil, none},
		{"a friend of another namespace is none", makePod("p", "1", "1Gi", near(term(zoneKey, "db"))), nodes, []*v1.Pod{makePod("db", "1", "", on("a1"), app("db"), elsewhere)}, nil, none},
		{"unless its namespace is selected", makePod("p", "1", "1Gi", near(term(zoneKey, "db", ofTeam))), nodes,
			[]*v1.Pod{makePod("db", "1", "", on("a1"), app("db"), elsewhere)}, []runtime.Object{teamNS}, "a1"},
		{"or all namespaces are", makePod("p", "1", "1Gi", near(term(zoneKey, "db", func(t *v1.PodAffinityTerm) { t.NamespaceSelector = &metav1.LabelSelector{} }))), nodes,
			[]*v1.Pod{makePod("db", "1", "", on("a1"), app("db"), elsewhere)}, nil, "a1"},
		{"the first of a group", makePod("p", "1", "1Gi", app("db"), near(term(zoneKey, "db"))), nodes, nil, nil, "b1"},
		{"not on a node without the label", makePod("p", "1", "1Gi", app("db"), near(term(zoneKey, "db"))), []*v1.Node{a1, bare}, nil, nil, "a1"},
		{"one pod must be a friend by all terms", makePod("p", "1", "1Gi", near(term(zoneKey, "db"), term(v1.LabelHostname, "web"))), nodes,
			[]*v1.Pod{makePod("db", "1", "", on("a1"), app("db")), makePod("web", "1", "", on("a1"), app("web"))}, nil, none},
		{"away from a foe", makePod("p", "1", "1Gi", apart(term(zoneKey, "db"))), nodes, []*v1.Pod{makePod("db", "1", "", on("b1"), app("db"))}, nil, "a1"},
		{"foes everywhere", makePod("p", "1", "1Gi", apart(term(v1.LabelHostname, "db"))), nodes,
			[]*v1.Pod{makePod("x", "1", "", on("a1"), app("db")), makePod("y", "1", "", on("b1"), app("db"))}, nil,
			"0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."},
		{"not wanted by one who is there", makePod("p", "1", "1Gi", app("web")), nodes, []*v1.Pod{makePod("db", "1", "", on("b1"), apart(term(zoneKey, "web")))}, nil, "a1"},
		{"not wanted anywhere", makePod("p", "1", "1Gi", app("web")), []*v1.Node{a1, a2}, []*v1.Pod{makePod("db", "1", "", on("a1"), apart(term(zoneKey, "web")))}, nil,
			"0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."},
		{"a foe's namespace is selected by its labels", makePod("p", "1", "1Gi", app("web"), elsewhere), nodes,
			[]*v1.Pod{makePod("db", "1", "", on("b1"), apart(term(zoneKey, "web", ofTeam)))}, []runtime.Object{teamNS}, "a1"},
		{"a node without the label is no domain of foes", makePod("p", "1", "1Gi", apart(term(zoneKey, "db"))), []*v1.Node{a1, bare},
			[]*v1.Pod{makePod("x", "1", "", on("a1"), app("db")), makePod("y", "1", "", on("bare"), app("db"))}, nil, "bare"},
		{"rather near", makePod("p", "1", "1Gi", rather(true, 100, term(zoneKey, "db"))), nodes, []*v1.Pod{makePod("db", "1", "", on("a1"), app("db"))}, nil, "a1"},
		{"rather apart", makePod("p", "1", "1Gi", rather(false, 100, term(zoneKey, "db"))), nodes, []*v1.Pod{makePod("db", "1", "", on("b1"), app("db"))}, nil, "a1"},
		{"one who is there wants it near", makePod("p", "1", "1Gi", app("web")), nodes, []*v1.Pod{makePod("db", "1", "", on("a1"), rather(true, 100, term(zoneKey, "web")))}, nil, "a1"},
		{"one who is there needs it near", makePod("p", "1", "1Gi", app("web")), nodes,
			[]*v1.Pod{makePod("db", "1", "", on("a1"), near(term(zoneKey, "web")))}, nil, "a1"},
		{"one who is there would rather not", makePod("p", "1", "1Gi", app("web")), nodes, []*v1.Pod{makePod("db", "1", "", on("b1"), rather(false, 100, term(zoneKey, "web")))}, nil, "a1"},
	} {
		tc.check(t)
	}
}

func spread(key string, skew int32, action v1.UnsatisfiableConstraintAction, change ...func(*v1.TopologySpreadConstraint)) func(*v1.Pod) {
	return func(p *v1.Pod) {
		c := v1.TopologySpreadConstraint{TopologyKey: key, MaxSkew: skew, WhenUnsatisfiable: action, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}
		for _, f := range change {
			f(&c)
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
}

func TestPodTopologySpread(t *testing.T) {
	a1, a2 := makeNode("a1", "40", "80Gi", zone("a")), makeNode("a2", "40", "80Gi", zone("a"))
	b1, c1 := makeNode("b1", "4", "8Gi", zone("b")), makeNode("c1", "4", "8Gi", zone("c"))
	bare := makeNode("bare", "80", "160Gi")
	tainted := makeNode("t1", "4", "8Gi", zone("t"), func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "x", Effect: v1.TaintEffectNoSchedule}} })
	web := func(name, node string) *v1.Pod { return makePod(name, "100m", "", on(node), app("web")) }
	hard := func(change ...func(*v1.TopologySpreadConstraint)) func(*v1.Pod) {
		return spread(zoneKey, 1, v1.DoNotSchedule, change...)
	}
	one, three := int32(1), int32(3)
	honor, ignore := v1.NodeInclusionPolicyHonor, v1.NodeInclusionPolicyIgnore
	toA := func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{zoneKey: "a"} }
	owned := func(p *v1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", Controller: new(bool)}}
		*p.OwnerReferences[0].Controller = true
	}
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}
	skewed := "node(s) didn't match pod topology spread constraints"
	for _, tc := range []placementCase{
		{"to the emptier zone", makePod("p", "1", "", app("web"), hard()), []*v1.Node{a1, b1}, []*v1.Pod{web("x", "a1")}, nil, "b1"},
		{"within the skew the roomier node wins", makePod("p", "1", "", app("web"), spread(zoneKey, 2, v1.DoNotSchedule)), []*v1.Node{a1, b1}, []*v1.Pod{web("x", "a1")}, nil, "a1"},
		{"the emptier zone is full", makePod("p", "8", "", app("web"), hard()), []*v1.Node{a1, b1}, []*v1.Pod{web("x", "a1")}, nil,
			"0/2 nodes are available: 1 Insufficient cpu, 1 " + skewed + "."},
		{"a pod that does not count itself", makePod("p", "8", "", hard()), []*v1.Node{a1, b1}, []*v1.Pod{web("x", "a1")}, nil, "a1"},
		{"a node without the label", makePod("p", "1", "", app("web"), hard()), []*v1.Node{bare}, nil, nil,
			"0/1 nodes are available: 1 " + skewed + " (missing required label)."},
		{"pods being deleted do not count", makePod("p", "8", "", app("web"), hard()), []*v1.Node{a1, b1},
			[]*v1.Pod{makePod("x", "1", "", on("a1"), app("web"), func(p *v1.Pod) { p.DeletionTimestamp, p.Finalizers = &metav1.Time{}, []string{"x/y"} })}, nil, "a1"},
		{"fewer domains than there should be", makePod("p", "1", "", app("web"), hard(func(c *v1.TopologySpreadConstraint) { c.MinDomains = &three })), []*v1.Node{a1, b1},
			[]*v1.Pod{web("x", "a1"), web("y", "b1")}, nil, "0/2 nodes are available: 2 " + skewed + "."},
		{"as many domains as there should be", makePod("p", "1", "", app("web"), hard(func(c *v1.TopologySpreadConstraint) { c.MinDomains = &one })), []*v1.Node{a1, b1},
			[]*v1.Pod{web("x", "a1"), web("y", "b1")}, nil, "a1"},
		{"zones that the pod may not go to do not count", makePod("p", "1", "", app("web"), toA, hard()), []*v1.Node{a1, b1}, []*v1.Pod{web("x", "a1")}, nil, "a1"},
		{"unless the policy says so", makePod("p", "1", "", app("web"), toA, hard(func(c *v1.TopologySpreadConstraint) { c.NodeAffinityPolicy = &ignore })), []*v1.Node{a1, b1},
			[]*v1.Pod{web("x", "a1")}, nil, "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 " + skewed + "."},
		{"tainted zones count", makePod("p", "1", "", app("web"), hard()), []*v1.Node{a1, tainted}, []*v1.Pod{web("x", "a1")}, nil,
			"0/2 nodes are available: 1 " + skewed + ", 1 node(s) had untolerated taint(s)."},
		{"unless the policy says not", makePod("p", "1", "", app("web"), hard(func(c *v1.TopologySpreadConstraint) { c.NodeTaintsPolicy = &honor })), []*v1.Node{a1, tainted},
			[]*v1.Pod{web("x", "a1")}, nil, "a1"},
		{"only pods of the same version count", makePod("p", "1", "", app("web"), labelled("v", "2"), hard(func(c *v1.TopologySpreadConstraint) { c.MatchLabelKeys = []string{"v"} })), []*v1.Node{a1, b1},
			[]*v1.Pod{makePod("x", "1", "", on("a1"), app("web"), labelled("v", "1")), makePod("y", "1", "", on("b1"), app("web"), labelled("v", "2"))}, nil, "a1"},
		{"two constraints", makePod("p", "1", "", app("web"), hard(), spread(v1.LabelHostname, 1, v1.DoNotSchedule)), []*v1.Node{a1, a2, b1},
			[]*v1.Pod{web("x", "a1"), web("y", "b1")}, nil, "a2"},
		{"rather spread", makePod("p", "1", "", app("web"), spread(zoneKey, 1, v1.ScheduleAnyway)), []*v1.Node{a1, b1, c1}, []*v1.Pod{web("x", "a1"), web("y", "b1")}, nil, "c1"},
		{"rather spread over hosts", makePod("p", "1", "", app("web"), spread(v1.LabelHostname, 1, v1.ScheduleAnyway)), []*v1.Node{a1, a2}, []*v1.Pod{web("x", "a1")}, nil, "a2"},
		{"pods of a ReplicaSet are spread by default", makePod("p", "1", "", app("web"), owned), []*v1.Node{a1, a2}, []*v1.Pod{web("x", "a2")}, []runtime.Object{set}, "a1"},
		{"pods of a Service too", makePod("p", "1", "", app("web")), []*v1.Node{a1, a2}, []*v1.Pod{web("x", "a1")},
			[]runtime.Object{&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Spec: v1.ServiceSpec{Selector: map[string]string{"app": "web"}}}}, "a2"},
	} {
		tc.check(t)
	}
}

// Evicting a pod can satisfy affinity rules and constraints, and putting one back can break them.
func TestPreemptionCountsPods(t *testing.T) {
	a1, b1 := makeNode("a1", "4", "8Gi", zone("a")), makeNode("b1", "4", "8Gi", zone("b"))
	for _, tc := range []struct {
		name    string
		pod     *v1.Pod
		pods    []*v1.Pod
		node    string
		victims []string
	}{
		{"a foe goes", makePod("p", "1", "1Gi", priority(9), apart(term(zoneKey, "db"))),
			[]*v1.Pod{makePod("x", "1", "1Gi", on("a1"), app("db")), makePod("keep", "1", "1Gi", on("a1")), makePod("y", "1", "1Gi", on("b1"), app("db"), priority(9))}, "a1", []string{"x"}},
		{"one that does not want it goes", makePod("p", "1", "1Gi", priority(9), app("web")),
			[]*v1.Pod{makePod("x", "1", "1Gi", on("a1"), apart(term(zoneKey, "web"))), makePod("keep", "1", "1Gi", on("a1")), makePod("y", "1", "1Gi", on("b1"), apart(term(zoneKey, "web")), priority(9))},
			"a1", []string{"x"}},
		{"the skew shrinks", makePod("p", "1", "1Gi", priority(9), app("web"), spread(zoneKey, 1, v1.DoNotSchedule)),
			[]*v1.Pod{makePod("x", "1", "1Gi", on("a1"), app("web")), makePod("keep", "1", "1Gi", on("a1")), makePod("y", "4", "1Gi", on("b1"), priority(9))}, "a1", []string{"x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, []*v1.Node{a1, b1}, append(tc.pods, tc.pod))
			node, msg := w.preempt(t, tc.pod)
			if got := w.deleted(t, len(tc.victims)); node != tc.node || len(got) != len(tc.victims) || len(got) > 0 && got[0] != tc.victims[0] {
				t.Errorf("%v go from %q (%s), want %v from %q", got, node, msg, tc.victims, tc.node)
			}
		})
	}
}
