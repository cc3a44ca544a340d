package defaultpreemption

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// Preemption for pod groups (KEP-5710): victims are looked for in the whole cluster, and
// pods of a group that must not be disrupted one by one go together or not at all.

var _ fwk.PodGroupPostFilterPlugin = &Plugin{}

// PodGroupPostFilter finds victims for a group that fits nowhere.
func (p *Plugin) PodGroupPostFilter(ctx context.Context, state fwk.PodGroupCycleState, group fwk.PodGroupInfo, schedule fwk.PodGroupSchedulingFunc) (*fwk.PodGroupPostFilterResult, *fwk.Status) {
	began := time.Now()
	result, s := p.preemptForGroup(ctx, state, group, schedule)
	if !framework.IsGroupTrial(state) {
		p.metrics.triedForGroup(group.GetType(), s, time.Since(began))
	}
	if msg := s.Message(); msg != "" {
		s = fwk.NewStatus(s.Code(), "pod group preemption: "+msg)
	}
	return result, s
}

func (p *Plugin) preemptForGroup(ctx context.Context, state fwk.PodGroupCycleState, group fwk.PodGroupInfo, schedule fwk.PodGroupSchedulingFunc) (*fwk.PodGroupPostFilterResult, *fwk.Status) {
	pods := group.GetUnscheduledPods()
	if p.never(group) {
		return nil, fwk.NewStatus(fwk.Unschedulable, "not eligible due to preemptionPolicy=Never.")
	}
	snapshot := p.handle.MutableSnapshotSharedLister()
	nodes, err := snapshot.NodeInfos().List()
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	units := unitsBelow(nodes, podgroup.PriorityOf(group), p.handle.PodGroupManager())
	if current := ongoing(pods, units); current != nil {
		return current, fwk.NewStatus(fwk.Success, "ongoing preemption on nominated nodes")
	}
	budgets, err := p.budgets.List(labels.Everything())
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if err := snapshot.StartMutations(); err != nil {
		return nil, fwk.AsStatus(err)
	}
	c := &groupTrial{handle: p.handle, snapshot: snapshot, schedule: schedule}
	victims, violations, assigned, s := c.selectUnits(ctx, units, budgets)
	if err := snapshot.EndMutations(); err != nil {
		return nil, fwk.AsStatus(err)
	}
	if !s.IsSuccess() {
		return nominateAll(pods, nil), s
	}
	state.Write(explain.PreemptionKey, consideredUnits(victims, violations))
	count := len(podsOf(victims))
	klog.FromContext(ctx).V(2).Info("Preempting for a pod group", "podGroup", group.GetKey(), "victims", count)
	if !framework.IsGroupTrial(state) {
		p.metrics.groupVictims.Observe(float64(count))
		p.evictUnits(group, victims)
	}
	return nominateAll(pods, assigned), fwk.NewStatus(fwk.Success, fmt.Sprintf("found a placement for podgroup, preempting %d victims", count))
}

// never reports whether the group may not preempt others.
func (p *Plugin) never(group fwk.PodGroupInfo) bool {
	if p.gates.PodGroupPreemptionPolicy {
		return podgroup.PreemptionPolicyOf(group) == v1.PreemptNever
	}
	return slices.ContainsFunc(group.GetUnscheduledPods(), func(pod *v1.Pod) bool {
		return pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == v1.PreemptNever
	})
}

// ongoing returns what the pods are promised while victims on those nodes are on their
// way out, nil if none is.
func ongoing(pods []*v1.Pod, units []*unit) *fwk.PodGroupPostFilterResult {
	going := map[string]bool{}
	for _, u := range units {
		for _, p := range u.pods {
			if endingForAnother(p.GetPod()) {
				going[p.GetPod().Spec.NodeName] = true
			}
		}
	}
	if !slices.ContainsFunc(pods, func(pod *v1.Pod) bool { return going[pod.Status.NominatedNodeName] }) {
		return nil
	}
	result := &fwk.PodGroupPostFilterResult{NominatingInfos: map[types.NamespacedName]*fwk.NominatingInfo{}}
	for _, pod := range pods {
		result.NominatingInfos[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}] = &fwk.NominatingInfo{
			NominatingMode: fwk.ModeOverride, NominatedNodeName: pod.Status.NominatedNodeName,
		}
	}
	return result
}

// nominateAll promises the pods the nodes that they would get; the others none.
func nominateAll(pods []*v1.Pod, assigned []fwk.ProposedAssignment) *fwk.PodGroupPostFilterResult {
	result := &fwk.PodGroupPostFilterResult{NominatingInfos: map[types.NamespacedName]*fwk.NominatingInfo{}}
	for _, pod := range pods {
		node := ""
		if i := slices.IndexFunc(assigned, func(a fwk.ProposedAssignment) bool { return a.GetPod().UID == pod.UID }); i >= 0 {
			node = assigned[i].GetNodeName()
		}
		result.NominatingInfos[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}] = nominate(node).NominatingInfo
	}
	return result
}

// evictUnits evicts victims for a group. PodGroups that go as a whole are told.
func (p *Plugin) evictUnits(group fwk.PodGroupInfo, units []*unit) {
	pods := group.GetUnscheduledPods()
	for _, u := range units {
		if u.whole.Type == fwk.PodGroupKeyType {
			go p.tellGroup(u.group, pods[0].Spec.SchedulerName)
		}
	}
	p.evictions.start(preemptor{pods: pods, group: group}, podsOf(units))
}

// tellGroup says in the status of a group that it goes.
func (p *Plugin) tellGroup(g *schedulingv1beta1.PodGroup, scheduler string) {
	c := metav1.Condition{
		Type: schedulingv1beta1.DisruptionTarget, Status: metav1.ConditionTrue, Reason: schedulingv1beta1.PodGroupReasonPreemptionByScheduler,
		Message: scheduler + ": preempting to accommodate a higher priority pod group",
	}
	if err := notAbsent(podgroup.Tell(p.evictions.ctx, p.handle.ClientSet(), g, c)); err != nil {
		klog.FromContext(p.evictions.ctx).Error(err, "Telling a pod group that it is preempted", "podGroup", klog.KObj(g))
	}
}

// consideredUnits tells people who would go, node by node.
func consideredUnits(units []*unit, violations int) *explain.Preemption {
	told := &explain.Preemption{}
	at := map[string]int{}
	for _, pod := range podsOf(units) {
		node := pod.Spec.NodeName
		i, ok := at[node]
		if !ok {
			i = len(told.Candidates)
			at[node] = i
			told.Candidates = append(told.Candidates, explain.Candidate{Node: node})
		}
		told.Candidates[i].Victims = append(told.Candidates[i].Victims, pod.Namespace+"/"+pod.Name)
	}
	if len(told.Candidates) > 0 {
		told.Candidates[0].Violations = violations
	}
	slices.SortFunc(told.Candidates, func(a, b explain.Candidate) int { return cmp.Compare(a.Node, b.Node) })
	return told
}

// groupTrial is the snapshot from which units are taken away and to which they are put back.
type groupTrial struct {
	handle   fwk.Handle
	snapshot fwk.MutableSnapshotSharedLister
	schedule fwk.PodGroupSchedulingFunc
}

// selectUnits takes all units away and then spares as many as it can while as many pods of
// the group find nodes: first those that a budget protects, then, at once, all above the
// lowest priority that must go, then the most important.
func (t *groupTrial) selectUnits(ctx context.Context, units []*unit, budgets []*policyv1.PodDisruptionBudget) (victims []*unit, violations int, assigned []fwk.ProposedAssignment, s *fwk.Status) {
	if len(units) == 0 {
		return nil, 0, nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "No preemption victims found for incoming preemptor")
	}
	if err := t.removeAll(ctx, units); err != nil {
		return nil, 0, nil, fwk.AsStatus(err)
	}
	a, s := t.schedule(ctx)
	if !s.IsSuccess() {
		return nil, 0, nil, s
	}
	most := len(a.ProposedAssignments)
	protected, others := splitUnits(units, budgets)
	if protected, s = t.spare(ctx, a, protected); !s.IsSuccess() {
		return nil, 0, nil, s
	}
	if others, a, s = t.spareAbove(ctx, a, others, most); !s.IsSuccess() {
		return nil, 0, nil, s
	}
	// The group may be elsewhere by now, so that more of those can stay that a budget protects.
	if victims, s = t.spare(ctx, a, slices.Concat(protected, others)); !s.IsSuccess() {
		return nil, 0, nil, s
	}
	if len(victims) == 0 {
		return nil, 0, nil, fwk.NewStatus(fwk.Unschedulable, "No preemption victims found for incoming preemptor")
	}
	for _, u := range victims {
		violations += u.violations
	}
	slices.SortStableFunc(victims, moreImportant)
	return victims, violations, a.ProposedAssignments, nil
}

// spare puts back the units that can stay beside the group on its nodes, and returns the others.
func (t *groupTrial) spare(ctx context.Context, a *fwk.PodGroupAssignments, units []*unit) ([]*unit, *fwk.Status) {
	if err := t.place(ctx, a, true); err != nil {
		return nil, fwk.AsStatus(err)
	}
	var victims []*unit
	for _, u := range units {
		stays, s := t.fitsBeside(ctx, a, u)
		if !s.IsSuccess() {
			return nil, s
		}
		if !stays {
			victims = append(victims, u)
		}
	}
	return victims, fwk.AsStatus(t.place(ctx, a, false))
}

// spareAbove puts back all units above the lowest priority that must be able to go so that
// as many pods of the group find nodes, and returns the rest, and where those pods go then.
func (t *groupTrial) spareAbove(ctx context.Context, a *fwk.PodGroupAssignments, units []*unit, most int) ([]*unit, *fwk.PodGroupAssignments, *fwk.Status) {
	// units are ordered by priority: starts are where each begins.
	var starts []int
	for i, u := range units {
		if i == 0 || u.priority != units[i-1].priority {
			starts = append(starts, i)
		}
	}
	low, high := 0, len(starts)-1 // all from starts[low] on must be able to go; from starts[high+1] on is too few
	for low < high {
		try := (low + high + 1) / 2
		spared := units[:starts[try]]
		if err := t.addAll(spared); err != nil {
			return nil, nil, fwk.AsStatus(err)
		}
		found, s := t.schedule(ctx)
		if err := t.removeAll(ctx, spared); err != nil {
			return nil, nil, fwk.AsStatus(err)
		}
		switch {
		case s.IsSuccess() && len(found.ProposedAssignments) >= most:
			low = try
		case s.IsSuccess() || s.IsRejected():
			high = try - 1
		default:
			return nil, nil, s
		}
	}
	if low > 0 {
		if err := t.addAll(units[:starts[low]]); err != nil {
			return nil, nil, fwk.AsStatus(err)
		}
		units = units[starts[low]:]
	}
	found, s := t.schedule(ctx)
	if !s.IsSuccess() || len(found.ProposedAssignments) < most {
		return units, a, nil // those that a budget protects have been spared beside these nodes
	}
	return units, found, nil
}

// fitsBeside puts a unit back, and takes it away again unless every pod of the group still
// fits where it would be.
func (t *groupTrial) fitsBeside(ctx context.Context, a *fwk.PodGroupAssignments, u *unit) (bool, *fwk.Status) {
	if err := t.addAll([]*unit{u}); err != nil {
		return false, fwk.AsStatus(err)
	}
	for _, proposed := range a.ProposedAssignments {
		s := t.stillFits(ctx, proposed, u)
		if s.IsSuccess() {
			continue
		}
		if !s.IsRejected() {
			return false, s
		}
		return false, fwk.AsStatus(t.removeAll(ctx, []*unit{u}))
	}
	return true, nil
}

// stillFits asks whether a pod of the group, which is counted on its node, fits there beside a unit.
func (t *groupTrial) stillFits(ctx context.Context, a fwk.ProposedAssignment, u *unit) *fwk.Status {
	pod, state := a.GetPod(), a.GetCycleState().Clone()
	for _, p := range u.pods {
		node, err := t.snapshot.NodeInfos().Get(p.GetPod().Spec.NodeName)
		if err != nil {
			return fwk.AsStatus(err)
		}
		if s := t.handle.RunPreFilterExtensionAddPod(ctx, state, pod, p, node); !s.IsSuccess() {
			return s
		}
	}
	node, err := t.snapshot.NodeInfos().Get(a.GetNodeName())
	if err != nil {
		return fwk.AsStatus(err)
	}
	without := node.Snapshot()
	if err := without.RemovePod(klog.FromContext(ctx), pod); err != nil {
		return fwk.AsStatus(err)
	}
	return t.handle.RunFilterPlugins(ctx, state, pod, without)
}

// place counts the pods of the group on their nodes, or no more.
func (t *groupTrial) place(ctx context.Context, a *fwk.PodGroupAssignments, there bool) error {
	for _, p := range a.ProposedAssignments {
		var err error
		if there {
			err = t.snapshot.AddPod(p.GetPodInfo(), p.GetNodeName())
		} else {
			err = t.snapshot.RemovePod(klog.FromContext(ctx), p.GetPod(), p.GetNodeName())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *groupTrial) removeAll(ctx context.Context, units []*unit) error {
	for _, u := range units {
		for _, p := range u.pods {
			if err := t.snapshot.RemovePod(klog.FromContext(ctx), p.GetPod(), p.GetPod().Spec.NodeName); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *groupTrial) addAll(units []*unit) error {
	for _, u := range units {
		for _, p := range u.pods {
			if err := t.snapshot.AddPod(p, p.GetPod().Spec.NodeName); err != nil {
				return err
			}
		}
	}
	return nil
}
