package interpodaffinity

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/topology"
)

// EventsToRegister: friends may come, foes may go, nodes may come or change domain.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Add | fwk.UpdatePodLabel | fwk.Delete}, QueueingHintFn: p.otherPodChanged},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodLabel}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel}, QueueingHintFn: nodeChanged},
	}, nil
}

func (p *Plugin) otherPodChanged(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	old, _ := oldObj.(*v1.Pod)
	other, _ := newObj.(*v1.Pod)
	info, err := cache.NewPodInfo(pod)
	if err != nil {
		return fwk.Queue, err
	}
	friends, err := p.groups(info.GetRequiredAffinityTerms())
	if err != nil {
		return fwk.Queue, err
	}
	foes, err := p.groups(info.GetRequiredAntiAffinityTerms())
	if err != nil {
		return fwk.Queue, err
	}
	friend := func(q *v1.Pod) bool {
		return q != nil && len(friends) > 0 && !slices.ContainsFunc(friends, func(g topology.Group) bool { return !g.Matches(q) })
	}
	foe := func(q *v1.Pod) bool {
		return q != nil && slices.ContainsFunc(foes, func(g topology.Group) bool { return g.Matches(q) })
	}
	if !friend(old) && friend(other) || foe(old) && !foe(other) {
		return fwk.Queue, nil
	}
	if old != nil && other == nil { // gone: did it keep the pod away?
		gone, err := cache.NewPodInfo(old)
		if err != nil {
			return fwk.Queue, err
		}
		namespace := p.labelsOf(pod.Namespace)
		terms := gone.GetRequiredAntiAffinityTerms()
		for i := range terms {
			if terms[i].Matches(pod, namespace) {
				return fwk.Queue, nil
			}
		}
	}
	return fwk.QueueSkip, nil
}

func (p *Plugin) groups(terms []fwk.AffinityTerm) ([]topology.Group, error) {
	var out []topology.Group
	for i := range terms {
		g, err := p.group(&terms[i])
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

func nodeChanged(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	old, _ := oldObj.(*v1.Node)
	node, ok := newObj.(*v1.Node)
	if !ok {
		return fwk.Queue, nil
	}
	friends := fwk.GetPodAffinityTerms(pod.Spec.Affinity)
	if len(friends) == 0 && old == nil {
		return fwk.Queue, nil // nobody is there who could keep the pod away
	}
	for _, t := range friends {
		domain, has := node.Labels[t.TopologyKey]
		if has && (old == nil || !hasLabel(old, t.TopologyKey, domain)) {
			return fwk.Queue, nil
		}
	}
	for _, t := range fwk.GetPodAntiAffinityTerms(pod.Spec.Affinity) {
		if old == nil {
			continue
		}
		if domain, had := old.Labels[t.TopologyKey]; had && !hasLabel(node, t.TopologyKey, domain) {
			return fwk.Queue, nil
		}
	}
	return fwk.QueueSkip, nil
}

func hasLabel(node *v1.Node, key, value string) bool {
	v, ok := node.Labels[key]
	return ok && v == value
}
