package eviction

import (
	"time"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// The signals of pods that use more of the disk than they said they would, as they are counted.
const (
	emptyDirLimit  Signal = "emptydirfs.limit"
	podLimit       Signal = "ephemeralpodfs.limit"
	containerLimit Signal = "ephemeralcontainerfs.limit"
)

// managerMetrics are what is counted and timed of evictions.
type managerMetrics struct {
	evictions *metrics.CounterVec
	age       *metrics.HistogramVec
}

func newMetrics() managerMetrics {
	return managerMetrics{
		evictions: metric.CounterVec("kubelet_evictions", "Cumulative number of pod evictions by eviction signal", "eviction_signal"),
		age: metric.HistogramVec("kubelet_eviction_stats_age_seconds", "Time between when stats are collected, and when pod is evicted based on those stats by eviction signal",
			metrics.DefBuckets, "eviction_signal"),
	}
}

// RegisterMetrics implements metric.Room.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(m.metrics.evictions, m.metrics.age)
}

// evicted counts a pod that has to go because of what was measured some time ago.
func (m *managerMetrics) evicted(s Signal, age time.Duration) {
	m.evictions.WithLabelValues(string(s)).Inc()
	m.age.WithLabelValues(string(s)).Observe(age.Seconds())
}
