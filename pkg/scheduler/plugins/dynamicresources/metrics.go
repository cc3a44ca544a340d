package dynamicresources

import (
	"errors"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-base/metrics"
)

// recorder keeps the original's metrics of devices that are waited for.
type recorder struct {
	allocations *metrics.CounterVec
	waits       *metrics.HistogramVec
}

// sharedRecorder is one for all plugins of the process, to which the registry belongs. It
// counts nothing until the scheduler has registered it.
var sharedRecorder = sync.OnceValue(func() *recorder {
	labels := []string{"profile", "driver", "status"}
	return &recorder{
		allocations: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: "scheduler", Name: "dra_bindingconditions_allocations_total",
			Help:           "Number of allocations using devices with BindingConditions, counted per driver per scheduling attempt",
			StabilityLevel: metrics.ALPHA,
		}, labels),
		waits: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "scheduler", Name: "dra_bindingconditions_wait_duration_seconds",
			Help:           "Time in seconds spent waiting for BindingConditions to be satisfied during PreBind.",
			Buckets:        metrics.ExponentialBuckets(0.1, 2, 14),
			StabilityLevel: metrics.ALPHA,
		}, labels),
	}
})

// Metrics returns what is to be registered.
func Metrics() []metrics.Registerable {
	r := sharedRecorder()
	return []metrics.Registerable{r.allocations, r.waits}
}

// waited counts what became of devices of claims, by driver.
func (r *recorder) waited(profile string, claims []*resourceapi.ResourceClaim, took time.Duration, err error) {
	status := "success"
	switch {
	case errors.Is(err, errBindingTimeout):
		status = "timeout"
	case err != nil:
		status = "failure"
	}
	drivers := sets.New[string]()
	for _, c := range claims {
		for _, d := range c.Status.Allocation.Devices.Results {
			if len(d.BindingConditions) > 0 {
				drivers.Insert(d.Driver)
			}
		}
	}
	for driver := range drivers {
		r.allocations.WithLabelValues(profile, driver, status).Inc()
		r.waits.WithLabelValues(profile, driver, status).Observe(took.Seconds())
	}
}
