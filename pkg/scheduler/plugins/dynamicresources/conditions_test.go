package dynamicresources

import (
	"errors"
	"fmt"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
)

func TestReady(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	claim := func(age time.Duration, share *types.UID, told ...resourceapi.AllocatedDeviceStatus) *resourceapi.ResourceClaim {
		at := metav1.NewTime(now.Add(-age))
		c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}}
		c.Status.Allocation = &resourceapi.AllocationResult{AllocationTimestamp: &at, Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{
			{Driver: "d", Pool: "p", Device: "plain"},
			{Driver: "d", Pool: "p", Device: "far", ShareID: share, BindingConditions: []string{"attached", "warm"}, BindingFailureConditions: []string{"broken"}},
		}}}
		c.Status.Devices = told
		return c
	}
	device := func(share *string, conditions ...string) resourceapi.AllocatedDeviceStatus {
		s := resourceapi.AllocatedDeviceStatus{Driver: "d", Pool: "p", Device: "far", ShareID: share}
		for _, c := range conditions {
			s.Conditions = append(s.Conditions, metav1.Condition{Type: c, Status: metav1.ConditionTrue})
		}
		return s
	}
	uid, id, other := types.UID("s"), "s", "t"
	for _, tc := range []struct {
		name  string
		claim *resourceapi.ResourceClaim
		want  bool
		err   string
	}{
		{"nothing is said", claim(time.Minute, nil), false, ""},
		{"half", claim(time.Minute, nil, device(nil, "attached")), false, ""},
		{"all", claim(time.Minute, nil, device(nil, "attached", "warm")), true, ""},
		{"all, late", claim(time.Hour, nil, device(nil, "attached", "warm")), true, ""},
		{"at the last moment", claim(10*time.Minute, nil, device(nil, "attached")), false, ""},
		{"too late", claim(10*time.Minute+time.Second, nil, device(nil, "attached")), false, "device binding timeout: claim=c"},
		{"failed", claim(time.Minute, nil, device(nil, "attached", "broken")), false, "claim c binding failed: device d/p/far has condition broken"},
		{"failed after all", claim(time.Minute, nil, device(nil, "attached", "warm", "broken")), false, "claim c binding failed: device d/p/far has condition broken"},
		{"this share of the device", claim(time.Minute, &uid, device(&id, "attached", "warm")), true, ""},
		{"another share of the device", claim(time.Minute, &uid, device(&other, "attached", "warm")), false, ""},
	} {
		got, err := ready(tc.claim, now, 10*time.Minute)
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if got != tc.want || msg != tc.err {
			t.Errorf("%s: %v, %q, want %v, %q", tc.name, got, msg, tc.want, tc.err)
		}
	}
}

func TestWaitedIsCounted(t *testing.T) {
	claim := &resourceapi.ResourceClaim{}
	claim.Status.Allocation = &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{
		{Driver: "plain"}, {Driver: "far", BindingConditions: []string{"attached"}}, {Driver: "far", BindingConditions: []string{"attached"}},
	}}}
	metrics.NewKubeRegistry().MustRegister(Metrics()...)
	r := sharedRecorder()
	for status, err := range map[string]error{"success": nil, "timeout": fmt.Errorf("%w: claim=c", errBindingTimeout), "failure": errors.New("broken")} {
		r.waited("profile-"+status, []*resourceapi.ResourceClaim{claim}, time.Second, err)
		for driver, want := range map[string]float64{"far": 1, "plain": 0} {
			if got, err := testutil.GetCounterMetricValue(r.allocations.WithLabelValues("profile-"+status, driver, status)); err != nil || got != want {
				t.Errorf("%s, driver %s: %v, %v, want %v", status, driver, got, err, want)
			}
		}
	}
}
