// Package nodeaffinity matches a pod's nodeSelector and node affinity with the labels
// and names of nodes.
package nodeaffinity

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/plugins/normalize"
)

// Name of the plugin.
const Name = "NodeAffinity"

const (
	filterKey = fwk.StateKey("PreFilter" + Name)
	scoreKey  = fwk.StateKey("PreScore" + Name)

	reasonPod      = "node(s) didn't match Pod's node affinity/selector"
	reasonEnforced = "node(s) didn't match scheduler-enforced node affinity"
	reasonConflict = "pod affinity terms conflict"
)

// Plugin implements preFilter, filter, preScore and score.
type Plugin struct {
	// What the configuration adds to every pod's affinity.
	addedRequired  *nodeaffinity.NodeSelector
	addedPreferred *nodeaffinity.PreferredSchedulingTerms
}

var (
	_ fwk.PreFilterPlugin   = &Plugin{}
	_ fwk.FilterPlugin      = &Plugin{}
	_ fwk.PreScorePlugin    = &Plugin{}
	_ fwk.ScorePlugin       = &Plugin{}
	_ fwk.ScoreExtensions   = &Plugin{}
	_ fwk.EnqueueExtensions = &Plugin{}
	_ fwk.SignPlugin        = &Plugin{}
)

type required struct {
	nodeaffinity.RequiredNodeAffinity
}

// Clone returns the selector itself, which does not change.
func (r required) Clone() fwk.StateData { return r }

type preferred struct {
	*nodeaffinity.PreferredSchedulingTerms
}

// Clone returns the terms themselves, which do not change.
func (p preferred) Clone() fwk.StateData { return p }

// New makes the plugin from NodeAffinityArgs.
func New(_ context.Context, args runtime.Object, _ fwk.Handle) (fwk.Plugin, error) {
	p := &Plugin{}
	a, ok := args.(*configv1.NodeAffinityArgs)
	if args != nil && !ok {
		return nil, fmt.Errorf("args are of type %T, want NodeAffinityArgs", args)
	}
	if a == nil || a.AddedAffinity == nil {
		return p, nil
	}
	var err error
	if r := a.AddedAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		if p.addedRequired, err = nodeaffinity.NewNodeSelector(r); err != nil {
			return nil, fmt.Errorf("args.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution: %w", err)
		}
	}
	if terms := a.AddedAffinity.PreferredDuringSchedulingIgnoredDuringExecution; len(terms) > 0 {
		if p.addedPreferred, err = nodeaffinity.NewPreferredSchedulingTerms(terms); err != nil {
			return nil, fmt.Errorf("args.addedAffinity.preferredDuringSchedulingIgnoredDuringExecution: %w", err)
		}
	}
	return p, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// PreFilter parses the affinity once, and narrows the nodes to those that it names.
func (p *Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	terms := requiredTerms(pod)
	if p.addedRequired == nil && terms == nil && pod.Spec.NodeSelector == nil {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(filterKey, required{nodeaffinity.GetRequiredNodeAffinity(pod)})

	names, ok := namedNodes(terms)
	if !ok {
		return nil, nil
	}
	if len(names) == 0 {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reasonConflict)
	}
	return &fwk.PreFilterResult{NodeNames: names}, nil
}

// PreFilterExtensions returns nil: pods on a node change nothing here.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

func requiredTerms(pod *v1.Pod) *v1.NodeSelector {
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	return nil
}

// namedNodes returns the nodes that the terms allow by name, as those of DaemonSet pods
// do. Terms are alternatives: one that names none allows any node.
func namedNodes(selector *v1.NodeSelector) (sets.Set[string], bool) {
	if selector == nil || len(selector.NodeSelectorTerms) == 0 {
		return nil, false
	}
	all := sets.New[string]()
	for _, term := range selector.NodeSelectorTerms {
		var names sets.Set[string]
		for _, f := range term.MatchFields {
			if f.Key != "metadata.name" || f.Operator != v1.NodeSelectorOpIn {
				continue
			}
			if names == nil {
				names = sets.New(f.Values...)
			} else {
				names = names.Intersection(sets.New(f.Values...))
			}
		}
		if names == nil {
			return nil, false
		}
		all = all.Union(names)
	}
	return all, true
}

// Filter rejects nodes that the required terms do not match.
func (p *Plugin) Filter(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	if p.addedRequired != nil && !p.addedRequired.Match(node.Node()) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reasonEnforced)
	}
	r, err := state.Read(filterKey)
	if err != nil {
		return fwk.AsStatus(err)
	}
	// A term that does not parse matches no node, as its alternatives still may.
	if ok, _ := r.(required).Match(node.Node()); !ok {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reasonPod)
	}
	return nil
}

// PreScore parses the preferred terms once.
func (p *Plugin) PreScore(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	var terms []v1.PreferredSchedulingTerm
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		terms = a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	}
	if len(terms) == 0 {
		if p.addedPreferred == nil {
			return fwk.NewStatus(fwk.Skip)
		}
		state.Write(scoreKey, preferred{})
		return nil
	}
	parsed, err := nodeaffinity.NewPreferredSchedulingTerms(terms)
	if err != nil {
		return fwk.AsStatus(err)
	}
	state.Write(scoreKey, preferred{parsed})
	return nil
}

// Score adds the weights of the preferred terms that match.
func (p *Plugin) Score(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	s, err := state.Read(scoreKey)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	var score int64
	if p.addedPreferred != nil {
		score += p.addedPreferred.Score(node.Node())
	}
	if terms := s.(preferred).PreferredSchedulingTerms; terms != nil {
		score += terms.Score(node.Node())
	}
	return score, nil
}

// ScoreExtensions returns the plugin, which normalizes.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore scales the sums of weights.
func (p *Plugin) NormalizeScore(_ context.Context, _ fwk.CycleState, _ *v1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	return normalize.ToMax(scores, false)
}

// ByNode says that what the plugin says of a node follows from the pod's signature and
// the node, so pods that are alike share it.
func (p *Plugin) ByNode() {}

// SignPod tells pods apart by what they ask of nodes.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	affinity, err := fwk.NodeAffinitySigner(pod)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	return []fwk.SignFragment{
		{Key: fwk.NodeAffinitySignerName, Value: affinity},
		{Key: fwk.NodeSelectorSignerName, Value: pod.Spec.NodeSelector},
	}, nil
}

// EventsToRegister: a node may come, or get labels that match.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{{
		Event:          fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel},
		QueueingHintFn: p.nowMatches,
	}}, nil
}

func (p *Plugin) nowMatches(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	node, ok := newObj.(*v1.Node)
	if !ok {
		return fwk.Queue, nil
	}
	matches := func(n *v1.Node) bool {
		ok, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n)
		return ok && (p.addedRequired == nil || p.addedRequired.Match(n))
	}
	old, _ := oldObj.(*v1.Node)
	if matches(node) && (old == nil || !matches(old)) {
		return fwk.Queue, nil
	}
	return fwk.QueueSkip, nil
}
