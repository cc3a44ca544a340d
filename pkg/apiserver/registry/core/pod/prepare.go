package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/util/qos"
)

// prepare gives a new pod its first status and settles what its spec leaves to the
// moment of creation.
func prepare(_ context.Context, p *corev1.Pod) {
	p.Status.Phase = corev1.PodPending
	p.Status.QOSClass = qos.ComputePodQOS(p)
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type:               corev1.PodScheduled,
			Status:             corev1.ConditionFalse,
			Reason:             corev1.PodReasonSchedulingGated,
			Message:            "Scheduling is blocked due to non-empty scheduling gates",
			LastTransitionTime: metav1.Now(),
		})
	}
	settleLabelKeys(p)
}

// settleLabelKeys turns matchLabelKeys and mismatchLabelKeys into requirements on
// the values that the pod's own labels have now.
func settleLabelKeys(p *corev1.Pod) {
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		require(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn, p.Labels)
	}
	a := p.Spec.Affinity
	if a == nil {
		return
	}
	if a.PodAffinity != nil {
		settleTerms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, p.Labels)
	}
	if a.PodAntiAffinity != nil {
		settleTerms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, p.Labels)
	}
}

func settleTerms(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, labels map[string]string) {
	settle := func(t *corev1.PodAffinityTerm) {
		require(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn, labels)
		require(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn, labels)
	}
	for i := range required {
		settle(&required[i])
	}
	for i := range preferred {
		settle(&preferred[i].PodAffinityTerm)
	}
}

// require adds the requirements; a nil selector matches nothing and stays so.
func require(s *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator, labels map[string]string) {
	if s == nil {
		return
	}
	for _, key := range keys {
		if value, ok := labels[key]; ok {
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
		}
	}
}

// keepPodResources keeps the resources of the whole pod when a client that does
// not know the field leaves it out.
func keepPodResources(obj, old *corev1.Pod) {
	if obj.Spec.Resources == nil && old.Spec.Resources != nil {
		obj.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
}
