package scheduler

import (
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	resourceclaimmetrics "k8s.io/dynamic-resource-allocation/resourceclaim/metrics"

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
}

var sharedRecorder = sync.OnceValue(func() *recorder {
	r := &recorder{
		attempts: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: "scheduler", Name: "schedule_attempts_total",
			Help:           "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
			StabilityLevel: metrics.STABLE,
		}, []string{"result", "profile"}),
		latency: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "scheduling_attempt_duration_seconds",
			Help:           "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
			Buckets:        metrics.ExponentialBuckets(0.001, 2, 15),
			StabilityLevel: metrics.STABLE,
		}, []string{"result", "profile"}),
		sli: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "pod_scheduling_sli_duration_seconds",
			Help:           "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
			Buckets:        metrics.ExponentialBuckets(0.01, 2, 20),
			StabilityLevel: metrics.BETA,
		}, []string{"attempts"}),
		tries: metrics.NewHistogram(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "pod_scheduling_attempts",
			Help:           "Number of attempts to successfully schedule a pod.",
			Buckets:        metrics.ExponentialBuckets(1, 2, 5),
			StabilityLevel: metrics.STABLE,
		}),
	}
	legacyregistry.MustRegister(append(dynamicresources.Metrics(), r.attempts, r.latency, r.sli, r.tries)...)
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

// attemptsLabel bounds the number of series.
func attemptsLabel(n int) string {
	if n >= 15 {
		return "15+"
	}
	return strconv.Itoa(n)
}
