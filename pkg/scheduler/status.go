package scheduler

import (
	"encoding/json"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

const patchType = types.StrategicMergePatchType

// setCondition puts c into the status and reports whether that changed anything. The
// time of transition moves only when the condition's status does.
func setCondition(status *v1.PodStatus, c v1.PodCondition, now metav1.Time) bool {
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

// statusPatch is what turns the status of old into that of pod. It carries the UID, so
// that it cannot hit a pod of the same name that came since.
func statusPatch(old, pod *v1.Pod) ([]byte, error) {
	before, err := json.Marshal(v1.Pod{Status: old.Status})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: old.UID}, Status: pod.Status})
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(before, after, &v1.Pod{})
}
