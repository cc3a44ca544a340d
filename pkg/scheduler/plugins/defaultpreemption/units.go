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

	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// A unit is what is evicted as one: a pod, or all pods of a group.
type unit struct {
	pods     []fwk.PodInfo
	group    *schedulingv1beta1.PodGroup // nil for a pod of none
	whole    bool                        // all pods of the group
	priority int32
	// violations are the pods whose eviction breaks a disruption budget.
	violations int
}

// unitsBelow returns what may be evicted for a priority, the most important first. groups
// are nil while the GenericWorkload gate is off.
func unitsBelow(nodes []fwk.NodeInfo, priority int32, groups fwk.PodGroupLister) []*unit {
	var units []*unit
	whole := map[*schedulingv1beta1.PodGroup]*unit{}
	for _, n := range nodes {
		for _, info := range n.GetPods() {
			u := unitOf(info.GetPod(), groups)
			if u.priority >= priority {
				continue
			}
			if u.whole {
				if known := whole[u.group]; known != nil {
					u = known
				}
				whole[u.group] = u
			}
			if u.pods = append(u.pods, info); len(u.pods) == 1 {
				units = append(units, u)
			}
		}
	}
	slices.SortStableFunc(units, moreImportant)
	return units
}

// unitOf returns the unit that a pod belongs to, without its pods.
func unitOf(pod *v1.Pod, groups fwk.PodGroupLister) *unit {
	u := &unit{priority: corev1helpers.PodPriority(pod)}
	if key, ok := podgroup.KeyOf(pod); ok && groups != nil {
		if g, err := groups.Get(key.Namespace, key.Name); err == nil {
			u.group, u.priority, u.whole = g, podgroup.Priority(g), podgroup.DisruptedTogether(g)
		}
	}
	return u
}

// moreImportant orders units: by priority, groups before pods on their own, large groups
// before small ones, and then by how long they have run.
func moreImportant(a, b *unit) int {
	size := func(u *unit) int {
		if u.whole {
			return len(u.pods)
		}
		return 1
	}
	grouped := func(u *unit) int {
		if u.group != nil {
			return 1
		}
		return 0
	}
	return cmp.Or(-cmp.Compare(a.priority, b.priority), -cmp.Compare(grouped(a), grouped(b)), -cmp.Compare(size(a), size(b)), a.since().Compare(b.since()))
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

// groupsOf returns the groups that pods on nodes are of; nil while the GenericWorkload gate is off.
func groupsOf(h fwk.Handle) fwk.PodGroupLister {
	if m := h.PodGroupManager(); m != nil {
		return m.PodGroups()
	}
	return nil
}
