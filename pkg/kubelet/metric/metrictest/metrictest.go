// Package metrictest reads in tests what rooms of the kubelet have counted.
package metrictest

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// A Registry is what rooms are registered with in a test.
type Registry struct{ metrics.KubeRegistry }

// New returns a Registry of some rooms.
func New(rooms ...metric.Room) Registry {
	r := Registry{metrics.NewKubeRegistry()}
	for _, room := range rooms {
		room.RegisterMetrics(r)
	}
	return r
}

// Read returns all there is, as name{label="value",…}; of a histogram, how often something was observed.
func (r Registry) Read(t testing.TB) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := f.GetName()
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			all[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// Expect compares what there is with what is wanted of it.
func (r Registry) Expect(t testing.TB, want map[string]float64) {
	t.Helper()
	got := r.Read(t)
	for key, value := range want {
		if v, ok := got[key]; !ok || v != value {
			t.Errorf("%s is %v (there: %t), not %v", key, v, ok, value)
		}
	}
	if t.Failed() {
		t.Logf("there is %v", got)
	}
}
