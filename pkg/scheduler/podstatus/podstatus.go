// Package podstatus writes what the scheduler says of pods into their status.
package podstatus

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// A Change is what is to be different about a pod's status.
type Change struct {
	// Condition is one that is new, or has changed.
	Condition *v1.PodCondition
	// NominatedNodeName is the node that the pod is promised now, empty for none.
	NominatedNodeName *string
	// ExtendedResourceClaim says which claim has the devices for the pod's extended resources.
	ExtendedResourceClaim *v1.PodExtendedResourceClaimStatus
}

// SetCondition has c in the status, unless it is there already. The time of transition
// moves only when the condition's status does.
func (ch *Change) SetCondition(status *v1.PodStatus, c v1.PodCondition, now metav1.Time) {
	c.LastTransitionTime = now
	for i := range status.Conditions {
		old := &status.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		c.LastProbeTime = old.LastProbeTime
		if *old == c {
			return
		}
		break
	}
	ch.Condition = &c
}

// SetNominatedNodeName has the node promised, unless it is already.
func (ch *Change) SetNominatedNodeName(status *v1.PodStatus, node string) {
	if status.NominatedNodeName != node {
		ch.NominatedNodeName = &node
	}
}

// Empty reports whether nothing is to be different.
func (ch *Change) Empty() bool { return *ch == (Change{}) }

// order is that of the conditions, by their types: a new one is the last.
func (ch *Change) order(conditions []v1.PodCondition) []map[string]v1.PodConditionType {
	var order []map[string]v1.PodConditionType
	known := false
	for _, c := range conditions {
		order = append(order, map[string]v1.PodConditionType{"type": c.Type})
		known = known || c.Type == ch.Condition.Type
	}
	if !known {
		order = append(order, map[string]v1.PodConditionType{"type": ch.Condition.Type})
	}
	return order
}

// Patch makes the change. The patch carries the UID, so that it cannot hit a pod of the
// same name that came since. Conditions are merged by their types.
func (ch *Change) Patch(ctx context.Context, client kubernetes.Interface, pod *v1.Pod) error {
	status := map[string]any{}
	if ch.Condition != nil {
		status["conditions"] = []*v1.PodCondition{ch.Condition}
		status["$setElementOrder/conditions"] = ch.order(pod.Status.Conditions)
	}
	if node := ch.NominatedNodeName; node != nil {
		status["nominatedNodeName"] = node
		if *node == "" {
			status["nominatedNodeName"] = nil // takes it away
		}
	}
	if claim := ch.ExtendedResourceClaim; claim != nil {
		status["extendedResourceClaimStatus"] = claim
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("making a patch: %w", err)
	}
	_, err = client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
