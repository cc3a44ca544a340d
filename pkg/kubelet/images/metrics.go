package images

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// managerMetrics are what is counted and timed of pulls.
type managerMetrics struct {
	requests *metrics.CounterVec
	pulls    *metrics.HistogramVec
}

func newManagerMetrics() managerMetrics {
	return managerMetrics{
		requests: metric.CounterVec("kubelet_image_manager_ensure_image_requests_total", "Number of ensure-image requests processed by the kubelet.",
			"pull_policy", "present_locally", "pull_required"),
		pulls: metric.HistogramVec("kubelet_image_pull_duration_seconds", "Duration in seconds to pull an image.",
			[]float64{1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}, "image_size_in_bytes"),
	}
}

// RegisterMetrics implements metric.Room.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(m.metrics.requests, m.metrics.pulls)
	if m.cfg.Providers != nil {
		m.cfg.Providers.registerMetrics(r)
	}
	if m.cfg.Records != nil {
		r.CustomMustRegister(metric.OnDemand(m.cfg.Records.count,
			metric.Family{Name: "kubelet_imagemanager_ondisk_pullintents", Help: "Number of ImagePullIntents stored on disk."},
			metric.Family{Name: "kubelet_imagemanager_ondisk_pulledrecords", Help: "Number of ImagePulledRecords stored on disk."},
		))
	}
}

// Whether an image is there, or has to be pulled, as far as that was of interest.
const (
	yes     = "true"
	no      = "false"
	unknown = "unknown"
)

// asked counts a request for an image.
func (m *managerMetrics) asked(policy corev1.PullPolicy, present, pull string) {
	m.requests.WithLabelValues(strings.ToLower(string(policy)), present, pull).Inc()
}

// pulled takes note of how long the pull of an image of a size took.
func (m *managerMetrics) pulled(size uint64, took time.Duration) {
	m.pulls.WithLabelValues(sizeBucket(size)).Observe(took.Seconds())
}

// sizeBuckets are the sizes by which pulls are told apart: up to so many bytes each.
var sizeBuckets = []struct {
	most uint64
	name string
}{
	{0, "N/A"}, {10 << 20, "0-10MB"}, {100 << 20, "10MB-100MB"}, {500 << 20, "100MB-500MB"}, {1 << 30, "500MB-1GB"}, {5 << 30, "1GB-5GB"}, {10 << 30, "5GB-10GB"},
	{20 << 30, "10GB-20GB"}, {30 << 30, "20GB-30GB"}, {40 << 30, "30GB-40GB"}, {60 << 30, "40GB-60GB"}, {100 << 30, "60GB-100GB"},
}

func sizeBucket(size uint64) string {
	for _, b := range sizeBuckets {
		if size <= b.most {
			return b.name
		}
	}
	return "GT100GB"
}

// The reasons for which images are removed.
const (
	removedForAge   = "age"
	removedForSpace = "space"
)

// RegisterMetrics implements metric.Room.
func (c *Collector) RegisterMetrics(r metrics.KubeRegistry) {
	c.removed = metric.CounterVec("kubelet_image_garbage_collected_total", "Total number of images garbage collected by the kubelet, whether through disk usage or image age.", "reason")
	r.MustRegister(c.removed)
	for _, reason := range []string{removedForAge, removedForSpace} {
		c.removed.WithLabelValues(reason).Add(0)
	}
}

// providerMetrics are what is counted and timed of plugins that have credentials.
type providerMetrics struct {
	errors   *metrics.CounterVec
	duration *metrics.HistogramVec
}

func newProviderMetrics() *providerMetrics {
	return &providerMetrics{
		errors: metric.CounterVec("kubelet_credential_provider_plugin_errors_total", "Number of errors from credential provider plugin", "plugin_name"),
		duration: metric.HistogramVec("kubelet_credential_provider_plugin_duration", "Duration of execution in seconds for credential provider plugin",
			metrics.DefBuckets, "plugin_name"),
	}
}

func (p *Providers) registerMetrics(r metrics.KubeRegistry) {
	r.MustRegister(p.metrics.errors, p.metrics.duration)
	r.CustomMustRegister(metric.OnDemand(func(emit metric.Emit) { emit("kubelet_credential_provider_config_info", 1, p.hash) },
		metric.Family{
			Name: "kubelet_credential_provider_config_info", Labels: []string{"hash"},
			Help: "Information about the last applied credential provider configuration with hash as label",
		}))
}

// ran takes note of a plugin's run.
func (m *providerMetrics) ran(plugin string, took time.Duration, err error) {
	m.duration.WithLabelValues(plugin).Observe(took.Seconds())
	if err != nil {
		m.errors.WithLabelValues(plugin).Inc()
	}
}
