// Package nodeports keeps a pod off nodes where a host port that it wants is taken.
package nodeports

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
)

// Name of the plugin.
const Name = "NodePorts"

const (
	stateKey = fwk.StateKey("PreFilter" + Name)
	reason   = "node(s) didn't have free ports for the requested pod ports"
)

// Plugin implements preFilter and filter.
type Plugin struct{}

var (
	_ fwk.PreFilterPlugin   = Plugin{}
	_ fwk.FilterPlugin      = Plugin{}
	_ fwk.EnqueueExtensions = Plugin{}
	_ fwk.SignPlugin        = Plugin{}
)

type ports []v1.ContainerPort

// Clone returns the ports themselves, which do not change.
func (p ports) Clone() fwk.StateData { return p }

// New makes the plugin.
func New(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return Plugin{}, nil }

// Name returns the plugin's name.
func (Plugin) Name() string { return Name }

// PreFilter collects the pod's host ports.
func (Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	wanted := slices.Collect(cache.HostPorts(pod))
	if len(wanted) == 0 {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(stateKey, ports(wanted))
	return nil, nil
}

// PreFilterExtensions returns nil: Filter looks at the node as it is.
func (Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter rejects nodes where one of the ports is in use.
func (Plugin) Filter(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	wanted, err := state.Read(stateKey)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if conflict(wanted.(ports), node.GetUsedPorts()) {
		return fwk.NewStatus(fwk.Unschedulable, reason)
	}
	return nil
}

func conflict(wanted []v1.ContainerPort, used fwk.HostPortInfo) bool {
	return slices.ContainsFunc(wanted, func(p v1.ContainerPort) bool {
		return used.CheckConflict(p.HostIP, string(p.Protocol), p.HostPort)
	})
}

// ByNode says that what the plugin says of a node follows from the pod's signature and
// the node, so pods that are alike share it.
func (Plugin) ByNode() {}

// SignPod tells pods apart by their host ports, with protocols and addresses.
func (Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: fwk.HostPortsSignerName, Value: slices.Collect(cache.HostPorts(pod))}}, nil
}

// EventsToRegister: a pod that goes may free a port; a new node has them all.
func (Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, QueueingHintFn: freesPort},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}},
	}, nil
}

func freesPort(_ klog.Logger, pod *v1.Pod, gone, _ any) (fwk.QueueingHint, error) {
	deleted, ok := gone.(*v1.Pod)
	if !ok {
		return fwk.Queue, nil
	}
	freed := fwk.HostPortInfo{}
	for p := range cache.HostPorts(deleted) {
		freed.Add(p.HostIP, string(p.Protocol), p.HostPort)
	}
	if conflict(slices.Collect(cache.HostPorts(pod)), freed) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}
