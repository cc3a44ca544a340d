package scheduler

import (
	"slices"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	resourceclaimmetrics "k8s.io/dynamic-resource-allocation/resourceclaim/metrics"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/defaultpreemption"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/dynamicresources"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// recorder keeps the original's metrics. The registry of component-base belongs to the
// process, so schedulers in one process share them.
type recorder struct {
	attempts *metrics.CounterVec
	latency  *metrics.HistogramVec
	sli      *metrics.HistogramVec
	tries    *metrics.Histogram
	search   *metrics.Histogram

	incomingPods     *metrics.CounterVec
	incomingEntities *metrics.CounterVec

	groupAttempts     *metrics.CounterVec
	groupLatency      *metrics.HistogramVec
	groupAlgorithm    *metrics.Histogram
	placements        *metrics.CounterVec
	evaluations       *metrics.CounterVec
	evaluationLatency *metrics.HistogramVec

	gauges *gauges
}

// subsystem is what the names of all metrics begin with.
const subsystem = "scheduler"

func newCounter(name, help string, level metrics.StabilityLevel, labels ...string) *metrics.CounterVec {
	return metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: subsystem, Name: name, Help: help, StabilityLevel: level}, labels)
}

func newHistogram(name, help string, level metrics.StabilityLevel, buckets []float64, labels ...string) *metrics.HistogramVec {
	return metrics.NewHistogramVec(&metrics.HistogramOpts{Subsystem: subsystem, Name: name, Help: help, Buckets: buckets, StabilityLevel: level}, labels)
}

var sharedRecorder = sync.OnceValue(func() *recorder {
	latencies := metrics.ExponentialBuckets(0.001, 2, 15)
	r := &recorder{
		attempts: newCounter("schedule_attempts_total",
			"Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
			metrics.STABLE, "result", "profile"),
		latency: newHistogram("scheduling_attempt_duration_seconds", "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
			metrics.STABLE, latencies, "result", "profile"),
		sli: newHistogram("pod_scheduling_sli_duration_seconds",
			"E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
			metrics.BETA, metrics.ExponentialBuckets(0.01, 2, 20), "attempts"),
		tries: metrics.NewHistogram(&metrics.HistogramOpts{
			Subsystem: subsystem, Name: "pod_scheduling_attempts",
			Help:           "Number of attempts to successfully schedule a pod.",
			Buckets:        metrics.ExponentialBuckets(1, 2, 5),
			StabilityLevel: metrics.STABLE,
		}),

		search: metrics.NewHistogram(&metrics.HistogramOpts{
			Subsystem: subsystem, Name: "scheduling_algorithm_duration_seconds",
			Help:           "Scheduling algorithm latency in seconds",
			Buckets:        latencies,
			StabilityLevel: metrics.BETA,
		}),

		incomingPods: newCounter("queue_incoming_pods_total", "Number of pods added to scheduling queues by event and queue type.", metrics.STABLE, "queue", "event"),
		incomingEntities: newCounter("queue_incoming_entities_total",
			"Number of scheduling entities added to scheduling queues by event, queue type, and entity type. Entity types are either 'pod' (for individual pods that are not members of any podgroup) or 'podgroup'.",
			metrics.ALPHA, "queue", "event", "type"),

		groupAttempts: newCounter("podgroup_schedule_attempts_total",
			"Number of attempts to schedule pod group, by the result. 'unschedulable' means a pod group could not be scheduled, while 'error' means an internal scheduler problem.",
			metrics.ALPHA, "result", "profile"),
		groupLatency: newHistogram("podgroup_scheduling_attempt_duration_seconds", "Pod group scheduling attempt latency in seconds",
			metrics.ALPHA, latencies, "result", "profile"),
		groupAlgorithm: metrics.NewHistogram(&metrics.HistogramOpts{
			Subsystem: subsystem, Name: "podgroup_scheduling_algorithm_duration_seconds",
			Help:           "Pod group scheduling algorithm latency in seconds",
			Buckets:        latencies,
			StabilityLevel: metrics.ALPHA,
		}),
		placements: newCounter("generated_placements_total", "Number of candidate placements generated when scheduling pod groups.", metrics.ALPHA, "profile"),
		evaluations: newCounter("placement_evaluations_total",
			"Number of candidate placements evaluated when scheduling pod groups, by result. 'feasible' means the pod group fit into the placement, while 'infeasible' means it did not.",
			metrics.ALPHA, "result", "profile"),
		evaluationLatency: newHistogram("placement_evaluation_duration_seconds",
			"Latency in seconds of evaluating a single candidate placement when scheduling pod groups, by result. 'feasible' means the pod group fit into the placement, while 'infeasible' means it did not.",
			metrics.ALPHA, latencies, "result", "profile"),

		gauges: newGauges(),
	}
	legacyregistry.MustRegister(append(slices.Concat(dynamicresources.Metrics(), defaultpreemption.Metrics(), framework.Metrics()),
		r.attempts, r.latency, r.sli, r.tries, r.search, r.incomingPods, r.incomingEntities,
		r.groupAttempts, r.groupLatency, r.groupAlgorithm, r.placements, r.evaluations, r.evaluationLatency)...)
	legacyregistry.CustomMustRegister(r.gauges)
	resourceclaimmetrics.RegisterMetrics()
	return r
})

func (r *recorder) scheduled(p *queue.Pod, profile string, took time.Duration, now time.Time) {
	r.attempts.WithLabelValues("scheduled", profile).Inc()
	r.latency.WithLabelValues("scheduled", profile).Observe(took.Seconds())
	r.tries.Observe(float64(p.Attempts))
	if p.InitialAttempt != nil {
		r.sli.WithLabelValues(attemptsLabel(p.Attempts)).Observe(now.Sub(*p.InitialAttempt).Seconds())
	}
}

func (r *recorder) failed(reason, profile string, took time.Duration) {
	result := "error"
	if reason == v1.PodReasonUnschedulable {
		result = "unschedulable"
	}
	r.attempts.WithLabelValues(result, profile).Inc()
	r.latency.WithLabelValues(result, profile).Observe(took.Seconds())
}

// The results of attempts at pod groups.
const (
	groupScheduled     = "scheduled"
	groupUnschedulable = "unschedulable"
	groupWaits         = "waiting_on_preemption"
	groupError         = "error"
)

// groupResult is what came of an attempt at a pod group.
func groupResult(d *groupDecision) string {
	promised := func(m memberDecision) bool {
		return m.nominated.Mode() == fwk.ModeOverride && m.nominated.NominatedNodeName != ""
	}
	switch {
	case d.status.IsSuccess():
		return groupScheduled
	case !d.status.IsRejected():
		return groupError
	case slices.ContainsFunc(d.members, promised):
		return groupWaits
	}
	return groupUnschedulable
}

// triedGroup counts an attempt at a pod group: how long it took, and the search alone.
func (r *recorder) triedGroup(d *groupDecision, profile string, took, search time.Duration) {
	result := groupResult(d)
	r.groupAttempts.WithLabelValues(result, profile).Inc()
	r.groupLatency.WithLabelValues(result, profile).Observe(took.Seconds())
	r.groupAlgorithm.Observe(search.Seconds())
	r.placements.WithLabelValues(profile).Add(float64(len(d.tried)))
	for _, t := range d.tried {
		result := "infeasible"
		if t.feasible {
			result = "feasible"
		}
		r.evaluations.WithLabelValues(result, profile).Inc()
		r.evaluationLatency.WithLabelValues(result, profile).Observe(t.took.Seconds())
	}
}

// attemptsLabel bounds the number of series.
func attemptsLabel(n int) string {
	if n >= 15 {
		return "15+"
	}
	return strconv.Itoa(n)
}
