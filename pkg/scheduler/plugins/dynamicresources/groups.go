package dynamicresources

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// Pods of a group are tried together, and can share a claim that is allocated only while
// they are. With the DRAWorkloadResourceClaims gate (KEP-5729) a claim that the group names
// just as the pod does is reserved for the group, once, and not for each of its pods.

// mates is what is known of the claims of a group's pods during an attempt at the group. A
// nil one is of a pod that is tried on its own.
type mates struct {
	// takers are the pods for which a claim is going to be allocated, by its UID.
	takers map[types.UID]sets.Set[types.UID]
	// states is what was found out about each pod when it was tried last.
	states map[types.UID]*state
}

// Clone returns the same: there is one in an attempt.
func (m *mates) Clone() fwk.StateData { return m }

// matesOf returns what is known of the pods that a pod is tried with; nil if it is tried on its own.
func matesOf(cs fwk.CycleState) *mates {
	cycle := cs.GetPodGroupSchedulingCycle()
	if cycle == nil {
		return nil
	}
	for above := cycle.GetParentPlacementCycleState(); above != nil; above = cycle.GetParentPlacementCycleState() {
		cycle = above.GetPodGroupSchedulingCycle()
	}
	if m := known(cycle); m != nil {
		return m
	}
	m := &mates{takers: map[types.UID]sets.Set[types.UID]{}, states: map[types.UID]*state{}}
	cycle.Write(stateKey, m)
	return m
}

func known(cycle fwk.PodGroupCycleState) *mates {
	data, err := cycle.Read(stateKey)
	if err != nil {
		return nil
	}
	m, _ := data.(*mates)
	return m
}

func (m *mates) remember(pod *v1.Pod, s *state) {
	if m != nil {
		m.states[pod.UID] = s
	}
}

// allocate reports whether a claim is going to be allocated for the sake of one of them.
func (m *mates) allocate(claim types.UID) bool { return m != nil && len(m.takers[claim]) > 0 }

func (m *mates) take(claim, pod types.UID) {
	if m == nil {
		return
	}
	if m.takers[claim] == nil {
		m.takers[claim] = sets.New[types.UID]()
	}
	m.takers[claim].Insert(pod)
}

func (m *mates) giveBack(claim, pod types.UID) {
	if m != nil {
		m.takers[claim].Delete(pod)
	}
}

// asPending returns a claim with the allocation that is going to be written.
func (p *Plugin) asPending(c *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	c = c.DeepCopy()
	c.Status.Allocation = p.claims.GetPendingAllocation(c.UID)
	return c
}

// consumer names a pod as one for whom claims are reserved.
func consumer(pod *v1.Pod) resourceapi.ResourceClaimConsumerReference {
	return resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID}
}

// consumers says for whom the claims of a pod are to be reserved, by the name of the claim:
// for the pod, or for its group.
func (p *Plugin) consumers(pod *v1.Pod) (map[string]resourceapi.ResourceClaimConsumerReference, error) {
	var group *schedulingv1beta1.PodGroup
	if key, ok := podgroup.KeyOf(pod); ok && p.gates.DRAWorkloadResourceClaims && len(pod.Spec.ResourceClaims) > 0 {
		var err error
		if group, err = p.groups.PodGroups().Get(key.Namespace, key.Name); err != nil {
			return nil, fmt.Errorf("could not find PodGroup %q: %w", key, err)
		}
	}
	out := make(map[string]resourceapi.ResourceClaimConsumerReference, len(pod.Spec.ResourceClaims))
	for i := range pod.Spec.ResourceClaims {
		asked := &pod.Spec.ResourceClaims[i]
		name, _, err := resourceclaim.Name(pod, asked)
		if err != nil {
			return nil, err
		}
		if name == nil { // the template asks for none
			continue
		}
		if out[*name], err = resourceclaim.BindTo(pod, group, asked); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// What becomes of a claim of a pod whose group fits nowhere, in the words that the group's
// condition gets; nothing if they are empty.
const (
	freedOfPods  = "deallocation and deletion of ResourceClaims completed"
	freedOfGroup = "deallocation of PodGroup ResourceClaim completed"
	unreserved   = "ResourceClaim unreserved for PodGroup"
)

// fate decides what becomes of a claim of a pod whose group fits nowhere. refused says that
// the claim keeps the pod off nodes, consumer for whom it is to be reserved, and waiting
// that no pod of the group has a node.
func fate(c *resourceapi.ResourceClaim, pod *v1.Pod, consumer resourceapi.ResourceClaimConsumerReference, refused, waiting bool) string {
	others := slices.ContainsFunc(c.Status.ReservedFor, func(r resourceapi.ResourceClaimConsumerReference) bool { return r.UID != consumer.UID })
	ofGroup := consumer.Resource == "podgroups" && len(c.Status.ReservedFor) > 0 && !others
	switch {
	case c.Status.Allocation == nil:
		return ""
	case refused && idle(c, pod):
		return freedOfPods
	case !ofGroup || !waiting:
		return ""
	case refused:
		return freedOfGroup
	}
	return unreserved
}

// PodGroupPostFilter does for the pods of a group that fits nowhere what PostFilter does
// for a pod. While none of them has a node, the group also gives up what has been reserved
// for it. A group that is kept together by topology is left alone, as its claims may do
// elsewhere.
func (p *Plugin) PodGroupPostFilter(ctx context.Context, cycle fwk.PodGroupCycleState, info fwk.PodGroupInfo, _ fwk.PodGroupSchedulingFunc) (*fwk.PodGroupPostFilterResult, *fwk.Status) {
	group, m := info.GetPodGroup(), known(cycle)
	if group == nil || m == nil || p.gates.TopologyAwareWorkloadScheduling && podgroup.TopologyKey(info) != "" {
		return nil, fwk.NewStatus(fwk.Unschedulable)
	}
	pods, err := p.groups.PodGroupStates().Get(group.Namespace, group.Name)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	waiting := pods.ScheduledPodsCount() == 0
	done := sets.New[string]()
	for _, pod := range info.GetUnscheduledPods() {
		s := m.states[pod.UID]
		if s == nil {
			continue
		}
		if s.leftOver != nil {
			done.Insert(freedOfPods)
			if !framework.IsGroupTrial(cycle) {
				if err := p.remove(ctx, s.leftOver); err != nil {
					return nil, fwk.AsStatus(err)
				}
			}
		}
		for i, c := range s.claims {
			if s.shared.Has(i) {
				continue
			}
			of := func(c *resourceapi.ResourceClaim) string {
				return fate(c, pod, s.consumers[c.Name], s.refused.Has(i), waiting)
			}
			what := of(c)
			if what == "" {
				continue
			}
			done.Insert(what)
			if framework.IsGroupTrial(cycle) {
				continue
			}
			free := p.deallocate
			if what == unreserved {
				free = p.unreserve
			}
			if err := free(ctx, c, func(now *resourceapi.ResourceClaim) bool { return of(now) == what }); err != nil {
				return nil, fwk.AsStatus(err)
			}
		}
	}
	return nil, fwk.NewStatus(fwk.Unschedulable, sets.List(done)...)
}

// unreserve takes all reservations out of a claim, unless it has come into use meanwhile.
func (p *Plugin) unreserve(ctx context.Context, c *resourceapi.ResourceClaim, unused func(*resourceapi.ResourceClaim) bool) error {
	_, err := p.update(ctx, c, func(current *resourceapi.ResourceClaim) (bool, error) {
		if !unused(current) {
			return false, nil
		}
		current.Status.ReservedFor = nil
		return true, nil
	})
	return err
}
