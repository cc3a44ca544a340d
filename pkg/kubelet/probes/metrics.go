package probes

import (
	"time"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// probeMetrics are what is counted and timed of probes.
type probeMetrics struct {
	total    *metrics.CounterVec
	duration *metrics.HistogramVec
}

func newMetrics() probeMetrics {
	return probeMetrics{
		total: metrics.NewCounterVec(&metrics.CounterOpts{
			Name: "prober_probe_total", Help: "Cumulative number of a liveness, readiness or startup probe for a container by result.", StabilityLevel: metrics.BETA,
		}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}),
		duration: metric.HistogramVec("prober_probe_duration_seconds", "Duration in seconds for a probe response.", metrics.DefBuckets, "probe_type", "container", "pod", "namespace"),
	}
}

// RegisterMetrics implements metric.Room. The original serves them apart from the others.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(m.metrics.total, m.metrics.duration)
}

// The results of probes, as they are counted.
const (
	resultSuccess = "successful"
	resultFailure = "failed"
	resultUnknown = "unknown"
)

// count takes note of one probe, unless what was counted of it is forgotten already.
func (w *worker) count(outcome Outcome, err error, took time.Duration) {
	result := resultSuccess
	switch {
	case err != nil:
		result = resultUnknown
	case outcome == Failure:
		result = resultFailure
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.ended {
		return
	}
	w.m.metrics.total.WithLabelValues(string(w.kind), result, w.container.Name, w.pod.Name, w.pod.Namespace, string(w.pod.UID)).Inc()
	w.m.metrics.duration.WithLabelValues(string(w.kind), w.container.Name, w.pod.Name, w.pod.Namespace).Observe(took.Seconds())
}

// forget drops what was counted of a probe.
func (m *probeMetrics) forget(w *worker) {
	labels := map[string]string{"probe_type": string(w.kind), "container": w.container.Name, "pod": w.pod.Name, "namespace": w.pod.Namespace}
	m.duration.Delete(labels)
	labels["pod_uid"] = string(w.pod.UID)
	for _, result := range []string{resultSuccess, resultFailure, resultUnknown} {
		labels["result"] = result
		m.total.Delete(labels)
	}
}
