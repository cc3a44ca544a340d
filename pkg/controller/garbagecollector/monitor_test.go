package garbagecollector

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
)

// silent is a discovery that fails.
type silent struct{ discovery.DiscoveryInterface }

func (silent) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	return nil, errors.New("no answer")
}

func TestFailedDiscoveryIsCounted(t *testing.T) {
	r := metrics.NewKubeRegistry()
	c := New(meta.NewDefaultRESTMapper(nil), silent{}, nil, record.NewFakeRecorder(1), r)
	for range 2 {
		if err := c.monitors.sync(t.Context()); err == nil {
			t.Error("no error")
		}
	}
	want := `
# HELP garbagecollector_controller_resources_sync_error_total [ALPHA] Number of times that not all resources were known
# TYPE garbagecollector_controller_resources_sync_error_total counter
garbagecollector_controller_resources_sync_error_total 2
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "garbagecollector_controller_resources_sync_error_total"); err != nil {
		t.Error(err)
	}
}
