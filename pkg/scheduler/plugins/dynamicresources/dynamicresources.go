// Package dynamicresources gives pods the devices that their ResourceClaims ask for
// (dynamic resource allocation, KEP-4381). Which devices fit which claims is decided by
// the published k8s.io/dynamic-resource-allocation/structured; bind.go writes allocations
// and reservations, extended.go makes claims for extended resources that are backed by
// devices, conditions.go waits for devices to become ready, groups.go is about pods of a
// group and claims that are the group's.
package dynamicresources

import (
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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/keymutex"

	"github.com/leme-k8s/leme/pkg/scheduler/devices"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// Name of the plugin.
const Name = "DynamicResources"

const stateKey = fwk.StateKey(Name)

// Plugin implements preEnqueue, preFilter, filter, postFilter, podGroupPostFilter, preScore, score, reserve and preBind.
type Plugin struct {
	handle         fwk.Handle
	client         kubernetes.Interface
	claims         *devices.Claims
	slices         fwk.ResourceSliceLister
	classes        fwk.DeviceClassLister
	resolver       fwk.DeviceClassResolver
	cel            *cel.Cache
	timeout        time.Duration // for the search on one node; 0 for none
	bindingTimeout time.Duration // for devices to become ready
	metrics        *recorder
	gates          framework.Gates
	groups         fwk.PodGroupManager // nil while the GenericWorkload gate is off
	writing        keymutex.KeyMutex   // pods that share a claim do not write to it at once
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

	_ fwk.PodGroupPostFilterPlugin = &Plugin{}
)

// New makes the plugin from DynamicResourcesArgs.
func New(_ context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, ok := args.(*configv1.DynamicResourcesArgs)
	if !ok || a.FilterTimeout == nil || a.BindingTimeout == nil {
		return nil, fmt.Errorf("args are of type %T, want DynamicResourcesArgs with defaults", args)
	}
	known, ok := h.SharedDRAManager().(*devices.Manager)
	if !ok {
		return nil, fmt.Errorf("the handle knows devices by a %T", h.SharedDRAManager())
	}
	return &Plugin{
		handle:         h,
		client:         h.ClientSet(),
		claims:         known.Claims(),
		slices:         known.ResourceSlices(),
		classes:        known.DeviceClasses(),
		resolver:       known.DeviceClassResolver(),
		cel:            known.CEL(),
		timeout:        a.FilterTimeout.Duration,
		bindingTimeout: a.BindingTimeout.Duration,
		metrics:        sharedRecorder(),
		gates:          framework.GatesOf(h),
		groups:         h.PodGroupManager(),
		writing:        keymutex.NewHashed(64),
	}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// state is what is known of the pod's claims during an attempt.
type state struct {
	claims    []*resourceapi.ResourceClaim
	consumers map[string]resourceapi.ResourceClaimConsumerReference // for whom claims are reserved, by their names
	shared    sets.Set[int]                                         // claims that are here as they are going to be allocated for the sake of a mate, by index
	classes   map[v1.ResourceName]*resourceapi.DeviceClass          // of extended resources
	leftOver  *resourceapi.ResourceClaim                            // made for them by an earlier attempt
	allocator structured.Allocator                                  // nil if there is nothing to allocate
	// selectors are where the allocated claims can be used, and failed those that can be
	// used nowhere, by index of the claim.
	selectors map[int]*nodeaffinity.NodeSelector
	failed    sets.Set[int]

	mu sync.Mutex
	// found is what there is for the pod, by node.
	found map[string]offer
	// refused are the claims for the sake of which some node was refused that would do otherwise.
	refused sets.Set[int]
	// reserved are the claims with the allocation that Reserve chose for them.
	reserved []*resourceapi.ResourceClaim
	// special is the claim that has been created for extended resources.
	special *resourceapi.ResourceClaim
}

// offer has the allocations of the unallocated claims, in order, and then of what is
// asked for by the names of extended resources.
type offer struct {
	allocations []resourceapi.AllocationResult
	special     asked
}

// Clone returns a copy whose findings the original does not see.
func (s *state) Clone() fwk.StateData {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &state{
		claims: s.claims, consumers: s.consumers, shared: s.shared, classes: s.classes, leftOver: s.leftOver, allocator: s.allocator, selectors: s.selectors, failed: s.failed,
		found: maps.Clone(s.found), refused: s.refused.Clone(),
	}
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
	if _, err := p.claimsOf(pod); err != nil {
		return unresolvable("%v", err)
	}
	return nil
}

// claimsOf returns the claims of a pod. It is an error, for people to read, if one cannot
// be used: it is not there yet, somebody else's, or being deleted.
func (p *Plugin) claimsOf(pod *v1.Pod) ([]*resourceapi.ResourceClaim, error) {
	var claims []*resourceapi.ResourceClaim
	for i := range pod.Spec.ResourceClaims {
		name, own, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name == nil { // the template asks for none
			continue
		}
		claim, err := p.claims.Get(pod.Namespace, *name)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("could not find ResourceClaim %q", pod.Namespace+"/"+*name)
		}
		if err != nil {
			return nil, err
		}
		if claim.DeletionTimestamp != nil {
			return nil, fmt.Errorf("resourceclaim %q is being deleted", claim.Name)
		}
		if own {
			if err := resourceclaim.IsForPod(pod, claim, p.gates.DRAWorkloadResourceClaims); err != nil {
				return nil, err
			}
		}
		claims = append(claims, claim)
	}
	return claims, nil
}

// PreFilter collects the pod's claims and which devices are free.
func (p *Plugin) PreFilter(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	s := &state{shared: sets.New[int](), selectors: map[int]*nodeaffinity.NodeSelector{}, failed: sets.New[int](), found: map[string]offer{}, refused: sets.New[int]()}
	cs.Write(stateKey, s)
	mates := matesOf(cs)
	mates.remember(pod, s)
	claims, err := p.claimsOf(pod)
	if err != nil {
		return nil, unresolvable("%v", err)
	}
	s.classes = classesOf(pod, p.resolver)
	if len(claims) == 0 && len(s.classes) == 0 {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	if len(s.classes) > 0 {
		if s.leftOver, err = p.leftOver(pod); err != nil {
			return nil, fwk.AsStatus(err)
		}
	}
	if s.consumers, err = p.consumers(pod); err != nil {
		return nil, unresolvable("%v", err)
	}
	s.claims = claims
	for i := range claims {
		if claims[i].Status.Allocation == nil && mates.allocate(claims[i].UID) {
			claims[i] = p.asPending(claims[i])
			s.shared.Insert(i)
		}
		if status := p.look(s, i, claims[i], pod, framework.TimeOf(cs)); !status.IsSuccess() {
			return nil, status
		}
	}
	if s.leftOver != nil || len(s.unallocated())+len(s.classes) == 0 {
		return nil, nil
	}
	all, err := p.slices.ListWithDeviceTaintRules()
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	taken, err := p.claims.GatherAllocatedState()
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if s.allocator, err = structured.NewAllocator(ctx, devices.Features, *taken, p.classes, all, p.cel); err != nil {
		return nil, fwk.AsStatus(err)
	}
	return nil, nil
}

// look finds out whether, and where, a claim can be used.
func (p *Plugin) look(s *state, i int, c *resourceapi.ResourceClaim, pod *v1.Pod, now time.Time) *fwk.Status {
	if c.Status.Allocation == nil {
		if p.claims.GetPendingAllocation(c.UID) != nil {
			return unresolvable("resource claim %s is in the process of being allocated", klog.KObj(c))
		}
		return p.checkClasses(c)
	}
	if !p.isReserved(c, pod) && !resourceclaim.CanBeReserved(c) {
		return unresolvable("resourceclaim in use")
	}
	if _, err := ready(c, now, p.bindingTimeout); err != nil {
		s.failed.Insert(i)
	}
	if c.Status.Allocation.NodeSelector != nil {
		var err error
		if s.selectors[i], err = nodeaffinity.NewNodeSelector(c.Status.Allocation.NodeSelector); err != nil {
			return fwk.AsStatus(err)
		}
	}
	return nil
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
func (p *Plugin) Filter(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if s.leftOver != nil {
		return unresolvable("cannot schedule extended resource claim")
	}
	out := s.failed.Clone()
	for i, selector := range s.selectors {
		if !selector.Match(node.Node()) {
			out.Insert(i)
		}
	}
	there := offer{special: ask(pod, elsewhere(s.classes, node))}
	if s.allocator != nil {
		claims := s.unallocated()
		if len(there.special.requests) > 0 {
			claims = append(claims, newSpecial(pod, there.special.requests))
		}
		var refused *fwk.Status
		if there.allocations, refused = p.allocate(ctx, s.allocator, node.Node(), claims); refused != nil {
			return refused
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(out) > 0 {
		// Freeing a claim is worth while, since the others would find their devices here.
		s.refused = s.refused.Union(out)
		return unresolvable("resourceclaim not available on the node")
	}
	s.found[node.Node().Name] = there
	return nil
}

// elsewhere returns the classes of extended resources that the node does not have itself.
func elsewhere(classes map[v1.ResourceName]*resourceapi.DeviceClass, node fwk.NodeInfo) map[v1.ResourceName]*resourceapi.DeviceClass {
	out := maps.Clone(classes)
	maps.DeleteFunc(out, func(name v1.ResourceName, _ *resourceapi.DeviceClass) bool { return devices.OnNode(node, name) })
	return out
}

// allocate looks for devices on a node for claims that have none.
func (p *Plugin) allocate(ctx context.Context, allocator structured.Allocator, node *v1.Node, claims []*resourceapi.ResourceClaim) ([]resourceapi.AllocationResult, *fwk.Status) {
	if len(claims) == 0 {
		return nil, nil
	}
	if p.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.timeout, errors.New("timed out trying to allocate devices"))
		defer cancel()
	}
	found, err := allocator.Allocate(ctx, node, claims)
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
// it could run, or whose devices did not become ready. The claim is then allocated anew.
// One that an earlier attempt has made for the pod is deleted.
func (p *Plugin) PostFilter(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, _ fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	s, err := read(cs)
	if err != nil {
		return nil, fwk.NewStatus(fwk.Unschedulable)
	}
	if s.leftOver != nil {
		if !framework.IsTrial(cs) {
			if err := p.remove(ctx, s.leftOver); err != nil {
				return nil, fwk.AsStatus(err)
			}
		}
		return nil, fwk.NewStatus(fwk.Unschedulable, "deletion of ResourceClaim completed")
	}
	for i, c := range s.claims {
		if !s.refused.Has(i) || !idle(c, pod) {
			continue
		}
		if !framework.IsTrial(cs) {
			if err := p.deallocate(ctx, c, func(c *resourceapi.ResourceClaim) bool { return idle(c, pod) }); err != nil {
				return nil, fwk.AsStatus(err)
			}
		}
		return nil, fwk.NewStatus(fwk.Unschedulable, "deallocation of ResourceClaim completed")
	}
	return nil, fwk.NewStatus(fwk.Unschedulable)
}

// isReserved reports whether a claim is reserved for a pod, or for its group.
func (p *Plugin) isReserved(c *resourceapi.ResourceClaim, pod *v1.Pod) bool {
	return resourceclaim.IsReservedForPod(pod, c, p.gates.DRAWorkloadResourceClaims)
}

// idle reports whether a claim is reserved for no other pod.
func idle(c *resourceapi.ResourceClaim, pod *v1.Pod) bool {
	return len(c.Status.ReservedFor) == 0 || len(c.Status.ReservedFor) == 1 && c.Status.ReservedFor[0].UID == pod.UID
}

// SignPod refuses pods with claims: each takes devices of its own. So does one that asks
// for them by the name of an extended resource.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if len(pod.Spec.ResourceClaims) > 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, "pods with dra resource claims are not signable")
	}
	if len(classesOf(pod, p.resolver)) > 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, "pods with extended resources that are backed by devices are not signable")
	}
	return nil, nil
}
