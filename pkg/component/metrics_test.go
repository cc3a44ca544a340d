package component

import (
	"net/http/httptest"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
)

func TestNativeHistograms(t *testing.T) {
	for name, c := range map[string]struct {
		given map[string]bool
		want  bool
	}{
		"by default":   {want: true},
		"switched on":  {map[string]bool{"NativeHistograms": true}, true},
		"switched off": {map[string]bool{"NativeHistograms": false}, false},
		"other gates":  {map[string]bool{"WatchList": false}, true},
	} {
		if got := NativeHistograms(c.given); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
		if err := CheckFeatureGates(map[string]bool{"NativeHistograms": c.want}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMetricsHandler(t *testing.T) {
	CountNatively(true)
	CountNatively(false) // by another component of the process
	h := metrics.NewHistogram(&metrics.HistogramOpts{Name: "took_seconds", Help: "h", Buckets: []float64{1, 10}})
	registry := metrics.NewKubeRegistry()
	registry.MustRegister(h)
	h.Observe(3)

	family := func(native bool) *dto.MetricFamily {
		s := httptest.NewServer(MetricsHandler(native, registry))
		defer s.Close()
		families, err := testutil.ScrapeMetricsProto(s.URL, s.Client())
		if err != nil {
			t.Fatal(err)
		}
		if families["go_goroutines"] == nil {
			t.Error("nothing of the process's own")
		}
		return families["took_seconds"]
	}
	testutil.AssertHasNativeHistogram(t, family(true), nil)

	for _, native := range []bool{true, false} {
		got := family(native).Metric[0].Histogram
		if len(got.Bucket) != 2 || got.GetSampleCount() != 1 || got.GetSampleSum() != 3 {
			t.Errorf("native %t: %v", native, got)
		}
		if (got.Schema != nil) != native || (len(got.PositiveSpan) > 0) != native {
			t.Errorf("native %t: %v", native, got)
		}
	}
}
