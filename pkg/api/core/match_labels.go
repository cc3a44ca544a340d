package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MergeMatchLabelKeys writes the labels of a new pod that its affinity and its
// spread over the cluster refer to by key into their selectors, so that who reads
// the selectors need not know the keys. A key without a label, or without a
// selector, is left alone.
func MergeMatchLabelKeys(pod *corev1.Pod) {
	merge := func(s *metav1.LabelSelector, keys []string, operator metav1.LabelSelectorOperator) {
		if s == nil {
			return
		}
		for _, k := range keys {
			if v, ok := pod.Labels[k]; ok {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: operator, Values: []string{v}})
			}
		}
	}
	EachPodAffinityTerm(pod.Spec.Affinity, nil, func(t *corev1.PodAffinityTerm, _ *int32, _ *field.Path) {
		merge(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		merge(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	})
	for i := range pod.Spec.TopologySpreadConstraints {
		c := &pod.Spec.TopologySpreadConstraints[i]
		merge(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}
