package framework

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	fwk "k8s.io/kube-scheduler/framework"
)

// recorder keeps the original's metrics of extension points.
type recorder struct{ permitWait *metrics.HistogramVec }

// sharedRecorder is one for all frameworks of the process, to which the registry belongs.
// It counts nothing until the scheduler has registered it.
var sharedRecorder = sync.OnceValue(func() *recorder {
	return &recorder{
		permitWait: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "permit_wait_duration_seconds",
			Help:           "Duration of waiting on permit.",
			Buckets:        metrics.ExponentialBuckets(0.001, 2, 15),
			StabilityLevel: metrics.BETA,
		}, []string{"result"}),
	}
})

// Metrics returns what is to be registered.
func Metrics() []metrics.Registerable { return []metrics.Registerable{sharedRecorder().permitWait} }

// waited counts a pod that Permit plugins kept waiting.
func (r *recorder) waited(s *fwk.Status, took time.Duration) {
	r.permitWait.WithLabelValues(s.Code().String()).Observe(took.Seconds())
}
