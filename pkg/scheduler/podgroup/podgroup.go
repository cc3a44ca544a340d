// Package podgroup knows the pod groups of the cluster: which pods name a group, how far
// they have got, and the PodGroup object itself.
package podgroup

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"
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
func Priority(g *schedulingv1beta1.PodGroup) int32 { return ptr.Deref(g.Spec.Priority, 0) }

// DisruptedTogether says that all pods of a group go if one must.
func DisruptedTogether(g *schedulingv1beta1.PodGroup) bool {
	return g.Spec.DisruptionMode != nil && g.Spec.DisruptionMode.All != nil
}

// Info is a group, with those of its pods that are tried now, or a group of groups.
type Info struct {
	Group     *schedulingv1beta1.PodGroup           // nil for a group of groups
	Composite *schedulingv1alpha3.CompositePodGroup // nil for a PodGroup
	Children  []*Info                               // below a group of groups
	Pods      []*v1.Pod                             // of a group of groups, those of its children
}

var _ fwk.PodGroupInfo = &Info{}

// GetUnscheduledPods returns the pods that are tried, in their order.
func (i *Info) GetUnscheduledPods() []*v1.Pod { return i.Pods }

// object is the group or the group of groups.
func (i *Info) object() metav1.Object {
	if i.Composite != nil {
		return i.Composite
	}
	return i.Group
}

// GetName returns the name of the group.
func (i *Info) GetName() string { return i.object().GetName() }

// GetNamespace returns the namespace of the group.
func (i *Info) GetNamespace() string { return i.object().GetNamespace() }

// GetType says whether this is a group of groups.
func (i *Info) GetType() fwk.EntityKeyType {
	if i.Composite != nil {
		return fwk.CompositePodGroupKeyType
	}
	return fwk.PodGroupKeyType
}

// Key names the group among all that can be scheduled.
func (i *Info) Key() fwk.EntityKey { return KeyOfInfo(i) }

// GetKey is Key as text.
func (i *Info) GetKey() string { return i.Key().String() }

// GetPodGroup returns the object; nil for a group of groups.
func (i *Info) GetPodGroup() *schedulingv1beta1.PodGroup { return i.Group }

// GetCompositePodGroup returns the object of a group of groups; nil for any other.
func (i *Info) GetCompositePodGroup() *schedulingv1alpha3.CompositePodGroup { return i.Composite }

// GetChildren returns what is below a group of groups.
func (i *Info) GetChildren() []fwk.PodGroupInfo {
	children := make([]fwk.PodGroupInfo, len(i.Children))
	for n, c := range i.Children {
		children[n] = c
	}
	return children
}

// KeyOfInfo names a group among all that can be scheduled.
func KeyOfInfo(i fwk.PodGroupInfo) fwk.EntityKey {
	return fwk.EntityKey{Type: i.GetType(), Namespace: i.GetNamespace(), Name: i.GetName()}
}

// TopologyKey is the label whose value all nodes of a group share; empty if any will do.
func TopologyKey(i fwk.PodGroupInfo) string {
	if c := i.GetCompositePodGroup(); c != nil {
		if t := c.Spec.SchedulingConstraints; t != nil && len(t.Topology) > 0 {
			return t.Topology[0].Key
		}
	} else if t := i.GetPodGroup().Spec.SchedulingConstraints; t != nil && len(t.Topology) > 0 {
		return t.Topology[0].Key
	}
	return ""
}

// PriorityOf is that of a group or a group of groups.
func PriorityOf(i fwk.PodGroupInfo) int32 {
	if c := i.GetCompositePodGroup(); c != nil {
		return ptr.Deref(c.Spec.Priority, 0)
	}
	return Priority(i.GetPodGroup())
}

// PreemptionPolicyOf is that of a group or a group of groups.
func PreemptionPolicyOf(i fwk.PodGroupInfo) v1.PreemptionPolicy {
	if c := i.GetCompositePodGroup(); c != nil {
		return v1.PreemptionPolicy(ptr.Deref(c.Spec.PreemptionPolicy, schedulingv1alpha3.PreemptLowerPriority))
	}
	return v1.PreemptionPolicy(ptr.Deref(i.GetPodGroup().Spec.PreemptionPolicy, schedulingv1beta1.PreemptLowerPriority))
}

// Validate says what keeps the pods from being scheduled together, beside those of the
// group that have a node already.
func (i *Info) Validate(scheduled []*v1.Pod, preemptionPolicies bool) error {
	if len(i.Pods) == 0 {
		return fmt.Errorf("no pods of pod group %s to schedule", i.GetName())
	}
	first := i.Pods[0]
	for _, list := range [][]*v1.Pod{i.Pods, scheduled} {
		for _, p := range list {
			if p.Spec.SchedulerName != first.Spec.SchedulerName {
				return fmt.Errorf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q", p.Spec.SchedulerName, first.Spec.SchedulerName)
			}
			if a, b := corev1helpers.PodPriority(p), PriorityOf(i); a != b {
				return fmt.Errorf("all pods in a single pod group should have the same priority as the pod group's priority, got %d and %d", a, b)
			}
			if a, b := preemption(p), preemption(first); a != b {
				return fmt.Errorf("all pods in a single pod group should have the same .spec.preemptionPolicy set, got: %q and %q", a, b)
			}
		}
	}
	if a, b := preemption(first), PreemptionPolicyOf(i); preemptionPolicies && a != b {
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
