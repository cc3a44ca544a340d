package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// Where pods and groups wait is counted when somebody asks, and only of schedulers that run.
func TestGauges(t *testing.T) {
	gated := func(p *v1.Pod) { p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "example.com/wait"}} }
	m := gangWorld(t, framework.Gates{GenericWorkload: true}, []*v1.Node{makeNode("a", "8", "16Gi")}, []*v1.Pod{makePod("placed", "1", "", on("a"))},
		[]*schedulingv1beta1.PodGroup{makeGroup("g", 2), makeGroup("h", 2)})
	m.queue = queue.New(queue.Config{Less: m.less(), PreEnqueue: m.profiles["default-scheduler"].RunPreEnqueue})
	for _, p := range []*v1.Pod{
		makePod("p", "1", ""), makePod("q", "1", ""), makePod("gated", "1", "", gated),
		makePod("g1", "1", "", of("g")), makePod("g2", "1", "", of("g")), makePod("h1", "1", "", of("h")), makePod("m1", "1", "", of("missing")),
	} {
		m.groups.Set(p)
		m.queue.Add(t.Context(), p)
	}
	m.queue.Release(t.Context(), m.groups.State(groupKey("g")).Waiting())
	tried := m.queue.Pop()
	tried.UnschedulablePlugins.Insert("NodeResourcesFit")
	m.queue.Return(t.Context(), tried)

	g := newGauges()
	exclude := g.include(&Scheduler{mind: m})
	registry := metrics.NewKubeRegistry()
	registry.CustomMustRegister(g)
	want := `
		scheduler_cache_size{type="assumed_pods"} 0
		scheduler_cache_size{type="nodes"} 1
		scheduler_cache_size{type="pods"} 1
		scheduler_pending_pods{queue="active"} 3
		scheduler_pending_pods{queue="backoff"} 0
		scheduler_pending_pods{queue="gated"} 2
		scheduler_pending_pods{queue="incomplete"} 1
		scheduler_pending_pods{queue="pending"} 0
		scheduler_pending_pods{queue="unschedulable"} 1
		scheduler_queued_entities{queue="active",type="pod"} 1
		scheduler_queued_entities{queue="active",type="podgroup"} 1
		scheduler_queued_entities{queue="backoff",type="pod"} 0
		scheduler_queued_entities{queue="backoff",type="podgroup"} 0
		scheduler_queued_entities{queue="gated",type="pod"} 1
		scheduler_queued_entities{queue="gated",type="podgroup"} 1
		scheduler_queued_entities{queue="unschedulable",type="pod"} 1
		scheduler_queued_entities{queue="unschedulable",type="podgroup"} 0
		scheduler_unschedulable_pods{plugin="GangScheduling",profile="default-scheduler"} 2
		scheduler_unschedulable_pods{plugin="NodeResourcesFit",profile="default-scheduler"} 1
		scheduler_unschedulable_pods{plugin="SchedulingGates",profile="default-scheduler"} 1
	`
	if got := values(t, registry); got != unindented(want) {
		t.Errorf("the gauges say\n%s\nwant\n%s", got, unindented(want))
	}
	exclude()
	if got := values(t, registry); strings.Contains(got, "plugin=") || !strings.Contains(got, `scheduler_pending_pods{queue="active"} 0`) {
		t.Errorf("when no scheduler runs the gauges say\n%s", got)
	}
}

// values are what a registry has, without help and types.
func values(t *testing.T, r metrics.KubeRegistry) string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			lines = append(lines, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), m.GetGauge().GetValue()+m.GetCounter().GetValue()+float64(m.GetHistogram().GetSampleCount())))
		}
	}
	return strings.Join(lines, "\n")
}

func unindented(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

// A pod is counted each time it comes to a place of the queue, a group with the first of
// its pods there.
func TestArrivals(t *testing.T) {
	r := &recorder{
		incomingPods:     newCounter("queue_incoming_pods_total", "", metrics.STABLE, "queue", "event"),
		incomingEntities: newCounter("queue_incoming_entities_total", "", metrics.ALPHA, "queue", "event", "type"),
	}
	registry := metrics.NewKubeRegistry()
	registry.MustRegister(r.incomingPods, r.incomingEntities)
	a := newArrivals(r, true)
	q := queue.New(queue.Config{Less: func(x, y fwk.QueuedEntityInfo) bool { return x.GetTimestamp().Before(y.GetTimestamp()) }, Entered: a.entered})
	ctx := t.Context()
	for _, p := range []*v1.Pod{makePod("g1", "1", "", of("g")), makePod("g2", "1", "", of("g")), makePod("p", "1", "")} {
		q.Add(ctx, p)
	}
	for range 3 {
		p := q.Pop()
		a.left(groupKey("g"))
		if p.Pod.Name == "p" {
			p.UnschedulablePlugins.Insert("NodeResourcesFit")
			p.UnschedulableCount++
		} else {
			p.ConsecutiveErrors++
		}
		q.Return(ctx, p)
	}
	q.Activate(klog.Background(), map[string]*v1.Pod{"p": makePod("p", "1", "")})
	want := `
		scheduler_queue_incoming_entities_total{event="ForceActivate",queue="active",type="pod"} 1
		scheduler_queue_incoming_entities_total{event="ScheduleAttemptFailure",queue="backoff",type="podgroup"} 2
		scheduler_queue_incoming_entities_total{event="ScheduleAttemptFailure",queue="unschedulable",type="pod"} 1
		scheduler_queue_incoming_entities_total{event="UnscheduledPodAdd",queue="active",type="pod"} 1
		scheduler_queue_incoming_entities_total{event="UnscheduledPodAdd",queue="active",type="podgroup"} 1
		scheduler_queue_incoming_pods_total{event="ForceActivate",queue="active"} 1
		scheduler_queue_incoming_pods_total{event="ScheduleAttemptFailure",queue="backoff"} 2
		scheduler_queue_incoming_pods_total{event="ScheduleAttemptFailure",queue="unschedulable"} 1
		scheduler_queue_incoming_pods_total{event="UnscheduledPodAdd",queue="active"} 3
	`
	if got := values(t, registry); got != unindented(want) {
		t.Errorf("counted\n%s\nwant\n%s", got, unindented(want))
	}
}

// What comes of an attempt at a group is counted, and on how many placements it was tried.
func TestGroupMetrics(t *testing.T) {
	r := &recorder{
		groupAttempts:     newCounter("podgroup_schedule_attempts_total", "", metrics.ALPHA, "result", "profile"),
		groupLatency:      newHistogram("podgroup_scheduling_attempt_duration_seconds", "", metrics.ALPHA, []float64{1}, "result", "profile"),
		groupAlgorithm:    metrics.NewHistogram(&metrics.HistogramOpts{Subsystem: subsystem, Name: "podgroup_scheduling_algorithm_duration_seconds", Buckets: []float64{1}}),
		placements:        newCounter("generated_placements_total", "", metrics.ALPHA, "profile"),
		evaluations:       newCounter("placement_evaluations_total", "", metrics.ALPHA, "result", "profile"),
		evaluationLatency: newHistogram("placement_evaluation_duration_seconds", "", metrics.ALPHA, []float64{1}, "result", "profile"),
	}
	registry := metrics.NewKubeRegistry()
	registry.MustRegister(r.groupAttempts, r.groupLatency, r.groupAlgorithm, r.placements, r.evaluations, r.evaluationLatency)
	racks := []*v1.Node{makeNode("a", "2", "16Gi", inRack("1")), makeNode("b", "8", "16Gi", inRack("2"))}
	pods := []*v1.Pod{makePod("p", "2", "", of("g")), makePod("q", "2", "", of("g"))}
	for _, tc := range []struct {
		group *schedulingv1beta1.PodGroup
		more  []*v1.Pod
	}{
		{makeGroup("g", 2, inOne("rack")), nil},                                     // fits on one of two
		{makeGroup("g", 2), nil},                                                    // is tried on all nodes
		{makeGroup("g", 3), []*v1.Pod{makePod("r", "9", "", of("g"))}},              // one fits nowhere
		{makeGroup("g", 3), []*v1.Pod{makePod("r", "2", "", of("g"), priority(1))}}, // cannot be one group
	} {
		m := gangWorld(t, allGates, racks, append(pods, tc.more...), []*schedulingv1beta1.PodGroup{tc.group})
		d := decideOn(t, m, "g")
		r.triedGroup(&d, "x", time.Second, time.Second)
	}
	promised := groupDecision{status: fwk.NewStatus(fwk.Unschedulable), members: []memberDecision{
		{decision: decision{nominated: noPromise}}, {decision: decision{nominated: &fwk.NominatingInfo{NominatingMode: fwk.ModeOverride, NominatedNodeName: "a"}}},
	}}
	r.triedGroup(&promised, "x", time.Second, time.Second)
	broken := groupDecision{status: fwk.AsStatus(errors.New("broken"))}
	r.triedGroup(&broken, "y", time.Second, time.Second)
	want := `
		scheduler_generated_placements_total{profile="x"} 4
		scheduler_generated_placements_total{profile="y"} 0
		scheduler_placement_evaluation_duration_seconds{profile="x",result="feasible"} 2
		scheduler_placement_evaluation_duration_seconds{profile="x",result="infeasible"} 2
		scheduler_placement_evaluations_total{profile="x",result="feasible"} 2
		scheduler_placement_evaluations_total{profile="x",result="infeasible"} 2
		scheduler_podgroup_schedule_attempts_total{profile="x",result="error"} 1
		scheduler_podgroup_schedule_attempts_total{profile="x",result="scheduled"} 2
		scheduler_podgroup_schedule_attempts_total{profile="x",result="unschedulable"} 1
		scheduler_podgroup_schedule_attempts_total{profile="x",result="waiting_on_preemption"} 1
		scheduler_podgroup_schedule_attempts_total{profile="y",result="error"} 1
		scheduler_podgroup_scheduling_algorithm_duration_seconds{} 6
		scheduler_podgroup_scheduling_attempt_duration_seconds{profile="x",result="error"} 1
		scheduler_podgroup_scheduling_attempt_duration_seconds{profile="x",result="scheduled"} 2
		scheduler_podgroup_scheduling_attempt_duration_seconds{profile="x",result="unschedulable"} 1
		scheduler_podgroup_scheduling_attempt_duration_seconds{profile="x",result="waiting_on_preemption"} 1
		scheduler_podgroup_scheduling_attempt_duration_seconds{profile="y",result="error"} 1
	`
	if got := values(t, registry); got != unindented(want) {
		t.Errorf("counted\n%s\nwant\n%s", got, unindented(want))
	}
}

func groupKey(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: name}
}
