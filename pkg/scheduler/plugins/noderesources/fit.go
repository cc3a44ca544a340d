package noderesources

import (
	"context"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/devices"
)

// FitName is the name of the Fit plugin.
const FitName = "NodeResourcesFit"

const (
	fitFilterKey = fwk.StateKey("PreFilter" + FitName)
	fitScoreKey  = fwk.StateKey("PreScore" + FitName)
)

// Fit implements preFilter, filter, preScore and score.
type Fit struct {
	ignored       sets.Set[string]
	ignoredGroups sets.Set[string]
	resources     []configv1.ResourceSpec
	score         func([]use) int64
	nonZero       bool
	devices       *devices.Manager
}

var (
	_ fwk.PreFilterPlugin   = &Fit{}
	_ fwk.FilterPlugin      = &Fit{}
	_ fwk.PreScorePlugin    = &Fit{}
	_ fwk.ScorePlugin       = &Fit{}
	_ fwk.EnqueueExtensions = &Fit{}
	_ fwk.SignPlugin        = &Fit{}
)

// NewFit makes the plugin from NodeResourcesFitArgs.
func NewFit(_ context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, ok := args.(*configv1.NodeResourcesFitArgs)
	if !ok || a.ScoringStrategy == nil {
		return nil, fmt.Errorf("args are of type %T, want NodeResourcesFitArgs with a scoringStrategy", args)
	}
	known, err := knownDevices(h)
	if err != nil {
		return nil, err
	}
	f := &Fit{
		devices:       known,
		ignored:       sets.New(a.IgnoredResources...),
		ignoredGroups: sets.New(a.IgnoredResourceGroups...),
		resources:     a.ScoringStrategy.Resources,
	}
	switch s := a.ScoringStrategy; s.Type {
	case configv1.LeastAllocated:
		f.nonZero = true
		f.score = func(list []use) int64 { return weightedMean(list, leastAllocated) }
	case configv1.MostAllocated:
		f.nonZero = true
		f.score = func(list []use) int64 { return weightedMean(list, mostAllocated) }
	case configv1.RequestedToCapacityRatio:
		f.nonZero = true
		f.score = capacityRatio(s.RequestedToCapacityRatio.Shape)
	default:
		return nil, fmt.Errorf("args.scoringStrategy.type: unsupported value %q", s.Type)
	}
	return f, nil
}

// Name returns the plugin's name.
func (f *Fit) Name() string { return FitName }

// PreFilter sums up what the pod asks for.
func (f *Fit) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	r, err := requestOf(pod)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	state.Write(fitFilterKey, r.byDevices(f.devices))
	return nil, nil
}

// PreFilterExtensions returns nil: Filter looks at the node as it is.
func (f *Fit) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter rejects nodes without room, and says of what there is too little.
func (f *Fit) Filter(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	s, err := state.Read(fitFilterKey)
	if err != nil {
		return fwk.AsStatus(err)
	}
	var reasons []string
	code := fwk.Unschedulable
	for _, lack := range f.lacking(s.(*request), node) {
		reasons = append(reasons, lack.reason)
		if lack.forever {
			code = fwk.UnschedulableAndUnresolvable
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	return fwk.NewStatus(code, reasons...)
}

// lack is a resource of which a node has too little; forever says that it would be
// too little on the empty node as well, so that preemption is no help.
type lack struct {
	reason  string
	forever bool
}

func (f *Fit) lacking(r *request, node fwk.NodeInfo) []lack {
	var lacks []lack
	if allowed := node.GetAllocatable().GetAllowedPodNumber(); len(node.GetPods())+1 > allowed {
		lacks = append(lacks, lack{reason: "Too many pods"})
	}
	check := func(name v1.ResourceName) {
		wanted, offered := amount(r.Resource, name), amount(node.GetAllocatable(), name)
		if wanted > 0 && wanted > offered-amount(node.GetRequested(), name) {
			lacks = append(lacks, lack{"Insufficient " + string(name), wanted > offered})
		}
	}
	check(v1.ResourceCPU)
	check(v1.ResourceMemory)
	check(v1.ResourceEphemeralStorage)
	for name := range r.Resource.GetScalarResources() {
		if _, backed := r.classes[name]; f.ignores(name) || backed && !devices.OnNode(node, name) {
			continue
		}
		check(name)
	}
	return lacks
}

func (f *Fit) ignores(name v1.ResourceName) bool {
	group, _, qualified := strings.Cut(string(name), "/")
	return f.ignored.Has(string(name)) || qualified && f.ignoredGroups.Has(group)
}

// PreScore keeps what the pod asks for.
func (f *Fit) PreScore(ctx context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	r, err := toWeigh(ctx, state, pod, f.resources, f.devices)
	if err != nil {
		return fwk.AsStatus(err)
	}
	state.Write(fitScoreKey, r)
	return nil
}

// Score prefers nodes by the configured strategy.
func (f *Fit) Score(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	r, err := state.Read(fitScoreKey)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	return f.score(uses(f.resources, r.(*request), node, f.nonZero)), nil
}

// ScoreExtensions returns nil: the scores are in range.
func (f *Fit) ScoreExtensions() fwk.ScoreExtensions { return nil }

// ByNode says that what the plugin says of a node follows from the pod's signature and
// the node, so pods that are alike share it.
func (f *Fit) ByNode() {}

// SignPod tells pods apart by what they ask for.
func (f *Fit) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	return sign(pod, f.devices)
}

// EventsToRegister: room is made by pods that go or shrink and by nodes that come or grow.
func (f *Fit) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, QueueingHintFn: makesRoom},
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.UpdatePodScaleDown}, QueueingHintFn: makesRoom},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodScaleDown}},
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeAllocatable}, QueueingHintFn: f.couldFit},
		{Event: fwk.ClusterEvent{Resource: fwk.DeviceClass, ActionType: fwk.Add | fwk.Update}, QueueingHintFn: newlyBacked},
	}, nil
}

// newlyBacked asks whether a class stands for an extended resource that the pod asks for,
// and did not before.
func newlyBacked(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	class, ok := newObj.(*resourceapi.DeviceClass)
	if !ok {
		return fwk.Queue, fmt.Errorf("a %T, want a DeviceClass", newObj)
	}
	names := []string{resourceapi.ResourceDeviceClassPrefix + class.Name, ptr.Deref(class.Spec.ExtendedResourceName, "")}
	if oldObj != nil {
		before, ok := oldObj.(*resourceapi.DeviceClass)
		if !ok {
			return fwk.Queue, fmt.Errorf("a %T, want a DeviceClass", oldObj)
		}
		names = names[1:]
		if ptr.Deref(before.Spec.ExtendedResourceName, "") == names[0] {
			return fwk.QueueSkip, nil
		}
	}
	r, err := requestOf(pod)
	if err != nil {
		return fwk.Queue, err
	}
	for _, name := range names {
		if r.Resource.GetScalarResources()[v1.ResourceName(name)] > 0 {
			return fwk.Queue, nil
		}
	}
	return fwk.QueueSkip, nil
}

// makesRoom asks whether another pod that went, or shrank, had something that pod wants.
// Its place in the number of pods counts too.
func makesRoom(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, ok := oldObj.(*v1.Pod)
	if !ok {
		return fwk.Queue, nil
	}
	after, shrank := newObj.(*v1.Pod)
	if !shrank {
		return fwk.Queue, nil
	}
	wanted, err := requestOf(pod)
	if err != nil {
		return fwk.Queue, err
	}
	was, err := requestOf(before)
	if err != nil {
		return fwk.Queue, err
	}
	is, err := requestOf(after)
	if err != nil {
		return fwk.Queue, err
	}
	names := []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage}
	for name := range wanted.Resource.GetScalarResources() {
		names = append(names, name)
	}
	for _, name := range names {
		if amount(wanted.Resource, name) > 0 && amount(was.Resource, name) > amount(is.Resource, name) {
			return fwk.Queue, nil
		}
	}
	return fwk.QueueSkip, nil
}

// couldFit asks whether pod would fit on the node if it were empty.
func (f *Fit) couldFit(_ klog.Logger, pod *v1.Pod, _, newObj any) (fwk.QueueingHint, error) {
	node, ok := newObj.(*v1.Node)
	if !ok {
		return fwk.Queue, nil
	}
	r, err := requestOf(pod)
	if err != nil {
		return fwk.Queue, err
	}
	empty := cache.NewNodeInfo()
	empty.SetNode(node)
	if len(f.lacking(r.byDevices(f.devices), empty)) > 0 {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}
