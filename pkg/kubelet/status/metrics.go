package status

import (
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

func newSyncDuration() *metrics.Histogram {
	return metric.Histogram("kubelet_pod_status_sync_duration_seconds",
		"Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod, even if multiple intevening changes to pod status occur.",
		[]float64{0.01, 0.05, 0.1, 0.5, 1, 5, 10, 20, 30, 45, 60})
}

// RegisterMetrics implements metric.Room.
func (w *Writer) RegisterMetrics(r metrics.KubeRegistry) { r.MustRegister(w.took) }
