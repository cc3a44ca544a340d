package podtopologyspread

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// EventsToRegister: counts change with pods, domains with nodes.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Add | fwk.UpdatePodLabel | fwk.Delete}, QueueingHintFn: p.otherPodChanged},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodToleration | fwk.UpdatePodLabel}, QueueingHintFn: p.podChanged},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.Delete | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint}, QueueingHintFn: p.nodeChanged},
	}, nil
}

// counts reports whether a constraint counts a pod with some labels.
func counts(c constraint, pod *v1.Pod) bool {
	return pod != nil && c.selector.Matches(labels.Set(pod.Labels))
}

func (p *Plugin) otherPodChanged(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	old, _ := oldObj.(*v1.Pod)
	other, _ := newObj.(*v1.Pod)
	for _, q := range []*v1.Pod{old, other} {
		if q != nil && q.Namespace != pod.Namespace {
			return fwk.QueueSkip, nil
		}
	}
	list, err := p.constraints(pod, v1.DoNotSchedule)
	if err != nil {
		return fwk.Queue, err
	}
	if slices.ContainsFunc(list, func(c constraint) bool { return counts(c, old) != counts(c, other) }) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

func (p *Plugin) podChanged(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	old, _ := oldObj.(*v1.Pod)
	changed, ok := newObj.(*v1.Pod)
	if !ok || old == nil {
		return fwk.Queue, nil
	}
	list, err := p.constraints(pod, v1.DoNotSchedule)
	if err != nil {
		return fwk.Queue, err
	}
	tolerates := !equality.Semantic.DeepEqual(old.Spec.Tolerations, changed.Spec.Tolerations)
	if slices.ContainsFunc(list, func(c constraint) bool {
		return tolerates && c.honorTaints || counts(c, old) != counts(c, changed)
	}) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}

func (p *Plugin) nodeChanged(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	old, _ := oldObj.(*v1.Node)
	node, _ := newObj.(*v1.Node)
	list, err := p.constraints(pod, v1.DoNotSchedule)
	if err != nil {
		return fwk.Queue, err
	}
	required := keys(list)
	was, is := old != nil && hasAll(old, required), node != nil && hasAll(node, required)
	if was != is {
		return fwk.Queue, nil
	}
	moved := was && is && (slices.ContainsFunc(required, func(key string) bool { return old.Labels[key] != node.Labels[key] }) ||
		!equality.Semantic.DeepEqual(old.Spec.Taints, node.Spec.Taints))
	if moved {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}
