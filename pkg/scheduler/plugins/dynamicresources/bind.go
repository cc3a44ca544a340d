package dynamicresources

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	resourceclaimmetrics "k8s.io/dynamic-resource-allocation/resourceclaim/metrics"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podstatus"
)

// Reserve takes the devices that Filter found, so that the next pod does not.
func (p *Plugin) Reserve(_ context.Context, cs fwk.CycleState, pod *v1.Pod, node string) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	open := s.unallocated()
	there := s.found[node]
	if len(there.special.requests) > 0 {
		open = append(open, newSpecial(pod, there.special.requests))
	}
	if len(there.allocations) != len(open) {
		return fwk.AsStatus(fmt.Errorf("there are %d allocations on node %s for %d claims", len(there.allocations), node, len(open)))
	}
	var allocated []*resourceapi.ResourceClaim
	for i, c := range open {
		c = c.DeepCopy()
		c.Status.Allocation = &there.allocations[i]
		allocated = append(allocated, c)
	}
	for i := range s.shared {
		allocated = append(allocated, s.claims[i])
	}
	mates := matesOf(cs)
	for _, c := range allocated {
		if err := p.claims.SignalClaimPendingAllocation(c.UID, c); err != nil {
			return fwk.AsStatus(err)
		}
		s.reserved = append(s.reserved, c)
		mates.take(c.UID, pod.UID)
	}
	return nil
}

// Unreserve gives devices back, and what was written.
func (p *Plugin) Unreserve(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, _ string) {
	s, err := read(cs)
	if err != nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	mates := matesOf(cs)
	for _, c := range s.reserved {
		mates.giveBack(c.UID, pod.UID)
		if p.claims.GetPendingAllocation(c.UID) != nil {
			framework.TakeNote(ctx, p.handle, Name, framework.Note{What: noteForgotten, Object: c}, func() { p.forget(c) })
		}
	}
	s.reserved = nil // it may be reserved again
	for _, c := range s.claims {
		if err := p.release(ctx, c, pod); err != nil && !apierrors.IsNotFound(err) {
			klog.FromContext(ctx).Error(err, "Giving a claim back", "resourceclaim", klog.KObj(c))
		}
	}
	if s.special != nil {
		if err := p.remove(ctx, s.special); err != nil {
			klog.FromContext(ctx).Error(err, "Deleting the claim for extended resources", "resourceclaim", klog.KObj(s.special))
		}
	}
}

// release takes the pod's reservation out of a claim, if it was written. That of its group
// stays: mates may rely on it.
func (p *Plugin) release(ctx context.Context, c *resourceapi.ResourceClaim, pod *v1.Pod) error {
	now, err := p.claims.Get(c.Namespace, c.Name)
	if err != nil {
		return err
	}
	if !resourceclaim.IsReservedForPod(pod, now, false) {
		return nil
	}
	_, err = p.update(ctx, c, func(current *resourceapi.ResourceClaim) (bool, error) {
		before := len(current.Status.ReservedFor)
		current.Status.ReservedFor = slices.DeleteFunc(current.Status.ReservedFor, func(r resourceapi.ResourceClaimConsumerReference) bool { return r.UID == pod.UID })
		return len(current.Status.ReservedFor) < before, nil
	})
	return err
}

// PreBindPreFlight skips pods without claims, and those that have all of theirs.
func (p *Plugin) PreBindPreFlight(_ context.Context, cs fwk.CycleState, pod *v1.Pod, node string) (*fwk.PreBindPreFlightResult, *fwk.Status) {
	s, err := read(cs)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	busy := func(c *resourceapi.ResourceClaim) bool { return !p.isReserved(c, pod) || conditional(c) }
	flight := &fwk.PreBindPreFlightResult{AllowParallel: true}
	if !slices.ContainsFunc(s.claims, busy) && len(s.found[node].special.requests) == 0 {
		return flight, fwk.NewStatus(fwk.Skip)
	}
	return flight, nil
}

// PreBind writes allocations, and that the claims are reserved for the pod, and waits
// for devices that are not ready yet.
func (p *Plugin) PreBind(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, node string) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	var waiting []*resourceapi.ResourceClaim
	for _, c := range s.claims {
		if !p.isReserved(c, pod) {
			if c, err = p.bind(ctx, c, s.allocationOf(c.UID), s.consumers[c.Name]); err != nil {
				return fwk.AsStatus(err)
			}
		}
		if conditional(c) {
			waiting = append(waiting, c)
		}
	}
	asked := s.found[node].special
	if len(asked.requests) > 0 {
		c, err := p.create(ctx, s, asked.requests, pod)
		if err != nil {
			return fwk.AsStatus(err)
		}
		if conditional(c) {
			waiting = append(waiting, c)
		}
	}
	if err := p.waitForDevices(ctx, waiting); err != nil {
		return fwk.AsStatus(err)
	}
	if s.special != nil {
		return fwk.AsStatus(p.name(ctx, pod, s.special.Name, asked.mappings))
	}
	return nil
}

// allocationOf returns the allocation that Reserve chose for a claim; nil if it has one.
func (s *state) allocationOf(uid types.UID) *resourceapi.AllocationResult {
	for _, r := range s.reserved {
		if r.UID == uid {
			return r.Status.Allocation
		}
	}
	return nil
}

// create makes the claim for extended resources.
func (p *Plugin) create(ctx context.Context, s *state, requests []resourceapi.DeviceRequest, pod *v1.Pod) (*resourceapi.ResourceClaim, error) {
	claim := newSpecial(pod, requests)
	allocation := s.allocationOf(claim.UID)
	claim.Name, claim.UID, claim.Finalizers = "", "", []string{resourceapi.Finalizer}
	created, err := p.client.ResourceV1().ResourceClaims(pod.Namespace).Create(ctx, claim, metav1.CreateOptions{})
	result := "success"
	if err != nil {
		result = "failure"
	}
	resourceclaimmetrics.ResourceClaimCreate.WithLabelValues(result, "false", "", "Pod").Inc()
	if err != nil {
		return nil, fmt.Errorf("create claim for extended resources: %w", err)
	}
	s.special = created
	return p.bind(ctx, created, allocation, consumer(pod))
}

// name writes into the status of a pod which claim it has for extended resources. The API
// server never forgets that again, so it comes last.
func (p *Plugin) name(ctx context.Context, pod *v1.Pod, claim string, mappings []v1.ContainerExtendedResourceRequest) error {
	change := podstatus.Change{ExtendedResourceClaim: &v1.PodExtendedResourceClaimStatus{ResourceClaimName: claim, RequestMappings: mappings}}
	if err := change.Patch(ctx, p.client, pod); err != nil {
		return fmt.Errorf("update the pod's extendedResourceClaimStatus: %w", err)
	}
	return nil
}

// remove deletes the claim for extended resources. That it is gone already is well.
func (p *Plugin) remove(ctx context.Context, c *resourceapi.ResourceClaim) error {
	api := p.client.ResourceV1().ResourceClaims(c.Namespace)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := api.Get(ctx, c.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if current.UID != c.UID {
			return nil
		}
		if i := slices.Index(current.Finalizers, resourceapi.Finalizer); i >= 0 {
			current.Finalizers = slices.Delete(current.Finalizers, i, i+1)
			if _, err := api.Update(ctx, current, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		return api.Delete(ctx, c.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(c.UID))})
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete claim %s: %w", klog.KObj(c), err)
	}
	framework.TakeNote(ctx, p.handle, Name, framework.Note{What: noteDeleted, Object: c}, func() { p.claims.AssumedClaimRestore(c.Namespace, c.Name) })
	return nil
}

// bind reserves a claim, with a new allocation if there is one, which a mate may have
// written already. It returns the claim as it is then.
func (p *Plugin) bind(ctx context.Context, c *resourceapi.ResourceClaim, allocation *resourceapi.AllocationResult, consumer resourceapi.ResourceClaimConsumerReference) (*resourceapi.ResourceClaim, error) {
	if allocation != nil && !slices.Contains(c.Finalizers, resourceapi.Finalizer) {
		if err := p.protect(ctx, c); err != nil {
			return nil, fmt.Errorf("add finalizer to claim %s: %w", klog.KObj(c), err)
		}
	}
	return p.update(ctx, c, func(current *resourceapi.ResourceClaim) (bool, error) {
		reserved := slices.ContainsFunc(current.Status.ReservedFor, func(r resourceapi.ResourceClaimConsumerReference) bool { return r.UID == consumer.UID })
		switch {
		case current.DeletionTimestamp != nil:
			return false, fmt.Errorf("claim %s got deleted in the meantime", klog.KObj(c))
		case allocation != nil && current.Status.Allocation != nil && !sameAllocation(current.Status.Allocation, allocation):
			return false, fmt.Errorf("claim %s got allocated elsewhere in the meantime", klog.KObj(c))
		case allocation == nil && current.Status.Allocation == nil:
			return false, fmt.Errorf("claim %s got deallocated elsewhere in the meantime", klog.KObj(c))
		case allocation != nil && current.Status.Allocation == nil:
			current.Status.Allocation = allocation.DeepCopy()
		case reserved:
			return false, nil
		}
		if current.Status.Allocation.AllocationTimestamp == nil {
			now := metav1.Now()
			current.Status.Allocation.AllocationTimestamp = &now
		}
		if !reserved {
			current.Status.ReservedFor = append(current.Status.ReservedFor, consumer)
		}
		return true, nil
	})
}

// sameAllocation compares allocations but for their time.
func sameAllocation(a, b *resourceapi.AllocationResult) bool {
	timeless := *a
	timeless.AllocationTimestamp = b.AllocationTimestamp
	return equality.Semantic.DeepEqual(&timeless, b)
}

// protect keeps a claim from vanishing while it is allocated.
func (p *Plugin) protect(ctx context.Context, c *resourceapi.ResourceClaim) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := p.client.ResourceV1().ResourceClaims(c.Namespace).Get(ctx, c.Name, metav1.GetOptions{})
		if err != nil || slices.Contains(current.Finalizers, resourceapi.Finalizer) {
			return err
		}
		current.Finalizers = append(current.Finalizers, resourceapi.Finalizer)
		_, err = p.client.ResourceV1().ResourceClaims(c.Namespace).Update(ctx, current, metav1.UpdateOptions{})
		return err
	})
}

// deallocate frees the devices of a claim, unless it has come into use meanwhile.
func (p *Plugin) deallocate(ctx context.Context, c *resourceapi.ResourceClaim, unused func(*resourceapi.ResourceClaim) bool) error {
	_, err := p.update(ctx, c, func(current *resourceapi.ResourceClaim) (bool, error) {
		if !unused(current) {
			return false, nil
		}
		current.Status.Allocation, current.Status.ReservedFor, current.Status.Devices = nil, nil, nil
		return true, nil
	})
	return err
}

// update changes the status of a claim as it is now, and remembers it until the
// informer shows it.
func (p *Plugin) update(ctx context.Context, c *resourceapi.ResourceClaim, change func(*resourceapi.ResourceClaim) (bool, error)) (*resourceapi.ResourceClaim, error) {
	now, written, err := p.write(ctx, c, change)
	if written {
		framework.TakeNote(ctx, p.handle, Name, framework.Note{What: noteWritten, Object: now}, func() { p.claims.Wrote(now) })
	}
	return now, err
}

func (p *Plugin) write(ctx context.Context, c *resourceapi.ResourceClaim, change func(*resourceapi.ResourceClaim) (bool, error)) (now *resourceapi.ResourceClaim, written bool, err error) {
	p.writing.LockKey(string(c.UID))
	defer func() { _ = p.writing.UnlockKey(string(c.UID)) }() // it is locked
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now, err = p.client.ResourceV1().ResourceClaims(c.Namespace).Get(ctx, c.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.UID != c.UID {
			return fmt.Errorf("claim %s was deleted and made again", klog.KObj(c))
		}
		changed, err := change(now)
		if err != nil || !changed {
			return err
		}
		now, err = p.client.ResourceV1().ResourceClaims(c.Namespace).UpdateStatus(ctx, now, metav1.UpdateOptions{})
		written = err == nil
		return err
	})
	return now, written, err
}

// What notes of this plugin's memory say of a claim.
const (
	noteReserved  = "reserved"  // an allocation is being written
	noteWritten   = "written"   // this is how it was written
	noteForgotten = "forgotten" // the allocation is not going to be written
	noteDeleted   = "deleted"
)

// Memory returns the claims whose allocation is being written, or has been just now.
func (p *Plugin) Memory() []framework.Note {
	var notes []framework.Note
	pending, written := p.claims.Known()
	for _, c := range pending {
		notes = append(notes, framework.Note{What: noteReserved, Object: c})
	}
	for _, c := range written {
		notes = append(notes, framework.Note{What: noteWritten, Object: c})
	}
	return notes
}

// Recall takes over what another plugin of the kind knows.
func (p *Plugin) Recall(n framework.Note) error {
	c, ok := n.Object.(*resourceapi.ResourceClaim)
	if !ok {
		return fmt.Errorf("a note about a %T", n.Object)
	}
	switch n.What {
	case noteReserved:
		if p.claims.GetPendingAllocation(c.UID) == nil { // other profiles share what this one knows
			return p.claims.SignalClaimPendingAllocation(c.UID, c)
		}
	case noteWritten:
		p.claims.Wrote(c)
	case noteForgotten:
		p.forget(c)
	case noteDeleted:
		p.claims.AssumedClaimRestore(c.Namespace, c.Name)
	}
	return nil
}

func (p *Plugin) forget(c *resourceapi.ResourceClaim) {
	p.claims.MaybeRemoveClaimPendingAllocation(c.UID, false)
}
