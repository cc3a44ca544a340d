package defaultpreemption

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	fwk "k8s.io/kube-scheduler/framework"
)

// recorder keeps the original's metrics of preemption, for pods and for groups of them.
type recorder struct {
	attempts      *metrics.Counter
	victims       *metrics.Histogram
	groupAttempts *metrics.CounterVec
	groupVictims  *metrics.Histogram
	evaluation    *metrics.HistogramVec
}

// sharedRecorder is one for all plugins of the process, to which the registry belongs. It
// counts nothing until the scheduler has registered it.
var sharedRecorder = sync.OnceValue(func() *recorder {
	return &recorder{
		attempts: metrics.NewCounter(&metrics.CounterOpts{
			Subsystem: "scheduler", Name: "preemption_attempts_total",
			Help:           "Total preemption attempts in the cluster till now",
			StabilityLevel: metrics.STABLE,
		}),
		victims: metrics.NewHistogram(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "preemption_victims",
			Help:           "Number of selected preemption victims for preemption initiated by a single pod",
			Buckets:        metrics.ExponentialBuckets(1, 2, 7),
			StabilityLevel: metrics.STABLE,
		}),
		groupAttempts: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: "scheduler", Name: "workload_preemption_attempts_total",
			Help:           "Total preemption attempts initiated by workload (including pod groups) in the cluster till now.",
			StabilityLevel: metrics.ALPHA,
		}, []string{"result"}),
		groupVictims: metrics.NewHistogram(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "workload_preemption_victims",
			Help:           "Number of pod preemption victims caused by workload preemption.",
			Buckets:        metrics.ExponentialBuckets(1, 2, 11),
			StabilityLevel: metrics.ALPHA,
		}),
		evaluation: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "preemption_evaluation_duration_seconds",
			Help:           "Duration in seconds for identifying the target preemption victims.",
			Buckets:        metrics.ExponentialBuckets(0.001, 2, 16),
			StabilityLevel: metrics.ALPHA,
		}, []string{"preemptor", "result"}),
	}
})

// Metrics returns what is to be registered.
func Metrics() []metrics.Registerable {
	r := sharedRecorder()
	return []metrics.Registerable{r.attempts, r.victims, r.groupAttempts, r.groupVictims, r.evaluation}
}

// tried counts a search for victims for a pod.
func (r *recorder) tried(s *fwk.Status, took time.Duration) {
	r.attempts.Inc()
	r.evaluation.WithLabelValues("pod", s.Code().String()).Observe(took.Seconds())
}

// triedForGroup counts a search for victims for a pod group, or a group of groups.
func (r *recorder) triedForGroup(kind fwk.EntityKeyType, s *fwk.Status, took time.Duration) {
	r.groupAttempts.WithLabelValues(s.Code().String()).Inc()
	r.evaluation.WithLabelValues(string(kind), s.Code().String()).Observe(took.Seconds())
}
