package cells

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestState(t *testing.T) {
	failed := metav1.Condition{Type: "Failed", Status: "True", Reason: "EvictionInvalid"}
	evicted := metav1.Condition{Type: "TargetEvicted", Status: "True", Reason: "PodDeleted"}
	for want, tc := range map[string]struct {
		observed   *int64
		conditions []metav1.Condition
	}{
		"Pending":                    {nil, []metav1.Condition{{Type: "Failed", Status: "False"}}},
		"Progressing":                {new(int64(1)), nil},
		"Failed (EvictionInvalid)":   {new(int64(1)), []metav1.Condition{failed}},
		"TargetEvicted (PodDeleted)": {new(int64(1)), []metav1.Condition{failed, evicted}},
	} {
		if got := State(tc.observed, tc.conditions); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
