// Package dynamicresources gives pods the devices that their ResourceClaims ask for
// (dynamic resource allocation, KEP-4381). Which devices fit which claims is decided by
// the published k8s.io/dynamic-resource-allocation/structured; claims.go knows which
// devices are taken, bind.go writes allocations and reservations.
package dynamicresources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// Name of the plugin.
const Name = "DynamicResources"

const (
	stateKey = fwk.StateKey(Name)
	// maxExpressions is how many compiled CEL expressions are kept.
	maxExpressions = 100
)

// features are those of devices that are on by default and known here.
var features = structured.Features{
	AdminAccess:          true,
	ConsumableCapacity:   true,
	DeviceTaints:         true,
	PartitionableDevices: true,
	PrioritizedList:      true,
}

// Plugin implements preEnqueue, preFilter, filter, postFilter, preScore, score, reserve and preBind.
type Plugin struct {
	handle  fwk.Handle
	client  kubernetes.Interface
	claims  *tracker
	slices  resourcelisters.ResourceSliceLister
	classes classLister
	cel     *cel.Cache
	timeout time.Duration // for the search on one node; 0 for none
}

var (
	_ fwk.PreEnqueuePlugin  = &Plugin{}
	_ fwk.PreFilterPlugin   = &Plugin{}
	_ fwk.FilterPlugin      = &Plugin{}
	_ fwk.PostFilterPlugin  = &Plugin{}
	_ fwk.PreScorePlugin    = &Plugin{}
	_ fwk.ScorePlugin       = &Plugin{}
	_ fwk.ReservePlugin     = &Plugin{}
	_ fwk.PreBindPlugin     = &Plugin{}
	_ fwk.EnqueueExtensions = &Plugin{}
	_ fwk.SignPlugin        = &Plugin{}
	_ framework.Keeper      = &Plugin{}
)

// New makes the plugin from DynamicResourcesArgs.
func New(_ context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, ok := args.(*configv1.DynamicResourcesArgs)
	if !ok || a.FilterTimeout == nil {
		return nil, fmt.Errorf("args are of type %T, want DynamicResourcesArgs with defaults", args)
	}
	resource := h.SharedInformerFactory().Resource().V1()
	return &Plugin{
		handle:  h,
		client:  h.ClientSet(),
		claims:  newTracker(resource.ResourceClaims().Lister()),
		slices:  resource.ResourceSlices().Lister(),
		classes: classLister{resource.DeviceClasses().Lister()},
		cel:     cel.NewCache(maxExpressions, cel.Features{EnableConsumableCapacity: features.ConsumableCapacity}),
		timeout: a.FilterTimeout.Duration,
	}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// classLister is an informer's lister as the allocator wants it.
type classLister struct {
	resourcelisters.DeviceClassLister
}

// List returns all classes.
func (l classLister) List() ([]*resourceapi.DeviceClass, error) {
	return l.DeviceClassLister.List(labels.Everything())
}

// state is what is known of the pod's claims during an attempt.
type state struct {
	claims    []*resourceapi.ResourceClaim
	allocator structured.Allocator // nil if all claims are allocated
	// selectors are where the allocated claims can be used, by index of the claim.
	selectors map[int]*nodeaffinity.NodeSelector

	mu sync.Mutex
	// found has the allocations of the unallocated claims, in order, by node.
	found map[string][]resourceapi.AllocationResult
	// refused says that some node was refused for the sake of a claim that is allocated.
	refused bool
	// reserved are the claims with the allocation that Reserve chose for them.
	reserved []*resourceapi.ResourceClaim
}

// Clone returns a copy whose findings the original does not see.
func (s *state) Clone() fwk.StateData {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &state{claims: s.claims, allocator: s.allocator, selectors: s.selectors, found: maps.Clone(s.found), refused: s.refused}
}

func (s *state) unallocated() []*resourceapi.ResourceClaim {
	return slices.DeleteFunc(slices.Clone(s.claims), func(c *resourceapi.ResourceClaim) bool { return c.Status.Allocation != nil })
}

func read(cs fwk.CycleState) (*state, error) {
	data, err := cs.Read(stateKey)
	if err != nil {
		return nil, err
	}
	s, ok := data.(*state)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T", stateKey, data)
	}
	return s, nil
}

func unresolvable(format string, args ...any) *fwk.Status {
	return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf(format, args...))
}

// PreEnqueue keeps a pod out of the queue until its claims have been made.
func (p *Plugin) PreEnqueue(_ context.Context, pod *v1.Pod) *fwk.Status {
	if _, err := p.claims.of(pod); err != nil {
		return unresolvable("%v", err)
	}
	return nil
}

// PreFilter collects the pod's claims and which devices are free.
func (p *Plugin) PreFilter(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	s := &state{selectors: map[int]*nodeaffinity.NodeSelector{}, found: map[string][]resourceapi.AllocationResult{}}
	cs.Write(stateKey, s)
	claims, err := p.claims.of(pod)
	if err != nil {
		return nil, unresolvable("%v", err)
	}
	if len(claims) == 0 {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	for i, c := range claims {
		switch {
		case c.Status.Allocation == nil:
			if p.claims.pending(c.UID) {
				return nil, unresolvable("resource claim %s is in the process of being allocated", klog.KObj(c))
			}
			if s := p.checkClasses(c); !s.IsSuccess() {
				return nil, s
			}
		case !resourceclaim.IsReservedForPod(pod, c, false) && !resourceclaim.CanBeReserved(c):
			return nil, unresolvable("resourceclaim in use")
		case c.Status.Allocation.NodeSelector != nil:
			if s.selectors[i], err = nodeaffinity.NewNodeSelector(c.Status.Allocation.NodeSelector); err != nil {
				return nil, fwk.AsStatus(err)
			}
		}
	}
	s.claims = claims
	if len(s.unallocated()) == 0 {
		return nil, nil
	}
	all, err := p.slices.List(labels.Everything())
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	slices.SortFunc(all, func(a, b *resourceapi.ResourceSlice) int { return cmp.Compare(a.Name, b.Name) }) // the same choice whatever the informer's order
	taken, err := p.claims.taken()
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if s.allocator, err = structured.NewAllocator(ctx, features, taken, p.classes, all, p.cel); err != nil {
		return nil, fwk.AsStatus(err)
	}
	return nil, nil
}

// checkClasses refuses a claim that names a class that is not there.
func (p *Plugin) checkClasses(c *resourceapi.ResourceClaim) *fwk.Status {
	check := func(request, class string) *fwk.Status {
		_, err := p.classes.Get(class)
		if apierrors.IsNotFound(err) {
			return unresolvable("request %s: device class %s does not exist", request, class)
		}
		return fwk.AsStatus(err)
	}
	for _, r := range c.Spec.Devices.Requests {
		switch {
		case r.Exactly != nil:
			if s := check(r.Name, r.Exactly.DeviceClassName); !s.IsSuccess() {
				return s
			}
		case len(r.FirstAvailable) > 0:
			for _, sub := range r.FirstAvailable {
				if s := check(resourceclaim.CreateSubRequestRef(r.Name, sub.Name), sub.DeviceClassName); !s.IsSuccess() {
					return s
				}
			}
		default:
			return unresolvable("resource claim %s, request %s: unknown request type", klog.KObj(c), r.Name)
		}
	}
	return nil
}

// PreFilterExtensions returns nil: claims are not freed by evicting pods at once.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return nil }

// Filter rejects nodes that an allocated claim does not reach, or without free devices.
func (p *Plugin) Filter(ctx context.Context, cs fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	unreachable := false
	for _, selector := range s.selectors {
		unreachable = unreachable || !selector.Match(node.Node())
	}
	var found []resourceapi.AllocationResult
	if s.allocator != nil {
		var refused *fwk.Status
		if found, refused = p.allocate(ctx, s, node.Node()); refused != nil {
			return refused
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if unreachable {
		// Freeing the claim is worth while, since the others would find their devices here.
		s.refused = true
		return unresolvable("resourceclaim not available on the node")
	}
	if s.allocator != nil {
		s.found[node.Node().Name] = found
	}
	return nil
}

// allocate looks for devices on a node for the claims that have none.
func (p *Plugin) allocate(ctx context.Context, s *state, node *v1.Node) ([]resourceapi.AllocationResult, *fwk.Status) {
	if p.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.timeout, errors.New("timed out trying to allocate devices"))
		defer cancel()
	}
	found, err := s.allocator.Allocate(ctx, node, s.unallocated())
	switch {
	case errors.Is(err, context.DeadlineExceeded): // it may pass, so the pod is tried again soon
		return nil, fwk.AsStatus(fmt.Errorf("node %s: timed out trying to allocate devices", node.Name))
	case errors.Is(err, structured.ErrFailedAllocationOnNode): // others may do
		return nil, unresolvable("%v", err)
	case err != nil:
		return nil, fwk.AsStatus(err)
	case found == nil:
		return nil, unresolvable("cannot allocate all claims")
	}
	return found, nil
}

// PostFilter frees a claim that nobody uses and that keeps the pod off the nodes where
// it could run. The claim is then allocated anew.
func (p *Plugin) PostFilter(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, _ fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	s, err := read(cs)
	if err != nil || !s.refused {
		return nil, fwk.NewStatus(fwk.Unschedulable)
	}
	for i, c := range s.claims {
		if s.selectors[i] == nil || !idle(c, pod) {
			continue
		}
		if !framework.IsTrial(cs) {
			if err := p.deallocate(ctx, c); err != nil {
				return nil, fwk.AsStatus(err)
			}
		}
		return nil, fwk.NewStatus(fwk.Unschedulable, "deallocation of ResourceClaim completed")
	}
	return nil, fwk.NewStatus(fwk.Unschedulable)
}

// idle reports whether a claim is reserved for no other pod.
func idle(c *resourceapi.ResourceClaim, pod *v1.Pod) bool {
	return len(c.Status.ReservedFor) == 0 || len(c.Status.ReservedFor) == 1 && c.Status.ReservedFor[0].UID == pod.UID
}

// SignPod refuses pods with claims: each takes devices of its own.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if len(pod.Spec.ResourceClaims) > 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, "pods with dra resource claims are not signable")
	}
	return nil, nil
}

// EventsToRegister: claims are made, allocated and freed; devices and classes appear.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint}},
		{Event: fwk.ClusterEvent{Resource: fwk.ResourceClaim, ActionType: fwk.Add | fwk.Update | fwk.Delete}},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodGeneratedResourceClaim}},
		{Event: fwk.ClusterEvent{Resource: fwk.DeviceClass, ActionType: fwk.Add | fwk.Update}},
		{Event: fwk.ClusterEvent{Resource: fwk.ResourceSlice, ActionType: fwk.Add | fwk.Update}},
	}, nil
}
