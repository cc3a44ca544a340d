package podstatus

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSetCondition(t *testing.T) {
	then, now := metav1.Unix(1, 0), metav1.Unix(2, 0)
	status := &v1.PodStatus{}
	c := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: "Unschedulable", Message: "a"}
	if !SetCondition(status, c, then) || SetCondition(status, c, now) {
		t.Error("a condition counts as changed exactly when it is new")
	}
	c.Message = "b"
	if !SetCondition(status, c, now) || status.Conditions[0].LastTransitionTime != then {
		t.Errorf("another message is a change but no transition: %v", status.Conditions)
	}
}
