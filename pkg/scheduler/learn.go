package scheduler

import (
	"context"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// What a mind learns of pods and nodes: the cache and the queue are told.

func (m *mind) podChanged(ctx context.Context, old, pod *v1.Pod) {
	if old != nil && old.UID != pod.UID { // deleted and made again between two looks
		m.podGone(ctx, old)
		old = nil
	}
	m.groups.Set(pod)
	if pod.Spec.NodeName == "" {
		m.pendingPodChanged(ctx, old, pod)
		return
	}
	m.cache.SetPod(pod)
	if old == nil || old.Spec.NodeName == "" {
		m.mayBreak(ctx, pod, pod.Spec.NodeName, func() { m.queue.Delete(pod) })
		m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Add}, nil, pod)
		return
	}
	for _, a := range queue.PodChanges(old, pod) {
		m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: a}, old, pod)
	}
}

func (m *mind) pendingPodChanged(ctx context.Context, old, pod *v1.Pod) {
	if old == nil {
		if m.profiles[pod.Spec.SchedulerName] != nil {
			m.queue.Add(ctx, pod)
		}
		m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.UnscheduledPod, ActionType: fwk.Add}, nil, pod)
		return
	}
	if m.profiles[pod.Spec.SchedulerName] != nil && !m.cache.IsAssumed(pod.UID) {
		m.mayBreak(ctx, pod, "", func() { m.queue.Update(ctx, old, pod) })
	}
	for _, a := range queue.PodChanges(old, pod) {
		m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.UnscheduledPod, ActionType: a}, old, pod)
	}
}

func (m *mind) podGone(ctx context.Context, pod *v1.Pod) {
	m.groups.Delete(pod)
	if pod.Spec.NodeName == "" {
		m.mayBreak(ctx, pod, "", func() { m.queue.Delete(pod) })
		if key, ok := podgroup.EntityOf(pod); ok && m.groups != nil {
			m.queue.Release(ctx, m.groups.Mates(key))
		}
		for _, fw := range m.profiles {
			fw.RejectWaitingPod(pod.UID)
			if p := fw.GetPodInPreBind(pod.UID); p != nil {
				p.CancelPod("the pod was deleted")
			}
		}
		m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.UnscheduledPod, ActionType: fwk.Delete}, pod, nil)
		return
	}
	m.cache.RemovePod(pod.UID)
	m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, pod, nil)
}

func (m *mind) nodeChanged(ctx context.Context, old, node *v1.Node) {
	if old == nil {
		m.cache.SetNode(node)
		m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}, nil, node)
		return
	}
	m.cache.SetNode(node)
	for _, a := range queue.NodeChanges(old, node) {
		m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.Node, ActionType: a}, old, node)
	}
}

func (m *mind) nodeGone(ctx context.Context, node *v1.Node) {
	m.cache.RemoveNode(node.Name)
	m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Delete}, node, nil)
}
