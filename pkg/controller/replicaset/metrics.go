package replicaset

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Metrics are what is counted of the controllers of both kinds.
type Metrics struct{ ageRatio *metrics.Histogram }

// NewMetrics adds the metrics to a registry.
func NewMetrics(r metrics.KubeRegistry) *Metrics {
	m := &Metrics{metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: "replicaset_controller", Name: "sorting_deletion_age_ratio", StabilityLevel: metrics.ALPHA,
		Help:    "How many times as old as the youngest ready pod the ready pods are that are deleted because there are too many",
		Buckets: metrics.ExponentialBuckets(0.25, 2, 6),
	})}
	r.MustRegister(m.ageRatio)
	return m
}

// deleted compares the ages of the pods that go with that of the youngest.
func (m *Metrics) deleted(active, doomed []*corev1.Pod, now time.Time) {
	var youngest time.Time
	for _, p := range active {
		if pods.IsReady(p) && p.CreationTimestamp.After(youngest) {
			youngest = p.CreationTimestamp.Time
		}
	}
	for _, p := range doomed {
		if pods.IsReady(p) && now.After(youngest) {
			m.ageRatio.Observe(float64(now.Sub(p.CreationTimestamp.Time)) / float64(now.Sub(youngest)))
		}
	}
}
