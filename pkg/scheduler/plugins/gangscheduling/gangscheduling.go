// Package gangscheduling schedules enough pods of a gang or none (KEP-4671). Pods stay out
// of the queue until there are as many as the gang needs; the group is given up as soon as
// too few of them can get a node; and none is bound before enough have one reserved.
package gangscheduling

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
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

// PreEnqueue admits a pod of a gang when there are enough of them.
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
	case g.Spec.SchedulingPolicy.Gang == nil:
		return nil
	}
	state, err := p.groups.PodGroupStates().Get(key.Namespace, key.Name)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if state.AllPodsCount() < needed(g) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "waiting for minCount pods from a gang to appear in scheduling queue")
	}
	return nil
}

// Missing is what is said of a pod whose group is not there.
func Missing(group string) *fwk.Status {
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("waiting for pods's pod group %q to appear in scheduling queue", group)).WithPlugin(Name)
}

// PlacementFeasible gives a placement up as soon as too few pods can get a node there.
func (p *Plugin) PlacementFeasible(_ context.Context, _ fwk.PlacementCycleState, group fwk.PodGroupInfo, progress framework.Progress) *fwk.Status {
	least := needed(group.GetPodGroup())
	switch {
	case progress.Scheduled >= least:
		return nil
	case progress.Scheduled+progress.Remaining >= least:
		return fwk.NewStatus(fwk.Wait, "waiting for minCount pods from a gang to be scheduled")
	}
	return fwk.NewStatus(fwk.Unschedulable, fmt.Sprintf("minCount (%d) cannot be satisfied", least))
}

// needed is how many pods of a group must have a node: one, if it is no gang.
func needed(g *schedulingv1beta1.PodGroup) int {
	if gang := g.Spec.SchedulingPolicy.Gang; gang != nil {
		return int(max(gang.MinCount, 1))
	}
	return 1
}

// Permit keeps reserved pods from being bound until there are enough of them.
func (p *Plugin) Permit(ctx context.Context, _ fwk.CycleState, pod *v1.Pod, _ string) (*fwk.Status, time.Duration) {
	key, ok := p.keyOf(pod)
	if !ok {
		return nil, 0
	}
	g, err := p.groups.PodGroups().Get(key.Namespace, key.Name)
	if err != nil {
		return fwk.AsStatus(err), 0
	}
	if g.Spec.SchedulingPolicy.Gang == nil {
		return nil, 0
	}
	state, err := p.groups.PodGroupStates().Get(key.Namespace, key.Name)
	if err != nil {
		return fwk.AsStatus(err), 0
	}
	if state.ScheduledPodsCount() < needed(g) {
		p.handle.Activate(klog.FromContext(ctx), state.UnscheduledPods())
		return fwk.NewStatus(fwk.Wait, "waiting for minCount pods from a gang to be scheduled"), permitTimeout
	}
	for uid := range state.AssumedPods() {
		if waiting := p.handle.GetWaitingPod(uid); waiting != nil {
			waiting.Allow(Name)
		}
	}
	return nil, 0
}

func (p *Plugin) keyOf(pod *v1.Pod) (types.NamespacedName, bool) {
	if p.groups == nil {
		return types.NamespacedName{}, false
	}
	return podgroup.KeyOf(pod)
}

// EventsToRegister: another pod of the gang can complete it, and so can a gang that comes,
// or needs fewer pods.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	if p.groups == nil {
		return nil, nil
	}
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Pod, ActionType: fwk.Add}, QueueingHintFn: afterPod},
		{Event: fwk.ClusterEvent{Resource: fwk.PodGroup, ActionType: fwk.Add}, QueueingHintFn: afterGroup},
		{Event: fwk.ClusterEvent{Resource: fwk.PodGroup, ActionType: fwk.Update}, QueueingHintFn: afterGroupChange},
	}, nil
}

func hint(queue bool) (fwk.QueueingHint, error) {
	if queue {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

func afterPod(_ klog.Logger, pod *v1.Pod, _, added any) (fwk.QueueingHint, error) {
	mine, ok := podgroup.KeyOf(pod)
	if other, is := added.(*v1.Pod); ok && is {
		theirs, grouped := podgroup.KeyOf(other)
		return hint(grouped && theirs == mine)
	}
	return fwk.QueueSkip, nil
}

func afterGroup(_ klog.Logger, pod *v1.Pod, _, added any) (fwk.QueueingHint, error) {
	g, ok := added.(*schedulingv1beta1.PodGroup)
	return hint(ok && isOf(pod, g))
}

func afterGroupChange(_ klog.Logger, pod *v1.Pod, before, after any) (fwk.QueueingHint, error) {
	was, ok := before.(*schedulingv1beta1.PodGroup)
	is, ok2 := after.(*schedulingv1beta1.PodGroup)
	return hint(ok && ok2 && isOf(pod, is) && needed(is) < needed(was))
}

func isOf(pod *v1.Pod, g *schedulingv1beta1.PodGroup) bool {
	key, ok := podgroup.KeyOf(pod)
	return ok && key.Namespace == g.Namespace && key.Name == g.Name
}
