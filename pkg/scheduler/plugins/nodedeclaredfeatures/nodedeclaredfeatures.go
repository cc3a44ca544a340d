// Package nodedeclaredfeatures keeps pods that need a feature of the kubelet off nodes
// that do not declare it (KEP-5328), which older ones do not.
package nodedeclaredfeatures

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"
	ndf "k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/component"
)

// Name of the plugin.
const Name = "NodeDeclaredFeatures"

const (
	stateKey = fwk.StateKey("PreFilter" + Name)
	reason   = "node(s) didn't match Pod's required features"
)

// Plugin implements preFilter and filter.
type Plugin struct{ version *version.Version }

var (
	_ fwk.PreFilterPlugin   = &Plugin{}
	_ fwk.FilterPlugin      = &Plugin{}
	_ fwk.EnqueueExtensions = &Plugin{}
	_ fwk.SignPlugin        = &Plugin{}
)

type features struct{ ndf.FeatureSet }

// Clone returns the features themselves, which do not change.
func (f features) Clone() fwk.StateData { return f }

// New makes the plugin.
func New(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) {
	v, err := version.Parse(component.Version)
	if err != nil {
		return nil, err
	}
	return &Plugin{v}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

func (p *Plugin) needs(pod *v1.Pod) (ndf.FeatureSet, error) {
	return ndf.DefaultFramework.InferForPodScheduling(&ndf.PodInfo{Spec: &pod.Spec}, p.version)
}

// PreFilter finds out what the pod needs.
func (p *Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	needs, err := p.needs(pod)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if needs.IsEmpty() {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(stateKey, features{needs})
	return nil, nil
}

// PreFilterExtensions returns nil: pods change nothing about a node's features.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter rejects nodes that do not declare what the pod needs.
func (p *Plugin) Filter(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	data, err := state.Read(stateKey)
	if err != nil {
		return fwk.AsStatus(err)
	}
	needs, ok := data.(features)
	if !ok {
		return fwk.AsStatus(fmt.Errorf("%s holds a %T", stateKey, data))
	}
	has, err := needs.IsSubset(node.GetNodeDeclaredFeatures())
	if err != nil {
		return fwk.AsStatus(err)
	}
	if !has {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reason)
	}
	return nil
}

// SignPod tells pods apart by what they need.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	needs, err := p.needs(pod)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	return []fwk.SignFragment{{Key: fwk.FeaturesSignerName, Value: needs.String()}}, nil
}

// EventsToRegister: a node may come or learn, the pod may come to need less.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeDeclaredFeature}, QueueingHintFn: p.nodeChanged},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.Update}},
	}, nil
}

func (p *Plugin) nodeChanged(_ klog.Logger, pod *v1.Pod, _, newObj any) (fwk.QueueingHint, error) {
	node, ok := newObj.(*v1.Node)
	if !ok {
		return fwk.Queue, nil
	}
	needs, err := p.needs(pod)
	if err != nil {
		return fwk.Queue, err
	}
	match, err := ndf.DefaultFramework.MatchNode(needs, node)
	if err != nil {
		return fwk.Queue, err
	}
	if !match.IsMatch {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}
