package devices

import (
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// managerMetrics are what is counted and timed of device plugins.
type managerMetrics struct {
	registrations *metrics.CounterVec
	allocations   *metrics.HistogramVec
}

func newMetrics() managerMetrics {
	return managerMetrics{
		registrations: metric.CounterVec("kubelet_device_plugin_registration_total", "Cumulative number of device plugin registrations. Broken down by resource name.", "resource_name"),
		allocations: metric.HistogramVec("kubelet_device_plugin_alloc_duration_seconds", "Duration in seconds to serve a device plugin Allocation request. Broken down by resource name.",
			metrics.DefBuckets, "resource_name"),
	}
}

// RegisterMetrics implements metric.Room.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(m.metrics.registrations, m.metrics.allocations)
}
