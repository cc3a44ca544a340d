package resourcepoolstatus

import (
	"time"

	"k8s.io/component-base/metrics"
)

// measures are the original's metrics of ResourcePoolStatusRequests.
type measures struct {
	done, failed *metrics.CounterVec
	took         *metrics.HistogramVec
}

func newMeasures(r metrics.KubeRegistry) *measures {
	counter := func(name, help string) *metrics.CounterVec {
		return metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: "resourcepoolstatusrequest_controller", Name: name, Help: help, StabilityLevel: metrics.ALPHA}, []string{"driver_name"})
	}
	m := &measures{
		done:   counter("requests_processed_total", "Number of ResourcePoolStatusRequests that an answer was worked out for"),
		failed: counter("request_processing_errors_total", "Number of those whose answer could not be written"),
		took: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "resourcepoolstatusrequest_controller", Name: "request_processing_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help: "Time that it took to answer one", Buckets: metrics.ExponentialBuckets(0.001, 2, 15),
		}, []string{"driver_name"}),
	}
	r.MustRegister(m.done, m.failed, m.took)
	return m
}

func (m *measures) processed(driver string, err error, took time.Duration) {
	m.done.WithLabelValues(driver).Inc()
	m.took.WithLabelValues(driver).Observe(took.Seconds())
	if err != nil {
		m.failed.WithLabelValues(driver).Inc()
	}
}
