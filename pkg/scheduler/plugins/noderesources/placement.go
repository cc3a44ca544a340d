package noderesources

import (
	"context"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

var _ fwk.PlacementScorePlugin = &Fit{}

// ScorePlacement prefers the placement of which most is in use with the pods of the group
// on it, whatever the strategy for nodes is, so that large placements stay free for large
// groups.
func (f *Fit) ScorePlacement(_ context.Context, _ fwk.PlacementCycleState, _ fwk.PodGroupInfo, placement *fwk.PodGroupAssignments) (int64, *fwk.Status) {
	var requests []fwk.Resource
	for _, a := range placement.ProposedAssignments {
		requests = append(requests, a.GetPodInfo().CalculateResource().Resource)
	}
	list := make([]use, 0, len(f.resources))
	for _, spec := range f.resources {
		name, u := v1.ResourceName(spec.Name), use{weight: spec.Weight}
		for _, n := range placement.Nodes {
			u.allocatable += amount(n.GetAllocatable(), name)
			u.before += amount(n.GetRequested(), name)
		}
		wanted := int64(0)
		for _, r := range requests {
			wanted += amount(r, name)
		}
		if u.allocatable == 0 || wanted == 0 && isScalar(name) {
			continue
		}
		u.after = u.before + wanted
		list = append(list, u)
	}
	return weightedMean(list, mostAllocated), nil
}

// PlacementScoreExtensions returns nil: the score is a part of a hundred.
func (f *Fit) PlacementScoreExtensions() fwk.PlacementScoreExtensions { return nil }
