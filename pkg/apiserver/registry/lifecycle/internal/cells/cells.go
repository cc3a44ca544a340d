// Package cells prints what EvictionRequests and Evictions have in common.
package cells

import (
	"fmt"

	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Target returns the name and the kind of what is to be evicted.
func Target(pod *lifecyclev1alpha1.EvictionPodReference) (name, kind string) {
	if pod == nil {
		return "<unset>", "<unset>"
	}
	return pod.Name, "Pod"
}

// State says in a word how an eviction stands.
func State(observed *int64, conditions []metav1.Condition) string {
	for _, kind := range []lifecyclev1alpha1.EvictionConditionType{lifecyclev1alpha1.EvictionConditionTargetEvicted, lifecyclev1alpha1.EvictionConditionFailed} {
		if c := meta.FindStatusCondition(conditions, string(kind)); c != nil && c.Status == metav1.ConditionTrue {
			return fmt.Sprintf("%s (%s)", c.Type, c.Reason)
		}
	}
	if ptr.Deref(observed, 0) > 0 {
		return "Progressing"
	}
	return "Pending"
}
