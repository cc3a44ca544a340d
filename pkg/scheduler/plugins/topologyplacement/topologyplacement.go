// Package topologyplacement keeps the pods of a group, or of a group of groups, within one
// domain of a topology: nodes with the same value of a label (KEP-5732).
package topologyplacement

import (
	"context"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// Name of the plugin.
const Name = "TopologyPlacementGenerator"

// Plugin implements placementGenerate.
type Plugin struct{ handle fwk.Handle }

var (
	_ fwk.PlacementGeneratePlugin = &Plugin{}
	_ fwk.EnqueueExtensions       = &Plugin{}
)

// New makes the plugin.
func New(_ context.Context, _ runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	return &Plugin{h}, nil
}

// Name returns the plugin's name.
func (*Plugin) Name() string { return Name }

// GeneratePlacements returns a placement for each domain, by its name; only that of the
// pods that have a node already, if there are any.
func (p *Plugin) GeneratePlacements(_ context.Context, _ fwk.PodGroupCycleState, group fwk.PodGroupInfo, parent *fwk.Placement) (*fwk.GeneratePlacementsResult, *fwk.Status) {
	key := podgroup.TopologyKey(group)
	if key == "" {
		return &fwk.GeneratePlacementsResult{Placements: []*fwk.Placement{parent}}, nil
	}
	scheduled, err := podgroup.ScheduledPods(p.handle.SnapshotSharedLister(), podgroup.KeyOfInfo(group))
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	domain, bound, err := domainOf(scheduled, key, p.handle.SnapshotSharedLister().NodeInfos())
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	domains := map[string][]fwk.NodeInfo{}
	for _, n := range parent.Nodes {
		if value, ok := n.Node().Labels[key]; ok && (!bound || value == domain) {
			domains[value] = append(domains[value], n)
		}
	}
	result := &fwk.GeneratePlacementsResult{}
	for _, name := range slices.Sorted(maps.Keys(domains)) {
		result.Placements = append(result.Placements, &fwk.Placement{Name: name, Nodes: domains[name]})
	}
	return result, nil
}

// domainOf returns the domain that pods are in; false if there are no pods.
func domainOf(pods []*v1.Pod, key string, nodes fwk.NodeInfoLister) (domain string, bound bool, err error) {
	for _, pod := range pods {
		node, err := nodes.Get(pod.Spec.NodeName)
		if err != nil {
			return "", false, fmt.Errorf("pod %s of the group: %w", pod.Name, err)
		}
		value, ok := node.Node().Labels[key]
		if !ok {
			return "", false, fmt.Errorf("pod %s of the group is on node %s, which has no label %s", pod.Name, pod.Spec.NodeName, key)
		}
		if bound && value != domain {
			return "", false, fmt.Errorf("pods of the group are in more than one domain of %s: %s and %s", key, domain, value)
		}
		domain, bound = value, true
	}
	return domain, bound, nil
}

// EventsToRegister: a node can come into a domain, and a pod that binds its group to a
// domain can go.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel}},
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, QueueingHintFn: p.afterMate},
	}, nil
}

func (p *Plugin) afterMate(_ klog.Logger, pod *v1.Pod, gone, _ any) (fwk.QueueingHint, error) {
	if podgroup.Mate(p.handle.PodGroupManager(), pod, gone) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}
