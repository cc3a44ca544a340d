package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/gangscheduling"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// A groupQuestion is what a decision about a pod group depends on beside the mind.
type groupQuestion struct {
	fw       *framework.Framework
	trial    bool           // nothing is to come of it
	group    *podgroup.Info // a root, with all that is below it
	attempts []int          // how often each of the pods has been tried, this time included
	start    int            // the number of the node at which the first search begins
	seed     uint64
	now      time.Time // when the attempt began
}

// A groupDecision is what comes of one try at a pod group.
type groupDecision struct {
	// status says whether the pods that have a node go there, or why none does.
	status *fwk.Status
	// members is what comes of each pod, in the order of the question.
	members []memberDecision
	// groups is what comes of each PodGroup of the tree.
	groups []groupOutcome
	next   int // where the next search begins
	tried  []triedPlacement
	told   explain.Group
}

// A triedPlacement is a placement that a group was tried on.
type triedPlacement struct {
	feasible bool
	took     time.Duration
}

// A groupOutcome says whether a PodGroup gets what it needs, or why not.
type groupOutcome struct {
	group  *schedulingv1beta1.PodGroup
	status *fwk.Status
	tried  int // pods
}

// A memberDecision is a decision about a pod of a group: the node that was found is where
// the pod goes if there is no error.
type memberDecision struct {
	decision
	state *framework.CycleState
	info  *cache.PodInfo // the pod as it would be on its node
}

var errNotTried = errors.New("the pod was not tried: its pod group cannot be scheduled")

// noGroup is the first that is said of a group that gets nothing.
const noGroup = "pod group is unschedulable"

// decideGroup tries a group, or a group of groups, on the cluster as it is now.
func (m *mind) decideGroup(ctx context.Context, q groupQuestion) groupDecision {
	m.cache.UpdateSnapshot(m.snapshot)
	s := &groupSearch{mind: m, groupQuestion: q, state: framework.NewGroupState(q.trial, q.now), index: map[types.UID]int{}}
	for i, p := range q.group.Pods {
		s.index[p.UID] = i
	}
	scheduled, err := podgroup.ScheduledPods(m.groups, q.group.Key())
	if err == nil {
		err = q.group.Validate(scheduled, q.fw.Gates.PodGroupPreemptionPolicy)
	}
	s.scheduled = len(scheduled)
	if err != nil {
		return s.conclude(s.untried(q.group, fwk.AsStatus(err)), nil, nil)
	}
	t := s.run(ctx)
	if !t.status.IsRejected() || !q.fw.HasPodGroupPostFilter() || ctx.Err() != nil {
		return s.conclude(t, nil, nil)
	}
	result, room := s.makeRoom(ctx)
	return s.conclude(t, result, room)
}

// groupSearch is the search for nodes for a pod group. It changes nothing: what is tried
// on the snapshot, and reserved with plugins, is taken back.
type groupSearch struct {
	*mind
	groupQuestion
	state     *framework.GroupState
	index     map[types.UID]int // where each pod is in the question
	scheduled int               // pods of the tree that have a node already
	whole     *fwk.Placement
	told      []explain.Placement
	tried     []triedPlacement
	rejectors []sets.Set[string] // of each pod, on all placements
}

// groupTrial is what was found out about a group on one placement.
type groupTrial struct {
	*fwk.Placement
	group    *podgroup.Info
	state    *framework.PlacementState
	status   *fwk.Status
	members  []memberDecision // of a PodGroup: its pods
	children []*groupTrial    // of a group of groups: those of its groups that were tried
	mark     int              // of the snapshot, before the trial
	next     int
	idle     bool // the group has what it needs, and no more of its pods get nodes
}

// maxTold is how many placements people are told of.
const maxTold = 16

// run tries the group on the whole cluster.
func (s *groupSearch) run(ctx context.Context) *groupTrial {
	ctx = framework.WithoutNotes(ctx)
	nodes, err := s.snapshot.List()
	if err != nil {
		return s.untried(s.group, fwk.AsStatus(err))
	}
	s.whole = &fwk.Placement{Name: "all nodes", Nodes: nodes}
	s.told, s.tried, s.rejectors = nil, nil, make([]sets.Set[string], len(s.group.Pods))
	for i := range s.rejectors {
		s.rejectors[i] = sets.New[string]()
	}
	t := s.search(ctx, s.group, s.state, s.whole, s.start)
	if t.status.IsSuccess() {
		s.takeBack(ctx, t)
		if len(t.held()) == 0 { // all that have a node had it before
			t.idle = true
			t.status = s.nowhere(1, fwk.NewStatus(fwk.Unschedulable, noGroup).WithPlugin(gangscheduling.Name))
		}
	}
	return t
}

// search tries a group on each part that the plugins divide a placement into. It returns the best: one on which
// it gets what it needs, and where its pods stay until they are taken back; or, with the reason, the first
// on which it does not.
func (s *groupSearch) search(ctx context.Context, g *podgroup.Info, state *framework.GroupState, within *fwk.Placement, start int) *groupTrial {
	placements, status := s.fw.RunPlacementGenerate(ctx, state, g, within)
	if !status.IsSuccess() {
		return s.untried(g, status)
	}
	if placements[0] != within { // it could be divided otherwise
		for _, pod := range g.Pods {
			s.rejectors[s.index[pod.UID]].Insert(s.fw.PlacementGenerators()...)
		}
	}
	var first *groupTrial
	var feasible []*groupTrial
	for _, p := range placements {
		began := time.Now()
		t := s.try(ctx, g, state, p, start)
		if t.status.IsSuccess() && len(placements) > 1 {
			s.takeBack(ctx, t)
		}
		if g == s.group {
			s.tried = append(s.tried, triedPlacement{t.status.IsSuccess(), time.Since(began)})
			s.note(t)
		}
		switch {
		case t.status.IsSuccess():
			feasible = append(feasible, t)
		case !t.status.IsRejected():
			return t
		case first == nil:
			first = t
		}
	}
	switch {
	case len(feasible) == 0:
		first.status = s.nowhere(len(placements), first.status)
		return first
	case len(placements) == 1:
		return feasible[0]
	}
	best, status := s.best(ctx, g, feasible)
	if status.IsSuccess() {
		status = s.hold(ctx, best)
	}
	if !status.IsSuccess() {
		return s.untried(g, status)
	}
	return best
}

// untried is what is known of a group of which no pod was tried.
func (s *groupSearch) untried(g *podgroup.Info, status *fwk.Status) *groupTrial {
	t := &groupTrial{Placement: &fwk.Placement{}, group: g, status: status, next: s.start}
	if g.Composite == nil {
		t.members = make([]memberDecision, len(g.Pods))
		for i := range t.members {
			t.members[i].decision = s.notTried(g.Pods[i])
		}
	}
	return t
}

func (s *groupSearch) notTried(pod *v1.Pod) decision {
	return decision{err: errNotTried, told: explain.Attempt{Number: s.attempts[s.index[pod.UID]], Nodes: s.snapshot.Len()}}
}

// nowhere says that a group gets what it needs on none of its placements.
func (s *groupSearch) nowhere(placements int, first *fwk.Status) *fwk.Status {
	if !s.fw.Gates.TopologyAwareWorkloadScheduling {
		return first
	}
	return fwk.NewStatus(fwk.Unschedulable, noGroup, fmt.Sprintf("0/%d placements are available, first placement status: %s",
		placements, first.Message())).WithPlugin(first.Plugin())
}

// positions returns where in the list of nodes those of a placement are, in order; nil for all.
func (s *groupSearch) positions(p *fwk.Placement) []int {
	if p == s.whole {
		return nil
	}
	at := make([]int, 0, len(p.Nodes))
	for _, n := range p.Nodes {
		if i := s.snapshot.Position(n.Node().Name); i >= 0 {
			at = append(at, i)
		}
	}
	slices.Sort(at)
	return at
}

// try tries a group on a placement. Where it gets what it needs, its pods stay on their nodes.
func (s *groupSearch) try(ctx context.Context, g *podgroup.Info, state *framework.GroupState, p *fwk.Placement, start int) *groupTrial {
	t := s.untried(g, nil)
	t.Placement, t.state, t.mark, t.next = p, framework.NewPlacementState(state), s.snapshot.Mark(), start
	if g.Composite != nil {
		s.tryGroups(ctx, t)
	} else {
		s.tryPods(ctx, t)
	}
	if err := ctx.Err(); err != nil {
		t.status = fwk.AsStatus(err)
	}
	if !t.status.IsSuccess() {
		s.takeBack(ctx, t)
	}
	return t
}

// tryGroups tries one after the other of the groups below one, each as if those before it were on their nodes.
func (s *groupSearch) tryGroups(ctx context.Context, t *groupTrial) {
	progress := framework.Progress{Remaining: len(t.group.Children)}
	verdict := s.fw.RunPlacementFeasible(ctx, t.state, t.group, progress)
	for _, child := range t.group.Children {
		if !verdict.IsSuccess() && !verdict.IsWait() {
			break
		}
		c := s.search(ctx, child, framework.NewChildState(t.state), t.Placement, t.next)
		t.children = append(t.children, c)
		progress.Remaining--
		switch {
		case c.status.IsSuccess():
			progress.Scheduled++
			t.next = c.next
		case !c.status.IsRejected():
			t.status = fwk.AsStatus(fmt.Errorf("composite pod group evaluation failed due to child error: %w", c.status.AsError()))
			return
		}
		verdict = s.fw.RunPlacementFeasible(ctx, t.state, t.group, progress)
	}
	t.status = final(verdict)
}

// tryPods looks for a node for one pod of a PodGroup after the other, each as if those before it were on
// their nodes.
func (s *groupSearch) tryPods(ctx context.Context, t *groupTrial) {
	g := t.group
	state := s.groups.State(types.NamespacedName{Namespace: g.Group.Namespace, Name: g.Group.Name})
	progress := framework.Progress{Scheduled: state.ScheduledPodsCount(), Remaining: len(g.Pods)}
	verdict := s.fw.RunPlacementFeasible(ctx, t.state, g, progress)
	if verdict.IsRejected() || len(g.Pods) == 0 && verdict.IsWait() {
		t.status = fwk.NewStatus(fwk.Unschedulable, noGroup).WithPlugin(verdict.Plugin()) // too few pods are there
		return
	}
	within := s.positions(t.Placement)
	for i, pod := range g.Pods {
		if !verdict.IsSuccess() && !verdict.IsWait() {
			break
		}
		c := &cycle{fw: s.fw, snapshot: s.snapshot, percentage: s.percentage(pod.Spec.SchedulerName), start: t.next, memo: s.memo, only: within}
		s.tryMember(ctx, c, t, i)
		m := &t.members[i]
		if m.err != nil && m.fit == nil {
			t.status = fwk.AsStatus(fmt.Errorf("failed to schedule other pod from a pod group: %w", m.err))
			return
		}
		if at := s.index[pod.UID]; m.fit != nil {
			s.rejectors[at] = s.rejectors[at].Union(m.fit.Diagnosis.UnschedulablePlugins)
		}
		progress.Remaining--
		if m.info != nil {
			progress.Scheduled++
		}
		verdict = s.fw.RunPlacementFeasible(ctx, t.state, g, progress)
	}
	t.status = final(verdict)
}

// final is a verdict after which there is nothing to wait for.
func final(verdict *fwk.Status) *fwk.Status {
	if verdict.IsWait() {
		return fwk.NewStatus(fwk.Unschedulable, verdict.Reasons()...).WithPlugin(verdict.Plugin())
	}
	return verdict
}

// held are the pods that have nodes in a trial, without those of groups that do not get what they need.
func (t *groupTrial) held() []*memberDecision {
	var held []*memberDecision
	for i := range t.members {
		if t.members[i].info != nil {
			held = append(held, &t.members[i])
		}
	}
	for _, c := range t.children {
		if c.status.IsSuccess() {
			held = append(held, c.held()...)
		}
	}
	return held
}

// takeBack takes the pods of a trial from their nodes.
func (s *groupSearch) takeBack(ctx context.Context, t *groupTrial) {
	for _, m := range slices.Backward(t.held()) {
		s.fw.RunReservePluginsUnreserve(ctx, m.state, m.info.Pod, m.node)
		s.state.Displace(m.info.Pod.UID)
	}
	s.snapshot.Revert(t.mark)
}

// hold has the pods of a trial that was taken back on their nodes again.
func (s *groupSearch) hold(ctx context.Context, t *groupTrial) *fwk.Status {
	t.mark = s.snapshot.Mark()
	held := t.held()
	for i, m := range held {
		status := fwk.AsStatus(s.snapshot.AddPod(m.info, m.node))
		if status.IsSuccess() {
			status = s.fw.RunReservePluginsReserve(ctx, m.state, m.info.Pod, m.node)
		}
		if !status.IsSuccess() {
			for _, m := range slices.Backward(held[:i+1]) {
				s.fw.RunReservePluginsUnreserve(ctx, m.state, m.info.Pod, m.node)
				s.state.Displace(m.info.Pod.UID)
			}
			s.snapshot.Revert(t.mark)
			return status
		}
		s.state.Place(m.info.Pod.UID)
	}
	return nil
}

// tryMember looks for a node for one pod, and takes the pod to be there.
func (s *groupSearch) tryMember(ctx context.Context, c *cycle, t *groupTrial, i int) {
	pod, m := t.group.Pods[i], &t.members[i]
	at := s.index[pod.UID]
	m.state = t.state.NewPodState()
	p, err := c.run(ctx, m.state, pod, s.seed+uint64(at))
	m.decision = decision{placement: p, err: err}
	m.told = explain.Attempt{Number: s.attempts[at], Nodes: c.size(), Evaluated: p.evaluated, Feasible: p.feasible}
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
	s.state.Place(pod.UID)
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
		s.told = append(s.told, explain.Placement{Name: t.Name, Nodes: len(t.Nodes), Placed: len(t.held()), Message: t.status.Message()})
	}
}

// best returns the placement with the highest score. Among equals the seed chooses.
func (s *groupSearch) best(ctx context.Context, g *podgroup.Info, feasible []*groupTrial) (*groupTrial, *fwk.Status) {
	chosen := 0
	if len(feasible) > 1 {
		assignments, states := make([]*fwk.PodGroupAssignments, len(feasible)), make([]*framework.PlacementState, len(feasible))
		for i, t := range feasible {
			assignments[i], states[i] = t.assignments(), t.state
		}
		scores, status := s.fw.RunPlacementScore(ctx, g, assignments, states)
		if !status.IsSuccess() {
			return nil, status
		}
		chosen = bestOf(scores, s.seed)
		for i, t := range feasible {
			if at := s.toldOf(t); at != nil {
				at.Score = scores[i]
			}
		}
	}
	if at := s.toldOf(feasible[chosen]); at != nil {
		at.Chosen = true
	}
	return feasible[chosen], nil
}

func (s *groupSearch) toldOf(t *groupTrial) *explain.Placement {
	i := slices.IndexFunc(s.told, func(p explain.Placement) bool { return p.Name == t.Name })
	if i < 0 || t.group != s.group {
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

// conclude says what comes of it for each group and each pod. room is what was found out about making room, nil if
// nobody has looked, and result what is promised because of that.
func (s *groupSearch) conclude(t *groupTrial, result *fwk.PodGroupPostFilterResult, room *fwk.Status) groupDecision {
	d := groupDecision{
		status: with(t.status, room), next: t.next, tried: s.tried,
		told: explain.Group{Name: s.group.GetNamespace() + "/" + s.group.GetName(), Tried: len(s.group.Pods), Scheduled: s.scheduled, Placed: len(t.held())},
	}
	d.told.Message = d.status.Message()
	if len(s.told) > 1 || len(s.told) == 1 && podgroup.TopologyKey(s.group) != "" {
		d.told.Placements = s.told
	}
	if considered, err := s.state.Read(explain.PreemptionKey); err == nil {
		d.told.Preemption, _ = considered.(*explain.Preemption)
	}
	s.settle(&d, s.group, t, nil, room, t.idle)
	for i, pod := range s.group.Pods {
		if result != nil {
			d.members[i].nominated = result.NominatingInfos[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
		}
	}
	return d
}

// with adds what was found out about making room to why there is none.
func with(status, room *fwk.Status) *fwk.Status {
	if room.Message() == "" || !status.IsRejected() {
		return status
	}
	return fwk.NewStatus(status.Code(), append(slices.Clone(status.Reasons()), room.Message())...).WithPlugin(status.Plugin())
}

// settle says what comes of a group and of those below it. above is why the nearest group above it that gets
// nothing does not, nil if there is none. A group that was not tried has no trial. idle is that of the root.
func (s *groupSearch) settle(d *groupDecision, g *podgroup.Info, t *groupTrial, above, room *fwk.Status, idle bool) {
	if t == nil {
		t = s.untried(g, above)
	}
	status := above
	if !t.status.IsSuccess() {
		status = t.status
	}
	if g.Composite != nil {
		for i, child := range g.Children {
			var c *groupTrial
			if i < len(t.children) {
				c = t.children[i]
			}
			s.settle(d, child, c, status, room, idle)
		}
		return
	}
	if !idle || !t.status.IsSuccess() && !t.idle { // it is no news of a group that it has what it needs
		d.groups = append(d.groups, groupOutcome{g.Group, with(status, room), len(g.Pods)})
	}
	for i := range t.members {
		m := &t.members[i]
		switch {
		case status.IsSuccess(): // it goes to its node, or is tried again
		case t.status.IsSuccess() || !status.IsRejected(): // whatever came of the pod itself
			s.refuse(m, g.Pods[i], status)
		case m.err == nil: // for its mates
			told := with(status, room)
			if room == nil || !room.IsSuccess() { // no room is being made
				told = fwk.NewStatus(status.Code(), append([]string{noGroup}, told.Reasons()...)...).WithPlugin(status.Plugin())
			}
			s.refuse(m, g.Pods[i], told)
		case m.fit == nil:
			s.refuse(m, g.Pods[i], status)
		}
		if !status.IsSuccess() && m.fit != nil && s.rejectors != nil {
			m.fit.Diagnosis.UnschedulablePlugins = m.fit.Diagnosis.UnschedulablePlugins.Union(s.rejectors[s.index[g.Pods[i].UID]])
		}
		d.members = append(d.members, *m)
	}
}

// refuse says that a pod gets no node, although it might, because of a group.
func (s *groupSearch) refuse(m *memberDecision, pod *v1.Pod, status *fwk.Status) {
	m.err, m.node, m.told.Node, m.told.Message = status.AsError(), "", "", status.Message()
	if m.fit != nil && !status.IsRejected() {
		m.fit = nil
	}
	if status.IsRejected() {
		d := framework.NewDiagnosis()
		d.Reject(status)
		m.fit = &framework.FitError{Pod: pod, NumAllNodes: s.snapshot.Len(), Diagnosis: d}
		m.err = m.fit
	}
}

// makeRoom asks what can be done for a group that fits nowhere.
func (s *groupSearch) makeRoom(ctx context.Context) (*fwk.PodGroupPostFilterResult, *fwk.Status) {
	told, tried, rejectors := s.told, s.tried, s.rejectors
	defer func() { s.told, s.tried, s.rejectors = told, tried, rejectors }()
	result, status := s.fw.RunPodGroupPostFilter(ctx, s.state, s.group, func(ctx context.Context) (*fwk.PodGroupAssignments, *fwk.Status) {
		t := s.run(ctx)
		if !t.status.IsSuccess() {
			return nil, t.status
		}
		return t.assignments(), nil
	})
	if status.Code() == fwk.Error {
		klog.FromContext(ctx).Error(status.AsError(), "Looking for pods to preempt", "podGroup", s.group.GetKey())
	}
	return result, status
}

// assignments are the nodes that pods would get.
func (t *groupTrial) assignments() *fwk.PodGroupAssignments {
	a := &fwk.PodGroupAssignments{Placement: t.Placement}
	for _, m := range t.held() {
		a.ProposedAssignments = append(a.ProposedAssignments, assignment{m})
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
