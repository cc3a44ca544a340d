// Package schedulinggates keeps pods with scheduling gates out of the queue (KEP-3521).
package schedulinggates

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// Name of the plugin.
const Name = "SchedulingGates"

// Plugin implements preEnqueue.
type Plugin struct{}

var (
	_ fwk.PreEnqueuePlugin  = Plugin{}
	_ fwk.EnqueueExtensions = Plugin{}
)

// New makes the plugin.
func New(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return Plugin{}, nil }

// Name returns the plugin's name.
func (Plugin) Name() string { return Name }

// PreEnqueue admits pods without gates.
func (Plugin) PreEnqueue(_ context.Context, pod *v1.Pod) *fwk.Status {
	if len(pod.Spec.SchedulingGates) == 0 {
		return nil
	}
	names := make([]string, len(pod.Spec.SchedulingGates))
	for i, g := range pod.Spec.SchedulingGates {
		names[i] = g.Name
	}
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("waiting for scheduling gates: %v", names))
}

// EventsToRegister: a gated pod gets another chance when its own gates are gone.
func (Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{{
		Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodSchedulingGatesEliminated},
		QueueingHintFn: func(_ klog.Logger, pod *v1.Pod, _, obj any) (fwk.QueueingHint, error) {
			if changed, ok := obj.(*v1.Pod); ok && changed.UID == pod.UID {
				return fwk.Queue, nil
			}
			return fwk.QueueSkip, nil
		},
	}}, nil
}
