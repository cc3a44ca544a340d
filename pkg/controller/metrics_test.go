package controller_test

import (
	"testing"

	"k8s.io/component-base/metrics/legacyregistry"
)

// What queues do is known by the names that dashboards ask for.
func testMetrics(t *testing.T, _ *cluster) {
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	queues := map[string]bool{}
	for _, f := range families {
		if f.GetName() == "workqueue_adds_total" {
			for _, m := range f.GetMetric() {
				queues[m.GetLabel()[0].GetValue()] = true
			}
		}
	}
	for _, name := range []string{"deployment", "replicaset", "claims", "volumes", "resourcequota_primary"} {
		if !queues[name] {
			t.Errorf("no queue is called %s: %v", name, queues)
		}
	}
}
