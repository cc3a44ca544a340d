package component

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/features"
	"k8s.io/component-base/metrics/legacyregistry"
)

// NativeHistograms reports whether the feature gate of this name is on, which all components heed: histograms
// have exponential buckets too, for clients that ask for protobuf.
func NativeHistograms(given map[string]bool) bool {
	on, ok := given[string(features.NativeHistograms)]
	return on || !ok
}

// CountNatively gives histograms that are registered from now on exponential buckets if a component asks for them.
// One that does not leaves them to the others in its process, and does not show them.
func CountNatively(asked bool) {
	if asked {
		features.ApplyFeatureGates(enabled{})
	}
}

// enabled is what the library asks about its gate.
type enabled struct{ featuregate.FeatureGate }

func (enabled) Enabled(featuregate.Feature) bool { return true }

// MetricsHandler shows the metrics of the process and more, with native histograms or without.
func MetricsHandler(native bool, more ...prometheus.Gatherer) http.Handler {
	var all prometheus.Gatherer = append(prometheus.Gatherers{legacyregistry.DefaultGatherer}, more...)
	if !native {
		all = classic{all}
	}
	return metrics.HandlerFor(all, metrics.HandlerOpts{})
}

// WithReset forgets what has been counted, by the process and in more, when DELETE asks for it.
func WithReset(show http.Handler, more ...metrics.KubeRegistry) http.Handler {
	shared := legacyregistry.HandlerWithReset()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodDelete {
			show.ServeHTTP(w, req)
			return
		}
		for _, r := range more {
			r.Reset()
		}
		shared.ServeHTTP(w, req)
	})
}

// classic gathers histograms as they are where nothing counts natively.
type classic struct{ prometheus.Gatherer }

// Gather implements prometheus.Gatherer.
func (c classic) Gather() ([]*dto.MetricFamily, error) {
	families, err := c.Gatherer.Gather()
	for _, family := range families {
		for _, m := range family.Metric {
			if h := m.Histogram; h != nil {
				m.Histogram = &dto.Histogram{SampleCount: h.SampleCount, SampleSum: h.SampleSum, Bucket: h.Bucket, CreatedTimestamp: h.CreatedTimestamp}
			}
		}
	}
	return families, err
}
