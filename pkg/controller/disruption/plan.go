package disruption

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// confirmation is how long a pod that is to be disrupted has until its deletion is seen. After that the
// disruption counts as not having taken place.
const confirmation = 2 * time.Minute

// needsScale reports whether a budget is a share of what the owners of its pods mean to have.
func needsScale(b *policyv1.PodDisruptionBudget) bool {
	return b.Spec.MaxUnavailable != nil || b.Spec.MinAvailable != nil && b.Spec.MinAvailable.Type == intstr.String
}

// limits returns how many pods there are to be, and how many of them healthy. scale is what the pods' owners
// mean to have.
func limits(b *policyv1.PodDisruptionBudget, there, scale int) (expected, healthy int, err error) {
	switch limit := b.Spec; {
	case limit.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(limit.MaxUnavailable, scale, true)
		if err != nil {
			return 0, 0, fmt.Errorf("spec.maxUnavailable: %w", err)
		}
		return scale, max(0, scale-n), nil
	case limit.MinAvailable == nil:
		return 0, 0, nil
	case limit.MinAvailable.Type == intstr.Int:
		return there, limit.MinAvailable.IntValue(), nil
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, scale, true)
	if err != nil {
		return 0, 0, fmt.Errorf("spec.minAvailable: %w", err)
	}
	return scale, n, nil
}

// plan is what to do about a budget.
type plan struct {
	status policyv1.PodDisruptionBudgetStatus
	// kept are pods that were to be deleted, and were not.
	kept  []*corev1.Pod
	again time.Duration
}

// decide counts the pods of a budget.
func decide(b *policyv1.PodDisruptionBudget, selected []*corev1.Pod, scale int, now time.Time) (*plan, error) {
	expected, desired, err := limits(b, len(selected), scale)
	if err != nil {
		return nil, err
	}
	p := &plan{}
	p.status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: b.Generation,
		ExpectedPods:       int32(expected),
		DesiredHealthy:     int32(desired),
		Conditions:         b.DeepCopy().Status.Conditions,
	}
	healthy := 0
	for _, pod := range selected {
		if pod.DeletionTimestamp != nil {
			continue
		}
		if at, ok := b.Status.DisruptedPods[pod.Name]; ok {
			left := at.Add(confirmation).Sub(now)
			if left > 0 {
				if p.status.DisruptedPods == nil {
					p.status.DisruptedPods = map[string]metav1.Time{}
				}
				p.status.DisruptedPods[pod.Name] = at
				if p.again == 0 || left < p.again {
					p.again = left
				}
				continue
			}
			p.kept = append(p.kept, pod)
		}
		if pods.IsReady(pod) {
			healthy++
		}
	}
	p.status.CurrentHealthy = int32(healthy)
	if expected > 0 {
		p.status.DisruptionsAllowed = int32(max(0, healthy-desired))
	}
	allow(&p.status)
	return p, nil
}

// allow says in a condition whether a pod may go.
func allow(s *policyv1.PodDisruptionBudgetStatus) {
	c := metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionTrue, Reason: policyv1.SufficientPodsReason, ObservedGeneration: s.ObservedGeneration,
	}
	if s.DisruptionsAllowed == 0 {
		c.Status, c.Reason = metav1.ConditionFalse, policyv1.InsufficientPodsReason
	}
	meta.SetStatusCondition(&s.Conditions, c)
}

// refuse returns the status of a budget that cannot be counted: nothing may go, and a condition says why.
func refuse(b *policyv1.PodDisruptionBudget, why error) policyv1.PodDisruptionBudgetStatus {
	s := b.DeepCopy().Status
	s.DisruptionsAllowed = 0
	s.ObservedGeneration = b.Generation
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason,
		Message: why.Error(), ObservedGeneration: b.Generation,
	})
	return s
}

// staleIn returns how long a pod is still believed that it is about to be disrupted. It reports false if it
// does not say so, or if it is true: the pod is being deleted, or has ended, or its kubelet ends it, which takes
// as long as it takes.
func staleIn(p *corev1.Pod, now time.Time) (time.Duration, bool) {
	c := pods.Condition(p, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || c.Reason == corev1.PodReasonTerminationByKubelet || !pods.IsActive(p) {
		return 0, false
	}
	return max(0, c.LastTransitionTime.Add(confirmation).Sub(now)), true
}
