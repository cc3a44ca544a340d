package scheduler

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// What pods that are alike share changes no decision, and no reason.
func TestSharingChangesNothing(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 2))
		c, snapshot := cache.New(), cache.NewSnapshot()
		var q *queue.Queue
		fw, err := framework.New(t.Context(), config.Specs(config.Default(), framework.Gates{})[0], plugins.Registry(), framework.Deps{
			Snapshot: snapshot, Nominator: func() *queue.Queue { return q }, Waiting: framework.NewWaitingPods(), Parallelism: 4,
			Informers: informers.NewSharedInformerFactory(nil, 0),
		})
		if err != nil {
			t.Fatal(err)
		}
		q = queue.New(queue.Config{Less: fw.Less})
		node := func(i int) *v1.Node {
			return makeNode(fmt.Sprint("n", i), fmt.Sprint(2+r.IntN(3)), "8Gi", zone(fmt.Sprint("z", i%3)), func(n *v1.Node) {
				if r.IntN(6) == 0 {
					n.Spec.Taints = []v1.Taint{{Key: "t", Effect: []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule}[r.IntN(2)]}}
				}
				if r.IntN(40) == 0 && seed == 0 { // two nodes of one host, for some time
					n.Labels[v1.LabelHostname] = "n1"
				}
				n.Status.Images = []v1.ContainerImage{{Names: []string{"busybox:latest"}, SizeBytes: int64(r.IntN(500)) << 20}}
			})
		}
		for i := range 150 {
			c.SetNode(node(i))
		}
		memo := framework.NewMemo()
		placed := 0
		for i := range 150 {
			if r.IntN(10) == 0 {
				c.SetNode(node(r.IntN(150)))
			}
			pod := makePod(fmt.Sprint("p", i), []string{"500m", "1"}[r.IntN(2)], "1Gi", app([]string{"a", "b"}[r.IntN(2)]))
			switch r.IntN(8) {
			case 6:
				apart(term(v1.LabelHostname, "a"))(pod)
			case 7:
				apart(term(v1.LabelHostname, "a"), term(v1.LabelHostname, "b"))(pod)
			case 0:
				pod.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80, Protocol: []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP}[r.IntN(2)]}}
			case 1:
				spread(zoneKey, 1, v1.DoNotSchedule)(pod)
			case 2:
				apart(term(zoneKey, "c"))(pod)
			case 3:
				pod.Spec.Tolerations = []v1.Toleration{{Operator: v1.TolerationOpExists}}
			case 4:
				pod.Spec.NodeSelector = map[string]string{zoneKey: "z1"}
			}
			c.UpdateSnapshot(snapshot)
			outcome := func(memo *framework.Memo) string {
				p, err := (&cycle{fw: fw, snapshot: snapshot, start: i % 150, memo: memo}).run(t.Context(), framework.NewCycleState(false), pod, seedOf(pod, 1))
				var fit *framework.FitError
				if errors.As(err, &fit) {
					return fit.Error()
				}
				if err != nil {
					t.Fatal(err)
				}
				return fmt.Sprint(p.node, p.evaluated, p.feasible, p.scores)
			}
			want, got := outcome(nil), outcome(memo)
			if got != want {
				t.Fatalf("seed %d, pod %d: %s, want %s", seed, i, got, want)
			}
			if again := outcome(memo); again != want { // now everything is known
				t.Fatalf("seed %d, pod %d, again: %s, want %s", seed, i, again, want)
			}
			if p, err := (&cycle{fw: fw, snapshot: snapshot, start: i % 150}).run(t.Context(), framework.NewCycleState(false), pod, seedOf(pod, 1)); err == nil {
				pod.Spec.NodeName = p.node
				c.SetPod(pod)
				placed++
			}
		}
		if placed == 0 {
			t.Error("no pod was placed")
		}
	}
}

// A search that passes over domains, such as those without friends of a pod, finds the same nodes,
// and ends at the same one.
func TestNarrowingChangesNothing(t *testing.T) {
	c, snapshot := cache.New(), cache.NewSnapshot()
	var q *queue.Queue
	fw, err := framework.New(t.Context(), config.Specs(config.Default(), framework.Gates{})[0], plugins.Registry(), framework.Deps{
		Snapshot: snapshot, Nominator: func() *queue.Queue { return q }, Waiting: framework.NewWaitingPods(), Parallelism: 4,
		Informers: informers.NewSharedInformerFactory(nil, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	q = queue.New(queue.Config{Less: fw.Less})
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		c.SetNode(makeNode(fmt.Sprint("n", i), fmt.Sprint(1+r.IntN(3)), "8Gi", zone(fmt.Sprint("z", r.IntN(5)))))
	}
	narrowed := 0
	for i := range 300 {
		if r.IntN(10) == 0 { // a node changes zone
			c.SetNode(makeNode(fmt.Sprint("n", r.IntN(400)), "3", "8Gi", zone(fmt.Sprint("z", r.IntN(5)))))
		}
		name := fmt.Sprint("a", r.IntN(4))
		pod := makePod(fmt.Sprint("p", i), "1", "1Gi", app(name))
		wishes := r.IntN(3)
		if wishes != 1 {
			near(term(zoneKey, name))(pod)
		}
		if wishes != 0 {
			spread([]string{v1.LabelHostname, zoneKey}[r.IntN(2)], 1+r.Int32N(2), v1.DoNotSchedule, func(c *v1.TopologySpreadConstraint) {
				c.LabelSelector.MatchLabels["app"] = name
			})(pod)
		}
		c.UpdateSnapshot(snapshot)
		all, err := snapshot.List()
		if err != nil {
			t.Fatal(err)
		}
		state := framework.NewCycleState(false)
		if _, s, _ := fw.RunPreFilter(t.Context(), state, pod); !s.IsSuccess() {
			t.Fatal(s.AsError())
		}
		start := r.IntN(len(all))
		whole := search{cycle: &cycle{fw: fw, snapshot: snapshot, start: start}, all: all, count: len(all), start: start, want: 1 + r.IntN(60), filters: fw.FiltersOf(t.Context(), state, pod)}
		want, p, err := whole.run(t.Context(), state, pod, framework.NewDiagnosis())
		if err != nil {
			t.Fatal(err)
		}
		if part := whole.narrowed(fw.Narrow(state)); part != nil {
			got, q, err := part.run(t.Context(), state, pod, framework.NewDiagnosis())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.nodes, want.nodes) || q.evaluated != p.evaluated || q.next != p.next {
				t.Fatalf("pod %d: %d nodes of %d, then %d; want %d of %d, then %d", i, len(got.nodes), q.evaluated, q.next, len(want.nodes), p.evaluated, p.next)
			}
			narrowed++
		}
		if len(want.nodes) > 0 {
			pod.Spec.NodeName = want.nodes[0].Node().Name
			c.SetPod(pod)
		}
	}
	if narrowed == 0 {
		t.Error("no search was narrowed")
	}
}

// What is known of victims, from pods that were alike, changes no preemption.
func TestKnownVictimsChangeNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	c, snapshot := cache.New(), cache.NewSnapshot()
	var q *queue.Queue
	known := informers.NewSharedInformerFactory(nil, 0)
	profile := func() *framework.Framework {
		fw, err := framework.New(t.Context(), config.Specs(config.Default(), framework.Gates{})[0], plugins.Registry(), framework.Deps{
			Snapshot: snapshot, Nominator: func() *queue.Queue { return q }, Waiting: framework.NewWaitingPods(), Parallelism: 4, Informers: known,
		})
		if err != nil {
			t.Fatal(err)
		}
		return fw
	}
	fw := profile()
	q = queue.New(queue.Config{Less: fw.Less})
	victims := 0
	victim := func(node string) *v1.Pod {
		victims++
		p := makePod(fmt.Sprint("victim", victims), fmt.Sprint(1+r.IntN(2)), "1Gi", app([]string{"a", "b"}[r.IntN(2)]), priority(int32(r.IntN(3))), on(node))
		if r.IntN(4) == 0 {
			apart(term(v1.LabelHostname, "c"))(p)
		}
		return p
	}
	for i := range 40 {
		name := fmt.Sprint("n", i)
		c.SetNode(makeNode(name, "4", "8Gi", zone(fmt.Sprint("z", i%3))))
		for range 2 {
			c.SetPod(victim(name))
		}
	}
	budgets, pods := known.Policy().V1().PodDisruptionBudgets().Informer().GetIndexer(), known.Core().V1().Pods().Informer().GetIndexer()
	promised := 0
	for i := range 120 {
		if r.IntN(5) == 0 {
			c.SetPod(victim(fmt.Sprint("n", r.IntN(40))))
		}
		if r.IntN(10) == 0 {
			if err := budgets.Update(&policyv1.PodDisruptionBudget{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "keep"},
				Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}},
				Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: int32(r.IntN(2))},
			}); err != nil {
				t.Fatal(err)
			}
		}
		pod := makePod(fmt.Sprint("p", i), "4", "1Gi", app([]string{"c", "d"}[r.IntN(2)]), priority(int32(100+r.IntN(2))))
		switch r.IntN(4) {
		case 0:
			apart(term(v1.LabelHostname, "a"))(pod)
		case 1:
			spread(zoneKey, 3, v1.DoNotSchedule)(pod)
		}
		if err := pods.Add(pod); err != nil {
			t.Fatal(err)
		}
		c.UpdateSnapshot(snapshot)
		preempt := func(fw *framework.Framework) (node, outcome string) {
			state := framework.NewTrialState()
			_, err := (&cycle{fw: fw, snapshot: snapshot}).run(t.Context(), state, pod, 1)
			var fit *framework.FitError
			if !errors.As(err, &fit) {
				t.Fatal(err)
			}
			nominated, told := makeRoom(t.Context(), fw, state, pod, fit)
			if nominated.Mode() == fwk.ModeOverride {
				node = nominated.NominatedNodeName
			}
			return node, fmt.Sprint(node, *told)
		}
		_, want := preempt(profile())
		node, got := preempt(fw)
		if got != want {
			t.Fatalf("pod %d: %s, want %s", i, got, want)
		}
		if node == "" || r.IntN(2) == 0 {
			continue
		}
		promised++
		info, err := cache.NewPodInfo(pod)
		if err != nil {
			t.Fatal(err)
		}
		q.AddNominatedPod(klog.Background(), info, &fwk.NominatingInfo{NominatingMode: fwk.ModeOverride, NominatedNodeName: node})
	}
	if promised < 10 {
		t.Errorf("only %d pods were promised a node", promised)
	}
}
