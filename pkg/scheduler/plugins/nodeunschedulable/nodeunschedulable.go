// Package nodeunschedulable keeps pods off cordoned nodes, unless they tolerate it.
package nodeunschedulable

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// Name of the plugin.
const Name = "NodeUnschedulable"

const reason = "node(s) were unschedulable"

// Plugin implements filter.
type Plugin struct{}

var (
	_ fwk.FilterPlugin      = Plugin{}
	_ fwk.EnqueueExtensions = Plugin{}
	_ fwk.SignPlugin        = Plugin{}
)

// New makes the plugin.
func New(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return Plugin{}, nil }

// Name returns the plugin's name.
func (Plugin) Name() string { return Name }

// Filter rejects cordoned nodes.
func (Plugin) Filter(ctx context.Context, _ fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	if !node.Node().Spec.Unschedulable || tolerates(klog.FromContext(ctx), pod) {
		return nil
	}
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reason)
}

func tolerates(logger klog.Logger, pod *v1.Pod) bool {
	return corev1helpers.TolerationsTolerateTaint(logger, pod.Spec.Tolerations,
		&v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}, false)
}

// ByNode says that what the plugin says of a node follows from the pod's signature and
// the node, so pods that are alike share it.
func (Plugin) ByNode() {}

// SignPod tells pods apart by their tolerations.
func (Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: fwk.TolerationsSignerName, Value: fwk.TolerationsSigner(pod)}}, nil
}

// EventsToRegister: a node may come or be uncordoned, the pod may learn to tolerate.
func (Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeTaint}, QueueingHintFn: uncordoned},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodToleration}, QueueingHintFn: learntToTolerate},
	}, nil
}

func uncordoned(logger klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	old, _ := oldObj.(*v1.Node)
	node, ok := newObj.(*v1.Node)
	if !ok || !node.Spec.Unschedulable && (old == nil || old.Spec.Unschedulable) || old == nil && tolerates(logger, pod) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

func learntToTolerate(logger klog.Logger, pod *v1.Pod, _, newObj any) (fwk.QueueingHint, error) {
	changed, ok := newObj.(*v1.Pod)
	if !ok || changed.UID == pod.UID && tolerates(logger, changed) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}
