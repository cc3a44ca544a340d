// Package gangscheduling schedules enough pods of a gang or none (KEP-4671). Pods stay out
// of the queue until there are as many as the gang needs; the group is given up as soon as
// too few of them can get a node; and none is bound before enough have one reserved.
package gangscheduling

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// Name of the plugin.
const Name = "GangScheduling"

// permitTimeout is how long reserved pods wait for the others of their gang.
const permitTimeout = 5 * time.Minute

// Plugin implements preEnqueue, reserve's counterpart permit, and says when a placement is enough.
type Plugin struct {
	handle fwk.Handle
	groups fwk.PodGroupManager // nil while the GenericWorkload gate is off
}

var (
	_ fwk.PreEnqueuePlugin        = &Plugin{}
	_ fwk.PermitPlugin            = &Plugin{}
	_ fwk.EnqueueExtensions       = &Plugin{}
	_ framework.PlacementFeasible = &Plugin{}
)

// New makes the plugin.
func New(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	return &Plugin{handle: h, groups: h.PodGroupManager()}, nil
}

// Name returns the plugin's name.
func (*Plugin) Name() string { return Name }

// PreEnqueue admits a pod of a gang when there are enough of them, and one of a tree of
// groups when there are enough for its root.
func (p *Plugin) PreEnqueue(_ context.Context, pod *v1.Pod) *fwk.Status {
	key, ok := p.keyOf(pod)
	if !ok {
		return nil
	}
	g, err := p.groups.PodGroups().Get(key.Namespace, key.Name)
	switch {
	case apierrors.IsNotFound(err):
		return Missing(key.Name)
	case err != nil:
		return fwk.AsStatus(err)
	}
	root, ok, err := p.groups.GetRootKeyForGroup(key)
	switch {
	case err != nil:
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, err.Error())
	case !ok:
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("waiting for composite pod group %q to appear in scheduling queue", root.Name))
	case root == key && g.Spec.SchedulingPolicy.Gang == nil:
		return nil
	}
	enough, err := p.enough(root, fwk.PodGroupState.AllPodsCount)
	switch {
	case err != nil:
		return fwk.AsStatus(err)
	case enough:
		return nil
	case root == key:
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "waiting for minCount pods from a gang to appear in scheduling queue")
	}
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, waitingForTree(root))
}

// Missing is what is said of a pod whose group is not there.
func Missing(group string) *fwk.Status {
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("waiting for pods's pod group %q to appear in scheduling queue", group)).WithPlugin(Name)
}

func waitingForTree(root fwk.EntityKey) string {
	return fmt.Sprintf("waiting for composite pod group %q tree to meet quorum", root.Name)
}

// enough says whether a group has as many pods as it needs, by count, or a group of groups as many
// groups that have.
func (p *Plugin) enough(key fwk.EntityKey, count func(fwk.PodGroupState) int) (bool, error) {
	if key.Type == fwk.PodGroupKeyType {
		g, err := p.groups.PodGroups().Get(key.Namespace, key.Name)
		if err != nil {
			return false, err
		}
		state, err := p.groups.PodGroupStates().Get(key.Namespace, key.Name)
		if err != nil {
			return false, err
		}
		return count(state) >= needed(g), nil
	}
	composite, err := p.groups.CompositePodGroups().Get(key.Namespace, key.Name)
	if err != nil {
		return false, err
	}
	below, err := p.groups.CompositePodGroupStates().Get(key.Namespace, key.Name)
	if err != nil {
		return false, err
	}
	have := 0
	for _, child := range below.GetChildren() {
		enough, err := p.enough(child, count)
		if err != nil {
			return false, err
		}
		if enough {
			have++
		}
	}
	return have >= neededBelow(composite), nil
}

// PlacementFeasible gives a placement up as soon as too few pods, or too few of the groups of
// a group of groups, can get nodes there.
func (p *Plugin) PlacementFeasible(_ context.Context, _ fwk.PlacementCycleState, group fwk.PodGroupInfo, progress framework.Progress) *fwk.Status {
	least := 0
	if composite := group.GetCompositePodGroup(); composite != nil {
		least = neededBelow(composite)
	} else {
		least = needed(group.GetPodGroup())
	}
	switch {
	case progress.Scheduled >= least:
		return nil
	case progress.Scheduled+progress.Remaining >= least:
		return fwk.NewStatus(fwk.Wait, "waiting for minCount pods from a gang to be scheduled")
	}
	return fwk.NewStatus(fwk.Unschedulable, fmt.Sprintf("minCount (%d) cannot be satisfied: %d scheduled, %d remaining", least, progress.Scheduled, progress.Remaining))
}

// needed is how many pods of a group must have a node: one, if it is no gang.
func needed(g *schedulingv1beta1.PodGroup) int {
	if gang := g.Spec.SchedulingPolicy.Gang; gang != nil {
		return int(max(gang.MinCount, 1))
	}
	return 1
}

// neededBelow is how many of the groups of a group of groups must get what they need: one, if it is no gang.
func neededBelow(g *schedulingv1alpha3.CompositePodGroup) int {
	if gang := g.Spec.SchedulingPolicy.Gang; gang != nil {
		return int(max(gang.MinGroupCount, 1))
	}
	return 1
}

// Permit keeps reserved pods from being bound until there are enough of them.
func (p *Plugin) Permit(ctx context.Context, _ fwk.CycleState, pod *v1.Pod, _ string) (*fwk.Status, time.Duration) {
	key, ok := p.keyOf(pod)
	if !ok {
		return nil, 0
	}
	root, ok, err := p.groups.GetRootKeyForGroup(key)
	if err == nil && !ok {
		err = fmt.Errorf("%s is not there", root)
	}
	if err != nil {
		return fwk.AsStatus(err), 0
	}
	enough, err := p.enough(root, fwk.PodGroupState.ScheduledPodsCount)
	if err != nil {
		return fwk.AsStatus(err), 0
	}
	states, err := podgroup.States(p.groups, root)
	if err != nil {
		return fwk.AsStatus(err), 0
	}
	if !enough {
		for _, s := range states {
			p.handle.Activate(klog.FromContext(ctx), s.UnscheduledPods())
		}
		if root == key {
			return fwk.NewStatus(fwk.Wait, "waiting for minCount pods from a gang to be scheduled"), permitTimeout
		}
		return fwk.NewStatus(fwk.Wait, waitingForTree(root)), permitTimeout
	}
	for _, s := range states {
		for uid := range s.AssumedPods() {
			if waiting := p.handle.GetWaitingPod(uid); waiting != nil {
				waiting.Allow(Name)
			}
		}
	}
	return nil, 0
}

func (p *Plugin) keyOf(pod *v1.Pod) (fwk.EntityKey, bool) {
	if p.groups == nil {
		return fwk.EntityKey{}, false
	}
	return podgroup.EntityOf(pod)
}

// EventsToRegister: another pod of the tree can complete a gang, and so can a group that comes,
// or needs fewer pods.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	if p.groups == nil {
		return nil, nil
	}
	events := []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Add}, QueueingHintFn: p.afterPod},
		{Event: fwk.ClusterEvent{Resource: fwk.PodGroup, ActionType: fwk.Add}, QueueingHintFn: p.afterGroup},
		{Event: fwk.ClusterEvent{Resource: fwk.PodGroup, ActionType: fwk.Update}, QueueingHintFn: p.afterGroupChange},
	}
	if framework.GatesOf(p.handle).CompositePodGroup {
		events = append(events, fwk.ClusterEventWithHint{Event: fwk.ClusterEvent{Resource: fwk.CompositePodGroup, ActionType: fwk.Add}, QueueingHintFn: p.afterComposite})
	}
	return events, nil
}

func hint(queue bool) (fwk.QueueingHint, error) {
	if queue {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

func (p *Plugin) afterPod(_ klog.Logger, pod *v1.Pod, _, added any) (fwk.QueueingHint, error) {
	return hint(podgroup.Mate(p.groups, pod, added))
}

func (p *Plugin) afterGroup(_ klog.Logger, pod *v1.Pod, _, added any) (fwk.QueueingHint, error) {
	g, ok := added.(*schedulingv1beta1.PodGroup)
	return hint(ok && p.related(pod, fwk.PodGroupKey(g.Namespace, g.Name)))
}

func (p *Plugin) afterGroupChange(_ klog.Logger, pod *v1.Pod, before, after any) (fwk.QueueingHint, error) {
	was, ok := before.(*schedulingv1beta1.PodGroup)
	is, ok2 := after.(*schedulingv1beta1.PodGroup)
	return hint(ok && ok2 && needed(is) < needed(was) && p.related(pod, fwk.PodGroupKey(is.Namespace, is.Name)))
}

func (p *Plugin) afterComposite(_ klog.Logger, pod *v1.Pod, _, added any) (fwk.QueueingHint, error) {
	g, ok := added.(*schedulingv1alpha3.CompositePodGroup)
	return hint(ok && p.related(pod, fwk.CompositePodGroupKey(g.Namespace, g.Name)))
}

func (p *Plugin) related(pod *v1.Pod, group fwk.EntityKey) bool {
	key, ok := podgroup.EntityOf(pod)
	return ok && podgroup.Related(p.groups, key, group)
}
