// Package podgrouppodscount prefers the placement on which most pods of a group run
// (KEP-5732).
package podgrouppodscount

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// Name of the plugin.
const Name = "PodGroupPodsCount"

// Plugin implements placementScore.
type Plugin struct{ handle fwk.Handle }

var (
	_ fwk.PlacementScorePlugin     = &Plugin{}
	_ fwk.PlacementScoreExtensions = &Plugin{}
	_ fwk.EnqueueExtensions        = &Plugin{}
)

// New makes the plugin.
func New(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	return &Plugin{h}, nil
}

// Name returns the plugin's name.
func (*Plugin) Name() string { return Name }

// ScorePlacement counts the pods that have a node, and those that would get one.
func (p *Plugin) ScorePlacement(_ context.Context, _ fwk.PlacementCycleState, group fwk.PodGroupInfo, placement *fwk.PodGroupAssignments) (int64, *fwk.Status) {
	scheduled, err := podgroup.ScheduledPods(p.handle.SnapshotSharedLister(), podgroup.KeyOfInfo(group))
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	return int64(len(scheduled) + len(placement.ProposedAssignments)), nil
}

// PlacementScoreExtensions returns the plugin.
func (p *Plugin) PlacementScoreExtensions() fwk.PlacementScoreExtensions { return p }

// NormalizePlacementScore gives the most pods the highest score, and others their share of it.
func (*Plugin) NormalizePlacementScore(_ context.Context, _ fwk.PodGroupCycleState, _ fwk.PodGroupInfo, scores []fwk.PlacementScore) *fwk.Status {
	var most int64
	for _, s := range scores {
		most = max(most, s.Score)
	}
	if most == 0 {
		return fwk.NewStatus(fwk.Error, "no pods from pod group are assigned to any of the candidate placements")
	}
	for i := range scores {
		scores[i].Score = scores[i].Score * fwk.MaxScore / most
	}
	return nil
}

// EventsToRegister returns nothing: the plugin rejects no pod.
func (*Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) { return nil, nil }
