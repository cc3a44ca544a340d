package cache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/leme-k8s/leme/pkg/scheduler/topology"
)

// A query is what plugins ask of the index.
type query struct {
	name  string
	pods  topology.Pods
	nodes topology.Nodes
	key   string
}

func queries() []query {
	selector := func(s string) labels.Selector {
		parsed, err := labels.Parse(s)
		if err != nil {
			panic(err)
		}
		return parsed
	}
	in := func(ns ...string) sets.Set[string] { return sets.New(ns...) }
	only := func(key string) topology.Nodes { return topology.Nodes{Labels: []string{key}} }
	ssd := topology.Nodes{Labels: []string{"zone"}, ID: "ssd", Test: func(n *v1.Node) bool { return n.Labels["disk"] == "ssd" }}
	untainted := topology.Nodes{Labels: []string{"zone", "host"}, ID: "untainted", Test: func(n *v1.Node) bool { return len(n.Spec.Taints) == 0 }}
	return []query{
		{"app by zone", topology.Pods{Groups: []topology.Group{{Namespaces: in("a"), Selector: selector("app=0")}}}, only("zone"), "zone"},
		{"app by host label", topology.Pods{Groups: []topology.Group{{Namespaces: in("a"), Selector: selector("app=1")}}}, only("host"), "host"},
		{"app by node", topology.Pods{Groups: []topology.Group{{Namespaces: in("a", "b"), Selector: selector("app in (1)")}}, Lasting: true}, topology.Nodes{}, topology.Host},
		{"set of apps", topology.Pods{Groups: []topology.Group{{Selector: selector("app in (0,2)")}}, Lasting: true}, only("zone"), "zone"},
		{"everything", topology.Pods{Groups: []topology.Group{{Selector: labels.Everything()}}}, only("zone"), "zone"},
		{"nothing", topology.Pods{Groups: []topology.Group{{Selector: labels.Nothing()}}}, only("zone"), "zone"},
		{"both of two groups", topology.Pods{Groups: []topology.Group{{Namespaces: in("a"), Selector: selector("app!=1")}, {Selector: selector("tier=x")}}}, only("zone"), "zone"},
		{"on some nodes", topology.Pods{Groups: []topology.Group{{Namespaces: in("b"), Selector: selector("app=2")}}, Lasting: true}, ssd, "zone"},
		{"on nodes without taints", topology.Pods{Groups: []topology.Group{{Namespaces: in("a"), Selector: selector("app")}}, Lasting: true}, untainted, "host"},
	}
}

// recount answers a query by walking all pods.
func recount(s *Snapshot, q query) (counts, domains map[string]int) {
	counts, domains = map[string]int{}, map[string]int{}
nodes:
	for _, n := range s.list {
		node := n.Node()
		for _, key := range q.nodes.Labels {
			if _, ok := node.Labels[key]; !ok {
				continue nodes
			}
		}
		if q.nodes.Test != nil && !q.nodes.Test(node) {
			continue
		}
		domain := node.Labels[q.key]
		if q.key == topology.Host {
			domain = node.Name
		}
		domains[domain]++
		for _, p := range n.GetPods() {
			if q.pods.Match(p.GetPod()) {
				counts[domain]++
			}
		}
	}
	return counts, domains
}

func lowest(counts, domains map[string]int) int {
	if len(domains) == 0 {
		return 0
	}
	n := math.MaxInt
	for d := range domains {
		n = min(n, counts[d])
	}
	return n
}

// Whatever happens to pods and nodes, in whatever order, what the index of a snapshot
// says is what a walk over the snapshot finds.
func TestTopologyIsWhatARecountFinds(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		c, s := New(), NewSnapshot()
		pick := func(of ...string) string { return of[r.IntN(len(of))] }
		makeNode := func(name string) *v1.Node {
			n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"host": name, "disk": pick("ssd", "hdd")}}}
			if r.IntN(5) > 0 {
				n.Labels["zone"] = pick("x", "y", "z")
			}
			if r.IntN(4) == 0 {
				n.Spec.Taints = []v1.Taint{{Key: "t", Effect: v1.TaintEffectNoSchedule}}
			}
			return n
		}
		makePod := func(i int) *v1.Pod {
			p := &v1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: pick("a", "b"), Name: fmt.Sprint(i), UID: types.UID(fmt.Sprint(i)), Labels: map[string]string{"app": pick("0", "1", "2")}},
				Spec:       v1.PodSpec{NodeName: fmt.Sprint("n", r.IntN(8))},
			}
			if r.IntN(2) == 0 {
				p.Labels["tier"] = "x"
			}
			if r.IntN(6) == 0 {
				p.DeletionTimestamp = &metav1.Time{}
			}
			term := v1.PodAffinityTerm{TopologyKey: pick("zone", "host"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick("0", "1")}}}
			if r.IntN(4) == 0 {
				term.LabelSelector = &metav1.LabelSelector{}
			}
			if r.IntN(4) == 0 {
				term.NamespaceSelector = &metav1.LabelSelector{}
			}
			weighted := []v1.WeightedPodAffinityTerm{{Weight: int32(1 + r.IntN(3)), PodAffinityTerm: term}}
			switch r.IntN(6) {
			case 0:
				p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{term}}}
			case 1:
				p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{term}}}
			case 2:
				p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted}}
			case 3:
				p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted}}
			}
			return p
		}
		assumed := map[int]*v1.Pod{}
		for step := range 400 {
			i, name := r.IntN(40), fmt.Sprint("n", r.IntN(8))
			switch r.IntN(9) {
			case 0, 1:
				c.SetNode(makeNode(name))
			case 2:
				c.RemoveNode(name)
			case 3, 4:
				c.SetPod(makePod(i))
				delete(assumed, i)
			case 5, 6:
				p := makePod(i)
				info, err := NewPodInfo(p)
				if err != nil {
					t.Fatal(err)
				}
				if c.AssumePod(info) == nil {
					assumed[i] = p
				}
			case 7:
				if p := assumed[i]; p != nil {
					c.ForgetPod(p)
					delete(assumed, i)
				}
			case 8:
				c.RemovePod(types.UID(fmt.Sprint(i)))
				delete(assumed, i)
			}
			if r.IntN(3) > 0 {
				continue // several changes between two snapshots
			}
			c.UpdateSnapshot(s)
			for _, q := range queries() {
				if r.IntN(3) > 0 {
					continue // some counters begin late
				}
				counter := s.Topology().Count(q.pods, q.nodes, q.key)
				counts, domains := recount(s, q)
				total := 0
				for d, n := range counts {
					total += n
					if counter.Of(d) != n {
						t.Fatalf("seed %d, step %d, %s: %d in %q, want %d", seed, step, q.name, counter.Of(d), d, n)
					}
				}
				if counter.Total() != total || counter.Domains() != len(domains) || counter.Min(nil) != lowest(counts, domains) {
					t.Fatalf("seed %d, step %d, %s: %d in all, %d domains, at least %d; want %d, %d, %d",
						seed, step, q.name, counter.Total(), counter.Domains(), counter.Min(nil), total, len(domains), lowest(counts, domains))
				}
				changes := map[string]int{}
				for d := range domains {
					if r.IntN(2) == 0 {
						changes[d] = r.IntN(4) - min(counts[d], r.IntN(3))
						counts[d] += changes[d]
					}
				}
				if got, want := counter.Min(changes), lowest(counts, domains); got != want {
					t.Fatalf("seed %d, step %d, %s: at least %d after %v, want %d", seed, step, q.name, got, changes, want)
				}
			}
			compareTerms(t, s, makePod(99))
		}
	}
}

type termAt struct {
	kind        topology.Kind
	key, domain string
}

// compareTerms checks which terms of pods on nodes speak of pod, and where they are.
func compareTerms(t *testing.T, s *Snapshot, pod *v1.Pod) {
	t.Helper()
	got, want := map[termAt]int{}, map[termAt]int{}
	s.Topology().Speaking(pod, labels.Set{"team": "q"}, func(term *topology.Term) {
		term.Each(func(domain string, weight int) { got[termAt{term.Kind, term.TopologyKey, domain}] += weight })
	})
	for _, n := range s.list {
		for _, p := range n.GetPods() {
			add := func(kind topology.Kind, key string, matches bool, weight int) {
				if domain, ok := n.Node().Labels[key]; ok && matches {
					want[termAt{kind, key, domain}] += weight
				}
			}
			for _, x := range p.GetRequiredAffinityTerms() {
				add(topology.RequiredAffinity, x.TopologyKey, x.Matches(pod, labels.Set{"team": "q"}), 1)
			}
			for _, x := range p.GetRequiredAntiAffinityTerms() {
				add(topology.RequiredAntiAffinity, x.TopologyKey, x.Matches(pod, labels.Set{"team": "q"}), 1)
			}
			for _, x := range p.GetPreferredAffinityTerms() {
				add(topology.PreferredAffinity, x.TopologyKey, x.Matches(pod, labels.Set{"team": "q"}), int(x.Weight))
			}
			for _, x := range p.GetPreferredAntiAffinityTerms() {
				add(topology.PreferredAntiAffinity, x.TopologyKey, x.Matches(pod, labels.Set{"team": "q"}), int(x.Weight))
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("terms that speak of the pod: %v, want %v", got, want)
	}
}
