package framework

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
)

// A PlacementFeasible is a Permit plugin that is asked before the first pod of a group, or the
// first group of a group of groups, is tried on a placement, and after each: Success where
// enough have nodes, Wait while enough still can, Unschedulable when they cannot.
type PlacementFeasible interface {
	fwk.PermitPlugin
	PlacementFeasible(ctx context.Context, state fwk.PlacementCycleState, group fwk.PodGroupInfo, progress Progress) *fwk.Status
}

// Progress is how far the trial of a placement has got.
type Progress struct {
	// Scheduled are the pods of the group with a node, those included that got it before, or the
	// groups of a group of groups that have what they need; Remaining are still to be tried.
	Scheduled, Remaining int
}

// groupPoints are the plugins of the extension points for pod groups.
type groupPoints struct {
	generate   []fwk.PlacementGeneratePlugin
	scores     []weightedPlacement
	postFilter []fwk.PodGroupPostFilterPlugin
	feasible   []PlacementFeasible
}

type weightedPlacement struct {
	fwk.PlacementScorePlugin
	weight int64
}

func pickGroupPoints(c *chooser) groupPoints {
	g := groupPoints{
		generate:   pick[fwk.PlacementGeneratePlugin](c, "placementGenerate"),
		postFilter: pick[fwk.PodGroupPostFilterPlugin](c, "podGroupPostFilter"),
	}
	for _, p := range pick[fwk.PlacementScorePlugin](c, "placementScore") {
		weight := cmp.Or(c.spec.PlacementWeights[p.Name()], c.spec.Weights[p.Name()], 1)
		g.scores = append(g.scores, weightedPlacement{p, weight})
	}
	for _, p := range pick[fwk.PermitPlugin](c, "permit") {
		if f, ok := p.(PlacementFeasible); ok {
			g.feasible = append(g.feasible, f)
		}
	}
	return g
}

// GroupState is the scratch pad of plugins during one attempt at one pod group, on one placement
// of the group of groups above it.
type GroupState struct {
	*CycleState
	parent *PlacementState     // nil for a root
	placed sets.Set[types.UID] // in the whole tree
}

var _ fwk.PodGroupCycleState = &GroupState{}

// NewGroupState returns an empty state for an attempt at a time; trial as in NewTrialState.
func NewGroupState(trial bool, now time.Time) *GroupState {
	s := NewCycleState(false)
	s.trial, s.now = trial, now
	return &GroupState{CycleState: s, placed: sets.New[types.UID]()}
}

// NewChildState returns an empty state for a group that is tried on a placement of the one above it.
func NewChildState(parent *PlacementState) *GroupState {
	s := NewGroupState(parent.group.trial, parent.group.now)
	s.parent, s.placed = parent, parent.group.placed
	return s
}

// GetParentPlacementCycleState returns the state of the placement that is divided for the group;
// nil for a root.
func (s *GroupState) GetParentPlacementCycleState() fwk.PlacementCycleState {
	if s.parent == nil {
		return nil
	}
	return s.parent
}

// PlacementState is the scratch pad for one placement of a group.
type PlacementState struct {
	*CycleState
	group *GroupState
}

var _ fwk.PlacementCycleState = &PlacementState{}

// NewPlacementState returns an empty state.
func NewPlacementState(g *GroupState) *PlacementState {
	return &PlacementState{NewCycleState(false), g}
}

// GetPodGroupSchedulingCycle returns the state of the group.
func (s *PlacementState) GetPodGroupSchedulingCycle() fwk.PodGroupCycleState { return s.group }

// Place says that a pod of the tree has its node for now. The node that it was promised
// before is not kept for it any more.
func (s *GroupState) Place(uid types.UID) { s.placed.Insert(uid) }

// Displace takes that back.
func (s *GroupState) Displace(uid types.UID) { s.placed.Delete(uid) }

// NewPodState returns an empty state for one pod of the group on this placement.
func (s *PlacementState) NewPodState() *CycleState {
	c := NewCycleState(false)
	c.trial, c.now, c.placement = s.group.trial, s.group.now, s
	return c
}

// LeaveGroup says that from here on the pod is on its own: it will be bound.
func (s *CycleState) LeaveGroup() { s.placement = nil }

// isPlaced says that a pod is a mate that has got its node in the same attempt.
func (s *CycleState) isPlaced(uid types.UID) bool {
	return s.placement != nil && s.placement.group.placed.Has(uid)
}

// HasPodGroupPostFilter reports whether anything can be done for a group that fits nowhere.
func (f *Framework) HasPodGroupPostFilter() bool { return len(f.groups.postFilter) > 0 }

// PlacementGenerators names the plugins that divide placements.
func (f *Framework) PlacementGenerators() []string {
	names := make([]string, len(f.groups.generate))
	for i, p := range f.groups.generate {
		names[i] = p.Name()
	}
	return names
}

// RunPlacementGenerate divides a placement into those on which the group is to be tried.
func (f *Framework) RunPlacementGenerate(ctx context.Context, state *GroupState, group fwk.PodGroupInfo, whole *fwk.Placement) (_ []*fwk.Placement, status *fwk.Status) {
	defer f.Ran("PlacementGenerate", time.Now(), &status)
	placements := []*fwk.Placement{whole}
	for _, p := range f.groups.generate {
		var parts []*fwk.Placement
		for _, parent := range placements {
			r, s := p.GeneratePlacements(ctx, state, group, parent)
			switch {
			case s.IsRejected():
				return nil, s.WithPlugin(p.Name())
			case !s.IsSuccess():
				return nil, failed("PlacementGenerate", p.Name(), s)
			}
			if r != nil {
				parts = append(parts, r.Placements...)
			}
		}
		if placements = parts; len(placements) == 0 {
			return nil, fwk.NewStatus(fwk.Unschedulable, "no feasible placements found").WithPlugin(p.Name())
		}
	}
	return placements, nil
}

// RunPlacementFeasible asks whether enough pods of a group have a node, or still can get one.
func (f *Framework) RunPlacementFeasible(ctx context.Context, state *PlacementState, group fwk.PodGroupInfo, p Progress) (status *fwk.Status) {
	defer f.Ran("PlacementFeasible", time.Now(), &status)
	var wait *fwk.Status
	for _, plugin := range f.groups.feasible {
		switch s := plugin.PlacementFeasible(ctx, state, group, p); {
		case s.IsSuccess():
		case s.IsWait():
			wait = s.WithPlugin(plugin.Name())
		case s.IsRejected():
			return s.WithPlugin(plugin.Name())
		default:
			return failed("PlacementFeasible", plugin.Name(), s)
		}
	}
	return wait
}

// RunPlacementScore scores placements by each plugin and adds the scores up by weight.
func (f *Framework) RunPlacementScore(ctx context.Context, group fwk.PodGroupInfo, placements []*fwk.PodGroupAssignments, states []*PlacementState) ([]int64, *fwk.Status) {
	totals := make([]int64, len(placements))
	for _, p := range f.groups.scores {
		scores := make([]fwk.PlacementScore, len(placements))
		for i, placement := range placements {
			score, s := p.ScorePlacement(ctx, states[i], group, placement)
			if !s.IsSuccess() {
				return nil, failed("PlacementScore", p.Name(), s)
			}
			scores[i] = fwk.PlacementScore{Placement: placement.Placement, Score: score}
		}
		if e := p.PlacementScoreExtensions(); e != nil {
			if s := e.NormalizePlacementScore(ctx, states[0].group, group, scores); !s.IsSuccess() {
				return nil, failed("NormalizePlacementScore", p.Name(), s)
			}
		}
		for i, s := range scores {
			if s.Score < fwk.MinScore || s.Score > fwk.MaxScore {
				return nil, fwk.AsStatus(fmt.Errorf("plugin %q returns the score %d for placement %s, which is not between %d and %d",
					p.Name(), s.Score, placements[i].Name, fwk.MinScore, fwk.MaxScore)).WithPlugin(p.Name())
			}
			totals[i] += s.Score * p.weight
		}
	}
	return totals, nil
}

// RunPodGroupPostFilter asks what can be done for a group that fits nowhere. The first
// plugin that makes it schedulable, or says that none can, ends the search.
func (f *Framework) RunPodGroupPostFilter(ctx context.Context, state *GroupState, group fwk.PodGroupInfo, schedule fwk.PodGroupSchedulingFunc) (_ *fwk.PodGroupPostFilterResult, status *fwk.Status) {
	defer f.Ran("PodGroupPostFilter", time.Now(), &status)
	var reasons []string
	for _, p := range f.groups.postFilter {
		r, s := p.PodGroupPostFilter(ctx, state, group, schedule)
		switch {
		case s.IsSuccess(), s.Code() == fwk.UnschedulableAndUnresolvable:
			return r, s
		case !s.IsRejected():
			return nil, failed("PodGroupPostFilter", p.Name(), s)
		}
		reasons = append(reasons, s.Reasons()...)
	}
	return nil, fwk.NewStatus(fwk.Unschedulable, reasons...)
}
