// Package podgroup knows the pod groups of the cluster: which pods name a group, how far
// they have got, and the PodGroup object itself.
package podgroup

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
)

// KeyOf returns the name of the group that a pod is of; false if it is of none.
func KeyOf(pod *v1.Pod) (types.NamespacedName, bool) {
	g := pod.Spec.SchedulingGroup
	if g == nil || g.PodGroupName == nil {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: pod.Namespace, Name: *g.PodGroupName}, true
}

// Priority is that of a group.
func Priority(g *schedulingv1beta1.PodGroup) int32 {
	if g.Spec.Priority == nil {
		return 0
	}
	return *g.Spec.Priority
}

// DisruptedTogether says that all pods of a group go if one must.
func DisruptedTogether(g *schedulingv1beta1.PodGroup) bool {
	return g.Spec.DisruptionMode != nil && g.Spec.DisruptionMode.All != nil
}

// TopologyKey is the label whose value all nodes of a group share; empty if any will do.
func TopologyKey(g *schedulingv1beta1.PodGroup) string {
	if c := g.Spec.SchedulingConstraints; c != nil && len(c.Topology) > 0 {
		return c.Topology[0].Key
	}
	return ""
}

// Info is a group, and those of its pods that are tried now.
type Info struct {
	Group *schedulingv1beta1.PodGroup
	Pods  []*v1.Pod
}

var _ fwk.PodGroupInfo = &Info{}

// GetUnscheduledPods returns the pods that are tried, in their order.
func (i *Info) GetUnscheduledPods() []*v1.Pod { return i.Pods }

// GetName returns the name of the group.
func (i *Info) GetName() string { return i.Group.Name }

// GetNamespace returns the namespace of the group.
func (i *Info) GetNamespace() string { return i.Group.Namespace }

// GetType says that this is no group of groups.
func (i *Info) GetType() fwk.EntityKeyType { return fwk.PodGroupKeyType }

// GetKey names the group among all that can be scheduled.
func (i *Info) GetKey() string { return fwk.PodGroupKey(i.Group.Namespace, i.Group.Name).String() }

// GetPodGroup returns the object.
func (i *Info) GetPodGroup() *schedulingv1beta1.PodGroup { return i.Group }

// GetCompositePodGroup returns nil: this is no group of groups.
func (i *Info) GetCompositePodGroup() *schedulingv1alpha3.CompositePodGroup { return nil }

// GetChildren returns nil, likewise.
func (i *Info) GetChildren() []fwk.PodGroupInfo { return nil }

// Validate says what keeps the pods from being scheduled together, beside those of the
// group that have a node already.
func (i *Info) Validate(scheduled []*v1.Pod, preemptionPolicies bool) error {
	if len(i.Pods) == 0 {
		return fmt.Errorf("no pods of pod group %s to schedule", i.Group.Name)
	}
	first := i.Pods[0]
	for _, list := range [][]*v1.Pod{i.Pods, scheduled} {
		for _, p := range list {
			if p.Spec.SchedulerName != first.Spec.SchedulerName {
				return fmt.Errorf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q", p.Spec.SchedulerName, first.Spec.SchedulerName)
			}
			if a, b := corev1helpers.PodPriority(p), corev1helpers.PodPriority(first); a != b {
				return fmt.Errorf("all pods in a single pod group should have the same .spec.priority set, got: %d and %d", a, b)
			}
			if a, b := preemption(p), preemption(first); a != b {
				return fmt.Errorf("all pods in a single pod group should have the same .spec.preemptionPolicy set, got: %q and %q", a, b)
			}
		}
	}
	if a, b := corev1helpers.PodPriority(first), Priority(i.Group); a != b {
		return fmt.Errorf("pods should have the .spec.priority of their pod group, got: %d and %d", a, b)
	}
	if a, b := preemption(first), PreemptionPolicy(i.Group); preemptionPolicies && a != b {
		return fmt.Errorf("pods should have the .spec.preemptionPolicy of their pod group, got: %q and %q", a, b)
	}
	return nil
}

func preemption(pod *v1.Pod) v1.PreemptionPolicy {
	if pod.Spec.PreemptionPolicy == nil {
		return v1.PreemptLowerPriority
	}
	return *pod.Spec.PreemptionPolicy
}

// PreemptionPolicy is that of a group.
func PreemptionPolicy(g *schedulingv1beta1.PodGroup) v1.PreemptionPolicy {
	if g.Spec.PreemptionPolicy == nil {
		return v1.PreemptLowerPriority
	}
	return v1.PreemptionPolicy(*g.Spec.PreemptionPolicy)
}
