package framework

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	fwk "k8s.io/kube-scheduler/framework"
)

// recorder keeps the original's metrics of extension points.
type recorder struct {
	points     *metrics.HistogramVec
	permitWait *metrics.HistogramVec
}

// sharedRecorder is one for all frameworks of the process, to which the registry belongs.
// It counts nothing until the scheduler has registered it.
var sharedRecorder = sync.OnceValue(func() *recorder {
	return &recorder{
		points: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "framework_extension_point_duration_seconds",
			Help:           "Latency for running all plugins of a specific extension point.",
			Buckets:        metrics.ExponentialBuckets(0.0001, 2, 12),
			StabilityLevel: metrics.STABLE,
		}, []string{"extension_point", "status", "profile"}),
		permitWait: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "permit_wait_duration_seconds",
			Help:           "Duration of waiting on permit.",
			Buckets:        metrics.ExponentialBuckets(0.001, 2, 15),
			StabilityLevel: metrics.BETA,
		}, []string{"result"}),
	}
})

// Metrics returns what is to be registered.
func Metrics() []metrics.Registerable {
	r := sharedRecorder()
	return []metrics.Registerable{r.points, r.permitWait}
}

// Ran counts how long all plugins of an extension point took, of a scheduler that is at
// work. It is deferred with the status that the point is going to return, nil if it returns none.
func (f *Framework) Ran(point string, began time.Time, status **fwk.Status) {
	if !f.Timed {
		return
	}
	code := fwk.Success
	if status != nil {
		code = (*status).Code()
	}
	sharedRecorder().points.WithLabelValues(point, code.String(), f.profile).Observe(time.Since(began).Seconds())
}

// waited counts a pod that Permit plugins kept waiting.
func (r *recorder) waited(s *fwk.Status, took time.Duration) {
	r.permitWait.WithLabelValues(s.Code().String()).Observe(took.Seconds())
}
