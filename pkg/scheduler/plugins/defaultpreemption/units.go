package defaultpreemption

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// A unit is what is evicted as one: a pod, all pods of a group, or all pods below a group of groups.
type unit struct {
	pods     []fwk.PodInfo
	group    *schedulingv1beta1.PodGroup // of the first pod; nil for a pod of none
	whole    fwk.EntityKey               // whose pods all are in the unit; none for a pod that can go by itself
	priority int32
	// violations are the pods whose eviction breaks a disruption budget.
	violations int
}

// unitsBelow returns what may be evicted for a priority, the most important first. groups
// are nil while the GenericWorkload gate is off.
func unitsBelow(nodes []fwk.NodeInfo, priority int32, groups fwk.PodGroupManager) []*unit {
	var units []*unit
	whole := map[fwk.EntityKey]*unit{}
	for _, n := range nodes {
		for _, info := range n.GetPods() {
			u := unitOf(info.GetPod(), groups)
			if u.priority >= priority {
				continue
			}
			if u.isWhole() {
				if known := whole[u.whole]; known != nil {
					u = known
				}
				whole[u.whole] = u
			}
			if u.pods = append(u.pods, info); len(u.pods) == 1 {
				units = append(units, u)
			}
		}
	}
	slices.SortStableFunc(units, moreImportant)
	return units
}

// unitOf returns the unit that a pod belongs to, without its pods: that of the highest group above it that
// goes as a whole. It has the priority of the root.
func unitOf(pod *v1.Pod, groups fwk.PodGroupManager) *unit {
	u := &unit{priority: corev1helpers.PodPriority(pod)}
	key, ok := podgroup.EntityOf(pod)
	if !ok || groups == nil {
		return u
	}
	g, err := groups.PodGroups().Get(key.Namespace, key.Name)
	if err != nil {
		return u
	}
	u.group, u.priority = g, podgroup.Priority(g)
	if podgroup.DisruptedTogether(g) {
		u.whole = key
	}
	if _, _, err := groups.GetRootKeyForGroup(key); err != nil {
		return u // in a circle
	}
	for parent := g.Spec.ParentCompositePodGroupName; parent != nil; {
		above, err := groups.CompositePodGroups().Get(key.Namespace, *parent)
		if err != nil {
			break // it is not there, or there are no groups of groups
		}
		u.priority = ptr.Deref(above.Spec.Priority, 0)
		if above.Spec.DisruptionMode != nil && above.Spec.DisruptionMode.All != nil {
			u.whole = fwk.CompositePodGroupKey(above.Namespace, above.Name)
		}
		parent = above.Spec.ParentCompositePodGroupName
	}
	return u
}

func (u *unit) isWhole() bool { return u.whole != fwk.EntityKey{} }

// moreImportant orders units: by priority, groups of groups before groups and these before pods on their
// own, large groups before small ones, and then by how long they have run.
func moreImportant(a, b *unit) int {
	size := func(u *unit) int {
		if u.isWhole() {
			return len(u.pods)
		}
		return 1
	}
	rank := func(u *unit) int {
		switch {
		case u.whole.Type == fwk.CompositePodGroupKeyType:
			return 2
		case u.group != nil:
			return 1
		}
		return 0
	}
	return cmp.Or(-cmp.Compare(a.priority, b.priority), -cmp.Compare(rank(a), rank(b)), -cmp.Compare(size(a), size(b)), a.since().Compare(b.since()))
}

// since is when the first pod of the unit began.
func (u *unit) since() time.Time {
	first := startTime(u.pods[0].GetPod())
	for _, p := range u.pods[1:] {
		if at := startTime(p.GetPod()); at.Before(first) {
			first = at
		}
	}
	return first
}

// splitUnits finds the units with a pod whose eviction breaks a disruption budget.
func splitUnits(units []*unit, budgets []*policyv1.PodDisruptionBudget) (protected, others []*unit) {
	var pods []fwk.PodInfo
	for _, u := range units {
		pods = append(pods, u.pods...)
	}
	breaking, _ := splitByBudget(pods, budgets)
	uids := make(map[types.UID]bool, len(breaking))
	for _, p := range breaking {
		uids[p.GetPod().UID] = true
	}
	for _, u := range units {
		u.violations = 0
		for _, p := range u.pods {
			if uids[p.GetPod().UID] {
				u.violations++
			}
		}
		if u.violations > 0 {
			protected = append(protected, u)
		} else {
			others = append(others, u)
		}
	}
	return protected, others
}

// podsOf returns the pods of units.
func podsOf(units []*unit) []*v1.Pod {
	var out []*v1.Pod
	for _, u := range units {
		for _, p := range u.pods {
			out = append(out, p.GetPod())
		}
	}
	return out
}
