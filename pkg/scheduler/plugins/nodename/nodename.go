// Package nodename keeps a pod that names its node off all others.
package nodename

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
)

// Name of the plugin.
const Name = "NodeName"

const reason = "node(s) didn't match the requested node name"

// Plugin implements filter.
type Plugin struct{}

var (
	_ fwk.PreFilterPlugin   = Plugin{}
	_ fwk.FilterPlugin      = Plugin{}
	_ fwk.EnqueueExtensions = Plugin{}
	_ fwk.SignPlugin        = Plugin{}
)

// New makes the plugin.
func New(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return Plugin{}, nil }

// Name returns the plugin's name.
func (Plugin) Name() string { return Name }

// PreFilter narrows the nodes down to the one that the pod names.
func (Plugin) PreFilter(_ context.Context, _ fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	if pod.Spec.NodeName == "" {
		return nil, nil
	}
	return &fwk.PreFilterResult{NodeNames: sets.New(pod.Spec.NodeName)}, nil
}

// PreFilterExtensions returns nil: other pods do not matter.
func (Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter rejects all nodes but the one named.
func (Plugin) Filter(_ context.Context, _ fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	if pod.Spec.NodeName == "" || pod.Spec.NodeName == node.Node().Name {
		return nil
	}
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reason)
}

// ByNode says that what the plugin says of a node follows from the pod's signature and
// the node, so pods that are alike share it.
func (Plugin) ByNode() {}

// SignPod tells pods apart that name different nodes.
func (Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: fwk.NodeNameSignerName, Value: pod.Spec.NodeName}}, nil
}

// EventsToRegister: only a new node can be the one named.
func (Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}}}, nil
}
