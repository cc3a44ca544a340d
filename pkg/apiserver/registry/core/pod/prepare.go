package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/util/qos"

	"github.com/leme-k8s/leme/pkg/api/core"
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
	core.MergeMatchLabelKeys(p)
}

// keepPodResources keeps the resources of the whole pod when a client that does
// not know the field leaves it out.
func keepPodResources(obj, old *corev1.Pod) {
	if obj.Spec.Resources == nil && old.Spec.Resources != nil {
		obj.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
}
