// Package podtopologyspread keeps pods of a kind evenly spread over zones, hosts or any
// other domains: topologySpreadConstraints, those of the pod or the cluster's defaults.
//
// It never looks at other pods: how many there are in which domain is read from the
// snapshot's topology index.
package podtopologyspread

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/topology"
)

// Name of the plugin.
const Name = "PodTopologySpread"

const (
	filterKey = fwk.StateKey("PreFilter" + Name)
	scoreKey  = fwk.StateKey("PreScore" + Name)

	reasonSkew  = "node(s) didn't match pod topology spread constraints"
	reasonLabel = reasonSkew + " (missing required label)"
)

// Plugin implements preFilter, filter, preScore and score.
type Plugin struct {
	snapshot fwk.SharedLister
	defaults []v1.TopologySpreadConstraint
	// system says that the defaults are Kubernetes' own, which a node that lacks one of
	// their labels is not held back by.
	system bool
	owners *owners

	// What Filter says, made once: most nodes of a cluster may be refused.
	skewed, unlabelled *fwk.Status
}

var (
	_ fwk.PreFilterPlugin     = &Plugin{}
	_ fwk.PreFilterExtensions = &Plugin{}
	_ fwk.FilterPlugin        = &Plugin{}
	_ fwk.PreScorePlugin      = &Plugin{}
	_ fwk.ScorePlugin         = &Plugin{}
	_ fwk.ScoreExtensions     = &Plugin{}
	_ fwk.EnqueueExtensions   = &Plugin{}
	_ fwk.SignPlugin          = &Plugin{}
	_ framework.Narrowing     = &Plugin{}
)

// New makes the plugin from PodTopologySpreadArgs.
func New(_ context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, ok := args.(*configv1.PodTopologySpreadArgs)
	if !ok {
		return nil, fmt.Errorf("args are of type %T, want PodTopologySpreadArgs", args)
	}
	p := &Plugin{
		snapshot: h.SnapshotSharedLister(), defaults: a.DefaultConstraints,
		skewed:     fwk.NewStatus(fwk.Unschedulable, reasonSkew).WithPlugin(Name),
		unlabelled: fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reasonLabel).WithPlugin(Name),
	}
	if a.DefaultingType == configv1.SystemDefaulting {
		p.system, p.defaults = true, systemDefaults()
	}
	if len(p.defaults) > 0 {
		p.owners = newOwners(h.SharedInformerFactory())
	}
	return p, nil
}

func systemDefaults() []v1.TopologySpreadConstraint {
	return []v1.TopologySpreadConstraint{
		{TopologyKey: v1.LabelHostname, WhenUnsatisfiable: v1.ScheduleAnyway, MaxSkew: 3},
		{TopologyKey: v1.LabelTopologyZone, WhenUnsatisfiable: v1.ScheduleAnyway, MaxSkew: 5},
	}
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

func (p *Plugin) index() (*topology.Index, error) {
	provider, ok := p.snapshot.(topology.Provider)
	if !ok {
		return nil, fmt.Errorf("the snapshot (%T) counts no pods", p.snapshot)
	}
	return provider.Topology(), nil
}

// hard is a constraint DoNotSchedule with its counts.
type hard struct {
	constraint
	counter *topology.Counter
	self    int // 1 if the pod itself is one of those that are counted
	changes map[string]int
	lowest  int
}

type hards []hard

// Clone returns a copy whose changes the original does not see.
func (h hards) Clone() fwk.StateData { return append(hards(nil), h...) }

// settle computes the lowest count, which all nodes are compared with.
func (h *hard) settle() {
	h.lowest = 0
	if h.counter.Domains() >= h.minDomains {
		h.lowest = h.counter.Min(h.changes)
	}
}

// tooMany reports whether there would be too many more pods in a domain than in the emptiest one.
func (h *hard) tooMany(domain string) bool {
	return h.counter.Of(domain)+h.changes[domain]+h.self-h.lowest > h.maxSkew
}

// PreFilter looks up the counters of the pod's constraints.
func (p *Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	list, err := p.constraints(pod, v1.DoNotSchedule)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if len(list) == 0 {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	x, err := p.index()
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	all := keys(list)
	out := make(hards, len(list))
	for i, c := range list {
		h := hard{constraint: c, counter: x.Count(c.pods(pod.Namespace), c.nodes(pod, all), c.key)}
		if c.selector.Matches(labels.Set(pod.Labels)) {
			h.self = 1
		}
		h.settle()
		out[i] = h
	}
	state.Write(filterKey, out)
	return nil, nil
}

// PreFilterExtensions returns the plugin: pods that come or go change the counts.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return p }

// AddPod counts a pod that is thought to be on a node.
func (p *Plugin) AddPod(_ context.Context, state fwk.CycleState, _ *v1.Pod, add fwk.PodInfo, node fwk.NodeInfo) *fwk.Status {
	return change(state, add.GetPod(), node.Node(), 1)
}

// RemovePod takes a pod out that is thought to be gone.
func (p *Plugin) RemovePod(_ context.Context, state fwk.CycleState, _ *v1.Pod, remove fwk.PodInfo, node fwk.NodeInfo) *fwk.Status {
	return change(state, remove.GetPod(), node.Node(), -1)
}

func change(state fwk.CycleState, pod *v1.Pod, node *v1.Node, n int) *fwk.Status {
	list, err := read(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	for i := range list {
		h := &list[i]
		if !h.counter.Match(pod, node) {
			continue
		}
		changes := map[string]int{node.Labels[h.key]: n}
		for domain, m := range h.changes { // shared with the state that this one was cloned from
			changes[domain] += m
		}
		h.changes = changes
		h.settle()
	}
	return nil
}

func read(state fwk.CycleState) (hards, error) {
	data, err := state.Read(filterKey)
	if err != nil {
		return nil, err
	}
	list, ok := data.(hards)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T", filterKey, data)
	}
	return list, nil
}

// Filter rejects nodes in whose domain there would be too many more pods than in the emptiest one.
func (p *Plugin) Filter(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	list, err := read(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	for i := range list {
		h := &list[i]
		domain, ok := node.Node().Labels[h.key]
		if !ok {
			return p.unlabelled
		}
		if h.tooMany(domain) {
			return p.skewed
		}
	}
	return nil
}

// Narrow returns what the pod's first constraint says of domains.
func (p *Plugin) Narrow(state fwk.CycleState) *framework.Domains {
	list, err := read(state)
	if err != nil || len(list) == 0 {
		return nil
	}
	h := &list[0]
	return &framework.Domains{
		Key:        h.key,
		Unlabelled: p.unlabelled,
		Refusal: func(domain string) *fwk.Status {
			if h.tooMany(domain) {
				return p.skewed
			}
			return nil
		},
		Decided: len(list) == 1,
	}
}

// SignPod refuses pods that are spread: where they fit depends on all pods before them.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if len(pod.Spec.TopologySpreadConstraints) > 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, "pods with topology constraints are not signable")
	}
	if len(p.defaults) > 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, "pods with default topology constraints are not signable")
	}
	return nil, nil
}
