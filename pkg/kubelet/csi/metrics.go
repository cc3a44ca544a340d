package csi

import (
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

func newCalls() *metrics.HistogramVec {
	return metric.HistogramVec("csi_operations_seconds", "Container Storage Interface operation duration with gRPC error code status total",
		[]float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}, "driver_name", "method_name", "grpc_status_code", "migrated")
}

// RegisterMetrics implements metric.Room.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) { r.MustRegister(m.calls) }
