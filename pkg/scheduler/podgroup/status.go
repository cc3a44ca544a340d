package podgroup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	fwk "k8s.io/kube-scheduler/framework"
)

// Condition is what the status of a group says of an attempt to schedule it.
func Condition(s *fwk.Status) metav1.Condition {
	c := metav1.Condition{Type: schedulingv1beta1.PodGroupInitiallyScheduled, Status: metav1.ConditionFalse, Message: s.Message()}
	switch {
	case s.IsSuccess():
		c.Status, c.Reason = metav1.ConditionTrue, "Scheduled"
	case s.IsRejected():
		c.Reason = schedulingv1beta1.PodGroupReasonUnschedulable
	default:
		c.Reason = schedulingv1beta1.PodGroupReasonSchedulerError
	}
	return c
}

// With returns the conditions of a group with c among them. That it was scheduled once
// is never taken back.
func With(g *schedulingv1beta1.PodGroup, c metav1.Condition) []metav1.Condition {
	conditions := slices.Clone(g.Status.Conditions)
	if c.Type == schedulingv1beta1.PodGroupInitiallyScheduled && c.Status != metav1.ConditionTrue && meta.IsStatusConditionTrue(conditions, c.Type) {
		return conditions
	}
	c.ObservedGeneration = g.Generation
	meta.SetStatusCondition(&conditions, c)
	return conditions
}

// Tell writes a condition into the status of a group, if that changes anything. The
// patch carries the UID, so that it cannot hit another group of the same name.
func Tell(ctx context.Context, client kubernetes.Interface, g *schedulingv1beta1.PodGroup, c metav1.Condition) error {
	conditions := With(g, c)
	if slices.Equal(conditions, g.Status.Conditions) {
		return nil
	}
	before, err := json.Marshal(schedulingv1beta1.PodGroup{Status: schedulingv1beta1.PodGroupStatus{Conditions: g.Status.Conditions}})
	if err != nil {
		return fmt.Errorf("making a patch: %w", err)
	}
	after, err := json.Marshal(schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{UID: g.UID}, Status: schedulingv1beta1.PodGroupStatus{Conditions: conditions}})
	if err != nil {
		return fmt.Errorf("making a patch: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, &schedulingv1beta1.PodGroup{})
	if err != nil {
		return fmt.Errorf("making a patch: %w", err)
	}
	_, err = client.SchedulingV1beta1().PodGroups(g.Namespace).Patch(ctx, g.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
