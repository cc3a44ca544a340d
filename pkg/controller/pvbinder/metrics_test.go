package pvbinder

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestOperations(t *testing.T) {
	r := metrics.NewKubeRegistry()
	m := newMeasures(r, fake.NewClientBuilder().Build())
	now := clocktesting.NewFakePassiveClock(time.Unix(0, 0))
	m.clock = now
	pass := func(seconds int) { now.SetTime(now.Now().Add(time.Duration(seconds) * time.Second)) }
	claim, other, volume := types.NamespacedName{Namespace: "ns", Name: "a"}, types.NamespacedName{Namespace: "ns", Name: "b"}, types.NamespacedName{Name: "v"}

	m.begin(claim, "csi.example.com", provision)
	pass(20)
	m.begin(claim, "csi.example.com", provision) // it was asked before
	m.begin(other, "csi.example.com", provision)
	m.begin(volume, "csi.example.com", remove)
	pass(20)
	m.end(claim, provision, true)
	m.end(claim, provision, true)  // bound already
	m.end(other, provision, false) // deleted before it was bound
	m.end(volume, provision, true) // is not what is waited for
	m.end(volume, remove, true)
	m.fail("kubernetes.io/host-path", remove)
	m.gaveClass(nil)
	m.gaveClass(errors.New("conflict"))
	if len(m.waiting) > 0 {
		t.Errorf("still waiting: %v", m.waiting)
	}
	if err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP retroactive_storageclass_errors_total [ALPHA] Number of times that a claim could not be given the default class
# TYPE retroactive_storageclass_errors_total counter
retroactive_storageclass_errors_total 1
# HELP retroactive_storageclass_total [ALPHA] Number of claims without a class that have got the default one
# TYPE retroactive_storageclass_total counter
retroactive_storageclass_total 1
# HELP volume_operation_errors_total [ALPHA] Number of operations on volumes that failed
# TYPE volume_operation_errors_total counter
volume_operation_errors_total{operation_name="delete",plugin_name="kubernetes.io/host-path"} 1
# HELP volume_operation_total_errors [ALPHA] Number of operations on volumes that failed
# TYPE volume_operation_total_errors counter
volume_operation_total_errors{operation_name="delete",plugin_name="kubernetes.io/host-path"} 1
`), "retroactive_storageclass_errors_total", "retroactive_storageclass_total", "volume_operation_errors_total", "volume_operation_total_errors"); err != nil {
		t.Error(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "volume_operation_total_seconds" {
			for _, s := range f.GetMetric() {
				got[s.GetLabel()[0].GetValue()] = s.GetHistogram().GetSampleSum()
			}
		}
	}
	if len(got) != 2 || got[provision] != 40 || got[remove] != 20 {
		t.Errorf("seconds: %v", got)
	}
}
