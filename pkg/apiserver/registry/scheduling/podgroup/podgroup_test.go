package podgroup

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestState(t *testing.T) {
	scheduled := func(s metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{Type: "PodGroupInitiallyScheduled", Status: s, Reason: "R"}
	}
	for want, conditions := range map[string][]metav1.Condition{
		"Pending":               {{Type: "Other", Status: "True"}},
		"Scheduled":             {scheduled("True")},
		"Unschedulable":         {scheduled("False")},
		"PreemptionByScheduler": {scheduled("True"), {Type: "DisruptionTarget", Status: "True", Reason: "PreemptionByScheduler"}},
	} {
		if got := state(conditions); got != want {
			t.Errorf("%v: %s, want %s", conditions, got, want)
		}
	}
}
