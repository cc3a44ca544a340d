package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// A groupQuestion is what a decision about a pod group depends on beside the mind.
type groupQuestion struct {
	fw       *framework.Framework
	trial    bool // nothing is to come of it
	group    *podgroup.Info
	attempts []int // how often each of the pods has been tried, this time included
	start    int   // the number of the node at which the first search begins
	seed     uint64
	now      time.Time // when the attempt began
}

// A groupDecision is what comes of one try at a pod group.
type groupDecision struct {
	// status says whether the pods that have a node go there, or why none does.
	status *fwk.Status
	// members is what comes of each pod, in the order of the question.
	members []memberDecision
	next    int // where the next search begins
	tried   []triedPlacement
	told    explain.Group
}

// A triedPlacement is a placement that a group was tried on.
type triedPlacement struct {
	feasible bool
	took     time.Duration
}

// A memberDecision is a decision about a pod of a group: the node that was found is where
// the pod goes only if the group's status is a success.
type memberDecision struct {
	decision
	state *framework.CycleState
	info  *cache.PodInfo // the pod as it would be on its node
}

var errNotTried = errors.New("the pod was not tried: its pod group cannot be scheduled")

// decideGroup tries a group on the cluster as it is now.
func (m *mind) decideGroup(ctx context.Context, q groupQuestion) groupDecision {
	m.cache.UpdateSnapshot(m.snapshot)
	s := &groupSearch{mind: m, groupQuestion: q, state: framework.NewGroupState(q.trial, q.now)}
	key := types.NamespacedName{Namespace: q.group.Group.Namespace, Name: q.group.Group.Name}
	scheduled := m.groups.State(key).ScheduledPods()
	s.scheduled = len(scheduled)
	if err := q.group.Validate(scheduled, q.fw.Gates.PodGroupPreemptionPolicy); err != nil {
		return s.conclude(nil, fwk.AsStatus(err))
	}
	best, status := s.run(ctx)
	d := s.conclude(best, status)
	if status.IsRejected() && q.fw.HasPodGroupPostFilter() && ctx.Err() == nil {
		s.makeRoom(ctx, &d)
	}
	return d
}

// groupSearch is the search for nodes for a pod group. It changes nothing: what is tried
// on the snapshot, and reserved with plugins, is taken back.
type groupSearch struct {
	*mind
	groupQuestion
	state     *framework.GroupState
	scheduled int // pods of the group that have a node already
	told      []explain.Placement
	tried     []triedPlacement
	rejectors []sets.Set[string] // of each pod, on all placements
}

// groupTrial is what was found out about one placement.
type groupTrial struct {
	*fwk.Placement
	state   *framework.PlacementState
	status  *fwk.Status
	members []memberDecision
	placed  int
	next    int
}

// maxTold is how many placements people are told of.
const maxTold = 16

// run tries the group on each placement and returns the best: one on which enough pods
// have a node, or, with the reason, the first on which too few have; nil if there is none.
func (s *groupSearch) run(ctx context.Context) (*groupTrial, *fwk.Status) {
	ctx = framework.WithoutNotes(ctx)
	nodes, err := s.snapshot.List()
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	whole := &fwk.Placement{Name: "all nodes", Nodes: nodes}
	placements, status := s.fw.RunPlacementGenerate(ctx, s.state, s.group, whole)
	if !status.IsSuccess() {
		return nil, status
	}
	s.told, s.tried, s.rejectors = nil, nil, make([]sets.Set[string], len(s.group.Pods))
	for i := range s.rejectors {
		if s.rejectors[i] = sets.New[string](); placements[0] != whole { // it could be divided otherwise
			s.rejectors[i].Insert(s.fw.PlacementGenerators()...)
		}
	}
	var first *groupTrial
	var feasible []*groupTrial
	for _, p := range placements {
		var within []int
		if p != whole {
			within = s.positions(p)
		}
		began := time.Now()
		t := s.try(ctx, p, within)
		s.tried = append(s.tried, triedPlacement{t.status.IsSuccess(), time.Since(began)})
		if err := ctx.Err(); err != nil {
			return nil, fwk.AsStatus(err)
		}
		s.note(t)
		switch {
		case t.status.IsSuccess():
			feasible = append(feasible, t)
		case !t.status.IsRejected():
			return t, t.status
		case first == nil:
			first = t
		}
	}
	switch {
	case len(feasible) > 0:
		return s.best(ctx, feasible)
	case placements[0] == whole:
		return first, first.status
	}
	return first, fwk.NewStatus(fwk.Unschedulable, fmt.Sprintf("0/%d placements are available, first placement status: %s",
		len(placements), first.status.Message())).WithPlugin(first.status.Plugin())
}

// positions returns where in the list of nodes those of a placement are, in order.
func (s *groupSearch) positions(p *fwk.Placement) []int {
	at := make([]int, 0, len(p.Nodes))
	for _, n := range p.Nodes {
		if i := s.snapshot.Position(n.Node().Name); i >= 0 {
			at = append(at, i)
		}
	}
	slices.Sort(at)
	return at
}

// try looks for a node on the placement for one pod after the other. Each is tried as if
// those before it were on their nodes.
func (s *groupSearch) try(ctx context.Context, p *fwk.Placement, within []int) *groupTrial {
	t := &groupTrial{Placement: p, state: framework.NewPlacementState(s.state), members: make([]memberDecision, len(s.group.Pods)), next: s.start}
	for i := range t.members {
		t.members[i].decision = decision{err: errNotTried}
	}
	mark := s.snapshot.Mark()
	defer func() {
		for i := len(t.members) - 1; i >= 0; i-- {
			if m := &t.members[i]; m.info != nil {
				s.fw.RunReservePluginsUnreserve(ctx, m.state, m.info.Pod, m.node)
			}
		}
		s.snapshot.Revert(mark)
	}()

	verdict := s.enough(ctx, t, len(s.group.Pods))
	for i, pod := range s.group.Pods {
		if !verdict.IsSuccess() && !verdict.IsWait() {
			break
		}
		c := &cycle{fw: s.fw, snapshot: s.snapshot, percentage: s.percentage(pod.Spec.SchedulerName), start: t.next, memo: s.memo, only: within}
		s.tryMember(ctx, c, t, i)
		m := &t.members[i]
		if m.err != nil && m.fit == nil {
			t.status = fwk.AsStatus(fmt.Errorf("failed to schedule other pod from a pod group: %w", m.err))
			return t
		}
		if m.fit != nil {
			s.rejectors[i] = s.rejectors[i].Union(m.fit.Diagnosis.UnschedulablePlugins)
		}
		verdict = s.enough(ctx, t, len(s.group.Pods)-i-1)
	}
	switch {
	case verdict.IsWait():
		t.status = fwk.NewStatus(fwk.Unschedulable, verdict.Reasons()...).WithPlugin(verdict.Plugin())
	case verdict.IsSuccess() && t.placed == 0:
		t.status = fwk.NewStatus(fwk.Unschedulable, t.members[0].told.Message)
	default:
		t.status = verdict
	}
	return t
}

func (s *groupSearch) enough(ctx context.Context, t *groupTrial, remaining int) *fwk.Status {
	return s.fw.RunPlacementFeasible(ctx, t.state, s.group, framework.Progress{Scheduled: s.scheduled + t.placed, Remaining: remaining})
}

// tryMember looks for a node for one pod, and takes the pod to be there.
func (s *groupSearch) tryMember(ctx context.Context, c *cycle, t *groupTrial, i int) {
	pod, m := s.group.Pods[i], &t.members[i]
	m.state = t.state.NewPodState()
	p, err := c.run(ctx, m.state, pod, s.seed+uint64(i))
	m.decision = decision{placement: p, err: err}
	m.told = explain.Attempt{Number: s.attempts[i], Nodes: c.size(), Evaluated: p.evaluated, Feasible: p.feasible}
	switch {
	case errors.As(err, &m.fit):
		m.told.Refusals, m.told.Message = m.fit.Refusals(), m.fit.Error()
		return
	case err != nil:
		m.told.Message = err.Error()
		return
	}
	m.told.Node, m.told.Scores, m.told.Refusals = p.node, explain.Scores(p.scores), p.diagnosis.Refusals(0, explain.MaxRefusals)
	m.scores = nil // they lie in memory that the next pod uses
	if c.only == nil {
		t.next = p.next
	}
	placed := pod.DeepCopy()
	placed.Spec.NodeName = p.node
	info, _ := cache.NewPodInfo(placed) // a bad selector was reported when the pod came
	if err = s.snapshot.AddPod(info, p.node); err != nil {
		m.err = err
		return
	}
	m.info = info
	if status := s.fw.RunReservePluginsReserve(ctx, m.state, placed, p.node); !status.IsSuccess() {
		s.fw.RunReservePluginsUnreserve(ctx, m.state, placed, p.node)
		if err := s.snapshot.RemovePod(klog.FromContext(ctx), placed, p.node); err != nil {
			status = fwk.AsStatus(err)
		}
		m.info, m.err = nil, status.AsError()
		if status.IsRejected() {
			m.fit = unreservable(pod, p.node, status)
			m.err = m.fit
		}
		m.told.Node, m.told.Message = "", m.err.Error()
		return
	}
	t.state.Place(pod.UID)
	t.placed++
}

// unreservable says that a pod cannot be where it fits, since a plugin refuses to reserve
// what it needs, or to permit it.
func unreservable(pod *v1.Pod, node string, s *fwk.Status) *framework.FitError {
	d := framework.NewDiagnosis()
	d.Refuse(node, s)
	return &framework.FitError{Pod: pod, NumAllNodes: 1, Diagnosis: d}
}

// note keeps what people can know of a placement.
func (s *groupSearch) note(t *groupTrial) {
	if len(s.told) < maxTold {
		s.told = append(s.told, explain.Placement{Name: t.Name, Nodes: len(t.Nodes), Placed: t.placed, Message: t.status.Message()})
	}
}

// best returns the placement with the highest score. Among equals the seed chooses.
func (s *groupSearch) best(ctx context.Context, feasible []*groupTrial) (*groupTrial, *fwk.Status) {
	chosen := 0
	if len(feasible) > 1 {
		assignments, states := make([]*fwk.PodGroupAssignments, len(feasible)), make([]*framework.PlacementState, len(feasible))
		for i, t := range feasible {
			assignments[i], states[i] = t.assignments(), t.state
		}
		scores, status := s.fw.RunPlacementScore(ctx, s.group, assignments, states)
		if !status.IsSuccess() {
			return nil, status
		}
		chosen = bestOf(scores, s.seed)
		for i, t := range feasible {
			if at := s.toldOf(t.Name); at != nil {
				at.Score = scores[i]
			}
		}
	}
	if at := s.toldOf(feasible[chosen].Name); at != nil {
		at.Chosen = true
	}
	return feasible[chosen], nil
}

func (s *groupSearch) toldOf(placement string) *explain.Placement {
	i := slices.IndexFunc(s.told, func(p explain.Placement) bool { return p.Name == placement })
	if i < 0 {
		return nil
	}
	return &s.told[i]
}

// bestOf returns where the highest score is. Among equals the seed chooses.
func bestOf(scores []int64, seed uint64) int {
	highest := slices.Max(scores)
	var equals []int
	for i, score := range scores {
		if score == highest {
			equals = append(equals, i)
		}
	}
	return equals[seed%uint64(len(equals))]
}

// conclude says what comes of it for each pod.
func (s *groupSearch) conclude(t *groupTrial, status *fwk.Status) groupDecision {
	g := s.group.Group
	d := groupDecision{
		status: status, next: s.start, tried: s.tried, members: make([]memberDecision, len(s.group.Pods)),
		told: explain.Group{Name: g.Namespace + "/" + g.Name, Tried: len(s.group.Pods), Scheduled: s.scheduled, Message: status.Message()},
	}
	if len(s.told) > 1 || len(s.told) == 1 && podgroup.TopologyKey(g) != "" {
		d.told.Placements = s.told
	}
	for i := range d.members {
		d.members[i].decision = decision{err: errNotTried, told: explain.Attempt{Number: s.attempts[i], Nodes: s.snapshot.Len()}}
	}
	if t != nil {
		d.members, d.next, d.told.Placed = t.members, t.next, t.placed
	}
	if status.IsSuccess() {
		return d
	}
	for i := range d.members {
		m := &d.members[i]
		if m.err == nil || m.fit == nil && status.IsRejected() || errors.Is(m.err, errNotTried) {
			m.err, m.node, m.told.Node = status.AsError(), "", ""
			m.told.Message = status.Message()
			if status.IsRejected() {
				m.fit = s.refused(i, status)
				m.err = m.fit
			}
		}
		if m.fit != nil && s.rejectors != nil {
			m.fit.Diagnosis.UnschedulablePlugins = m.fit.Diagnosis.UnschedulablePlugins.Union(s.rejectors[i])
		}
	}
	return d
}

// refused says that a pod gets no node, although it might, because of its group.
func (s *groupSearch) refused(i int, status *fwk.Status) *framework.FitError {
	d := framework.NewDiagnosis()
	d.Reject(status)
	return &framework.FitError{Pod: s.group.Pods[i], NumAllNodes: s.snapshot.Len(), Diagnosis: d}
}

// makeRoom asks what can be done for a group that fits nowhere.
func (s *groupSearch) makeRoom(ctx context.Context, d *groupDecision) {
	result, status := s.fw.RunPodGroupPostFilter(ctx, s.state, s.group, func(ctx context.Context) (*fwk.PodGroupAssignments, *fwk.Status) {
		t, status := s.run(ctx)
		if !status.IsSuccess() {
			return nil, status
		}
		return t.assignments(), nil
	})
	if status.Code() == fwk.Error {
		klog.FromContext(ctx).Error(status.AsError(), "Looking for pods to preempt", "podGroup", d.told.Name)
	}
	if msg := status.Message(); msg != "" {
		d.status = fwk.NewStatus(d.status.Code(), append(slices.Clone(d.status.Reasons()), msg)...).WithPlugin(d.status.Plugin())
		d.told.Message = d.status.Message()
	}
	if considered, err := s.state.Read(explain.PreemptionKey); err == nil {
		d.told.Preemption, _ = considered.(*explain.Preemption)
	}
	if result == nil {
		return
	}
	for i, pod := range s.group.Pods {
		d.members[i].nominated = result.NominatingInfos[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
	}
}

// assignments are the nodes that pods would get.
func (t *groupTrial) assignments() *fwk.PodGroupAssignments {
	a := &fwk.PodGroupAssignments{Placement: t.Placement}
	for i := range t.members {
		if m := &t.members[i]; m.info != nil {
			a.ProposedAssignments = append(a.ProposedAssignments, assignment{m})
		}
	}
	return a
}

// assignment is one of them.
type assignment struct{ *memberDecision }

func (a assignment) GetPod() *v1.Pod               { return a.info.Pod }
func (a assignment) GetPodInfo() fwk.PodInfo       { return a.info }
func (a assignment) GetNodeName() string           { return a.node }
func (a assignment) GetCycleState() fwk.CycleState { return a.state }

// outcome is the decision as it is recorded.
func (d *groupDecision) outcome() record.Outcome {
	o := record.Outcome{Message: d.status.Message()}
	if p := d.told.Preemption; p != nil {
		for _, c := range p.Candidates {
			o.Victims = append(o.Victims, c.Victims...)
		}
	}
	for i := range d.members {
		o.Members = append(o.Members, d.members[i].outcome())
	}
	return o
}
