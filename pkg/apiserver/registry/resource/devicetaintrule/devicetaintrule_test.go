package devicetaintrule

import (
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStampEffect(t *testing.T) {
	at := func(seconds int64) *metav1.Time { return &metav1.Time{Time: time.Unix(seconds, 0)} }
	for name, tc := range map[string]struct {
		obj, old resourcev1.DeviceTaint
		want     int64
	}{
		"same effect":             {resourcev1.DeviceTaint{Effect: "NoSchedule", TimeAdded: at(1)}, resourcev1.DeviceTaint{Effect: "NoSchedule", TimeAdded: at(1)}, 1},
		"other effect":            {resourcev1.DeviceTaint{Effect: "NoExecute", TimeAdded: at(1)}, resourcev1.DeviceTaint{Effect: "NoSchedule", TimeAdded: at(1)}, 9},
		"other effect and time":   {resourcev1.DeviceTaint{Effect: "NoExecute", TimeAdded: at(5)}, resourcev1.DeviceTaint{Effect: "NoSchedule", TimeAdded: at(1)}, 5},
		"other time alone stands": {resourcev1.DeviceTaint{Effect: "NoSchedule", TimeAdded: at(5)}, resourcev1.DeviceTaint{Effect: "NoSchedule", TimeAdded: at(1)}, 5},
	} {
		stampEffect(&tc.obj, &tc.old, time.Unix(9, 500))
		if got := tc.obj.TimeAdded.Unix(); got != tc.want {
			t.Errorf("%s: added at %d, want %d", name, got, tc.want)
		}
	}
}
