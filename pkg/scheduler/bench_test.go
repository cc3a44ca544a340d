package scheduler

import (
	"errors"
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// BenchmarkDecision is how long the decision about one more pod takes in a cluster of
// 5,000 nodes, the pods before it included in the snapshot.
func BenchmarkDecision(b *testing.B) {
	for _, shape := range []struct {
		name   string
		change func(*v1.Pod)
	}{
		{"basic", func(*v1.Pod) {}},
		{"affinity", near(term(zoneKey, "web"))},
		{"anti-affinity", apart(term(v1.LabelHostname, "web"))},
		{"spread", spread(zoneKey, 1, v1.DoNotSchedule)},
	} {
		b.Run(shape.name, func(b *testing.B) {
			c, snapshot := cache.New(), cache.NewSnapshot()
			for i := range 5000 {
				c.SetNode(makeNode(fmt.Sprint("n", i), "64", "256Gi", zone(fmt.Sprint("z", i%10))))
			}
			var q *queue.Queue
			fw, err := framework.New(b.Context(), config.Specs(config.Default(), framework.Gates{})[0], plugins.Registry(), framework.Deps{
				Snapshot: snapshot, Nominator: func() *queue.Queue { return q }, Waiting: framework.NewWaitingPods(), Parallelism: 16,
				Informers: informers.NewSharedInformerFactory(nil, 0),
			})
			if err != nil {
				b.Fatal(err)
			}
			q = queue.New(queue.Config{Less: fw.Less})
			memo, start, n := framework.NewMemo(), 0, 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				pod := makePod(fmt.Sprint("p", n), "10m", "32Mi", app("web"), shape.change)
				c.UpdateSnapshot(snapshot)
				p, err := (&cycle{fw: fw, snapshot: snapshot, start: start, memo: memo}).run(b.Context(), framework.NewCycleState(false), pod, seedOf(pod, 1))
				if err != nil {
					b.Skipf("after %d pods: %v", n, err) // the cluster is full
				}
				start = p.next
				pod.Spec.NodeName = p.node
				c.SetPod(pod)
			}
		})
	}
}

// BenchmarkPreemption is how long the decision about one more pod takes, in a cluster of 5,000 nodes
// that are full of pods of lower priority, while those before it wait for their victims to go.
func BenchmarkPreemption(b *testing.B) {
	c, snapshot := cache.New(), cache.NewSnapshot()
	for i := range 5000 {
		name := fmt.Sprint("n", i)
		c.SetNode(makeNode(name, "4", "32Gi", zone(fmt.Sprint("z", i%10))))
		victim := makePod(fmt.Sprint("victim", i), "3", "1Gi")
		victim.Spec.NodeName = name
		c.SetPod(victim)
	}
	var q *queue.Queue
	known := informers.NewSharedInformerFactory(nil, 0)
	fw, err := framework.New(b.Context(), config.Specs(config.Default(), framework.Gates{})[0], plugins.Registry(), framework.Deps{
		Snapshot: snapshot, Nominator: func() *queue.Queue { return q }, Waiting: framework.NewWaitingPods(), Parallelism: 16, Informers: known,
	})
	if err != nil {
		b.Fatal(err)
	}
	q = queue.New(queue.Config{Less: fw.Less})
	pods := known.Core().V1().Pods().Informer().GetIndexer()
	memo, n := framework.NewMemo(), 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		pod := makePod(fmt.Sprint("p", n), "3", "1Gi", func(p *v1.Pod) { p.Spec.Priority = ptr.To[int32](1000) })
		if err := pods.Add(pod); err != nil {
			b.Fatal(err)
		}
		c.UpdateSnapshot(snapshot)
		state := framework.NewTrialState()
		_, err := (&cycle{fw: fw, snapshot: snapshot, memo: memo}).run(b.Context(), state, pod, seedOf(pod, 1))
		var fit *framework.FitError
		if !errors.As(err, &fit) {
			b.Fatalf("pod %d: %v", n, err)
		}
		nominated, _ := makeRoom(b.Context(), fw, state, pod, fit)
		if nominated.Mode() != fwk.ModeOverride || nominated.NominatedNodeName == "" {
			b.Skipf("after %d pods nobody can be preempted", n)
		}
		info, err := cache.NewPodInfo(pod)
		if err != nil {
			b.Fatal(err)
		}
		q.AddNominatedPod(klog.Background(), info, nominated)
	}
}

// BenchmarkExplaining is what it costs to keep, for `leme why`, what was found out: the
// share of the time that a decision takes. It is to be less than 5 %.
func BenchmarkExplaining(b *testing.B) {
	for _, shape := range []struct {
		name string
		cpu  string
		pod  func(*v1.Pod)
	}{
		{"basic", "10m", func(*v1.Pod) {}},
		{"affinity", "10m", near(term(zoneKey, "web"))},
		{"spread", "10m", spread(zoneKey, 1, v1.DoNotSchedule)},
		{"refused", "100", func(*v1.Pod) {}},
	} {
		b.Run(shape.name, func(b *testing.B) {
			c, snapshot := cache.New(), cache.NewSnapshot()
			for i := range 5000 {
				c.SetNode(makeNode(fmt.Sprint("n", i), "64", "256Gi", zone(fmt.Sprint("z", i%10))))
			}
			var q *queue.Queue
			fw, err := framework.New(b.Context(), config.Specs(config.Default(), framework.Gates{})[0], plugins.Registry(), framework.Deps{
				Snapshot: snapshot, Nominator: func() *queue.Queue { return q }, Waiting: framework.NewWaitingPods(), Parallelism: 16,
				Informers: informers.NewSharedInformerFactory(nil, 0),
			})
			if err != nil {
				b.Fatal(err)
			}
			q = queue.New(queue.Config{Less: fw.Less})
			memo, book, start, n := framework.NewMemo(), explain.NewBook(), 0, 0
			var deciding, explaining time.Duration
			one := func() {
				n++
				pod := makePod(fmt.Sprint("p", n), shape.cpu, "32Mi", app("web"), shape.pod)
				began := time.Now()
				c.UpdateSnapshot(snapshot)
				p, err := (&cycle{fw: fw, snapshot: snapshot, start: start, memo: memo}).run(b.Context(), framework.NewCycleState(false), pod, seedOf(pod, 1))
				var fit *framework.FitError
				if err != nil && !errors.As(err, &fit) {
					b.Fatal(err)
				}
				message := ""
				if fit != nil {
					message = fit.Error() // for the status of the pod
				}
				deciding += time.Since(began)

				began = time.Now()
				told := explain.Attempt{Number: 1, Time: began, Node: p.node, Nodes: snapshot.Len(), Evaluated: p.evaluated, Feasible: p.feasible}
				if fit == nil {
					told.Scores, told.Refusals = explain.Scores(p.scores), p.diagnosis.Refusals(0, explain.MaxRefusals)
				} else {
					told.Message, told.Refusals = message, fit.Refusals()
				}
				book.Add(pod, told)
				explaining += time.Since(began)
				if err != nil {
					return
				}
				start = p.next
				pod.Spec.NodeName = p.node
				c.SetPod(pod)
			}
			for b.Loop() {
				one()
			}
			b.ReportMetric(100*float64(explaining)/float64(deciding), "%")
		})
	}
}
