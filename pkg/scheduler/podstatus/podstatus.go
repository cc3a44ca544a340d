// Package podstatus writes what the scheduler says of pods into their status.
package podstatus

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
)

// SetCondition puts c into the status and reports whether that changed anything. The
// time of transition moves only when the condition's status does.
func SetCondition(status *v1.PodStatus, c v1.PodCondition, now metav1.Time) bool {
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
			return false
		}
		*old = c
		return true
	}
	status.Conditions = append(status.Conditions, c)
	return true
}

// Patch gives pod a new status. The patch carries the UID, so that it cannot hit a pod
// of the same name that came since.
func Patch(ctx context.Context, client kubernetes.Interface, pod *v1.Pod, status *v1.PodStatus) error {
	before, err := json.Marshal(v1.Pod{Status: pod.Status})
	if err != nil {
		return fmt.Errorf("making a patch: %w", err)
	}
	after, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: pod.UID}, Status: *status})
	if err != nil {
		return fmt.Errorf("making a patch: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, &v1.Pod{})
	if err != nil {
		return fmt.Errorf("making a patch: %w", err)
	}
	_, err = client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
