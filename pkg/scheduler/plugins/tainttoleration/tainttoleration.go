// Package tainttoleration keeps pods off nodes with taints that they do not tolerate,
// and prefers nodes with few taints of the softer kind.
package tainttoleration

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/plugins/normalize"
)

// Name of the plugin.
const Name = "TaintToleration"

const (
	stateKey = fwk.StateKey("PreScore" + Name)
	reason   = "node(s) had untolerated taint(s)"
)

// Plugin implements filter, preScore and score.
type Plugin struct{}

var (
	_ fwk.FilterPlugin      = Plugin{}
	_ fwk.PreScorePlugin    = Plugin{}
	_ fwk.ScorePlugin       = Plugin{}
	_ fwk.ScoreExtensions   = Plugin{}
	_ fwk.EnqueueExtensions = Plugin{}
	_ fwk.SignPlugin        = Plugin{}
)

// soft are the tolerations that speak of PreferNoSchedule.
type soft []v1.Toleration

// Clone returns the tolerations themselves, which do not change.
func (s soft) Clone() fwk.StateData { return s }

// New makes the plugin.
func New(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return Plugin{}, nil }

// Name returns the plugin's name.
func (Plugin) Name() string { return Name }

// Filter rejects nodes with a taint NoSchedule or NoExecute that the pod does not tolerate.
func (Plugin) Filter(ctx context.Context, _ fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	if untolerated(klog.FromContext(ctx), node.Node(), pod) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reason)
	}
	return nil
}

func untolerated(logger klog.Logger, node *v1.Node, pod *v1.Pod) bool {
	_, found := corev1helpers.FindMatchingUntoleratedTaint(logger, node.Spec.Taints, pod.Spec.Tolerations, func(t *v1.Taint) bool {
		return t.Effect == v1.TaintEffectNoSchedule || t.Effect == v1.TaintEffectNoExecute
	}, false)
	return found
}

// PreScore picks the tolerations that matter for scoring.
func (Plugin) PreScore(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	var s soft
	for _, t := range pod.Spec.Tolerations {
		if t.Effect == "" || t.Effect == v1.TaintEffectPreferNoSchedule {
			s = append(s, t)
		}
	}
	state.Write(stateKey, s)
	return nil
}

// Score counts the taints PreferNoSchedule that the pod does not tolerate.
func (Plugin) Score(ctx context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	s, err := state.Read(stateKey)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	var n int64
	for i := range node.Node().Spec.Taints {
		taint := &node.Node().Spec.Taints[i]
		if taint.Effect == v1.TaintEffectPreferNoSchedule &&
			!corev1helpers.TolerationsTolerateTaint(klog.FromContext(ctx), s.(soft), taint, false) {
			n++
		}
	}
	return n, nil
}

// ScoreExtensions returns the plugin, which normalizes.
func (p Plugin) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore turns counts of taints into scores: the fewer the better.
func (Plugin) NormalizeScore(_ context.Context, _ fwk.CycleState, _ *v1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	return normalize.ToMax(scores, true)
}

// ByNode says that what the plugin says of a node follows from the pod's signature and
// the node, so pods that are alike share it.
func (Plugin) ByNode() {}

// SignPod tells pods apart by their tolerations.
func (Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return []fwk.SignFragment{{Key: fwk.TolerationsSignerName, Value: fwk.TolerationsSigner(pod)}}, nil
}

// EventsToRegister: a node may come or lose taints, the pod may learn to tolerate them.
func (Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeTaint}, QueueingHintFn: tolerable},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodToleration}},
	}, nil
}

func tolerable(logger klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	old, _ := oldObj.(*v1.Node)
	node, ok := newObj.(*v1.Node)
	if !ok || !untolerated(logger, node, pod) && (old == nil || untolerated(logger, old, pod)) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}
