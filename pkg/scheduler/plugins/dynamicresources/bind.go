package dynamicresources

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// Reserve takes the devices that Filter found, so that the next pod does not.
func (p *Plugin) Reserve(_ context.Context, cs fwk.CycleState, _ *v1.Pod, node string) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	open := s.unallocated()
	found := s.found[node]
	if len(found) != len(open) {
		return fwk.AsStatus(fmt.Errorf("there are %d allocations on node %s for %d claims", len(found), node, len(open)))
	}
	for i, c := range open {
		allocated := c.DeepCopy()
		allocated.Status.Allocation = &found[i]
		p.claims.choose(allocated, false)
		s.reserved = append(s.reserved, allocated)
	}
	return nil
}

// Unreserve gives devices back, and reservations that were written.
func (p *Plugin) Unreserve(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, _ string) {
	s, err := read(cs)
	if err != nil {
		return
	}
	for _, c := range s.reserved {
		if p.claims.pending(c.UID) {
			framework.TakeNote(ctx, p.handle, Name, framework.Note{What: noteForgotten, Object: c}, func() { p.claims.forget(c.UID) })
		}
	}
	for _, c := range s.claims {
		if err := p.release(context.WithoutCancel(ctx), c, pod); err != nil && !apierrors.IsNotFound(err) {
			klog.FromContext(ctx).Error(err, "Giving a claim back", "resourceclaim", klog.KObj(c))
		}
	}
}

// release takes the pod's reservation out of a claim, if it was written.
func (p *Plugin) release(ctx context.Context, c *resourceapi.ResourceClaim, pod *v1.Pod) error {
	seen, err := p.claims.lister.ResourceClaims(c.Namespace).Get(c.Name)
	if err != nil {
		return err
	}
	if !resourceclaim.IsReservedForPod(pod, p.claims.now(seen), false) {
		return nil
	}
	return p.update(ctx, c, func(current *resourceapi.ResourceClaim) (bool, error) {
		before := len(current.Status.ReservedFor)
		current.Status.ReservedFor = slices.DeleteFunc(current.Status.ReservedFor, func(r resourceapi.ResourceClaimConsumerReference) bool { return r.UID == pod.UID })
		return len(current.Status.ReservedFor) < before, nil
	})
}

// PreBindPreFlight skips pods without claims, and those that have all of theirs.
func (p *Plugin) PreBindPreFlight(_ context.Context, cs fwk.CycleState, pod *v1.Pod, _ string) (*fwk.PreBindPreFlightResult, *fwk.Status) {
	s, err := read(cs)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if !slices.ContainsFunc(s.claims, func(c *resourceapi.ResourceClaim) bool { return !resourceclaim.IsReservedForPod(pod, c, false) }) {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	return &fwk.PreBindPreFlightResult{}, nil
}

// PreBind writes allocations, and that the claims are reserved for the pod.
func (p *Plugin) PreBind(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, _ string) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	for _, c := range s.claims {
		if resourceclaim.IsReservedForPod(pod, c, false) {
			continue
		}
		var allocation *resourceapi.AllocationResult
		if i := slices.IndexFunc(s.reserved, func(r *resourceapi.ResourceClaim) bool { return r.UID == c.UID }); i >= 0 {
			allocation = s.reserved[i].Status.Allocation
		}
		if err := p.bind(ctx, c, allocation, pod); err != nil {
			return fwk.AsStatus(err)
		}
	}
	return nil
}

// bind reserves a claim for pod, with a new allocation if there is one.
func (p *Plugin) bind(ctx context.Context, c *resourceapi.ResourceClaim, allocation *resourceapi.AllocationResult, pod *v1.Pod) error {
	if allocation != nil && !slices.Contains(c.Finalizers, resourceapi.Finalizer) {
		if err := p.protect(ctx, c); err != nil {
			return fmt.Errorf("add finalizer to claim %s: %w", klog.KObj(c), err)
		}
	}
	return p.update(ctx, c, func(current *resourceapi.ResourceClaim) (bool, error) {
		switch {
		case current.DeletionTimestamp != nil:
			return false, fmt.Errorf("claim %s got deleted in the meantime", klog.KObj(c))
		case allocation != nil && current.Status.Allocation != nil:
			return false, fmt.Errorf("claim %s got allocated elsewhere in the meantime", klog.KObj(c))
		case allocation == nil && current.Status.Allocation == nil:
			return false, fmt.Errorf("claim %s got deallocated elsewhere in the meantime", klog.KObj(c))
		case allocation != nil:
			current.Status.Allocation = allocation.DeepCopy()
		}
		current.Status.ReservedFor = append(current.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		return true, nil
	})
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

// deallocate frees the devices of a claim that nobody uses.
func (p *Plugin) deallocate(ctx context.Context, c *resourceapi.ResourceClaim) error {
	return p.update(ctx, c, func(current *resourceapi.ResourceClaim) (bool, error) {
		if len(current.Status.ReservedFor) > 1 {
			return false, nil // somebody was faster
		}
		current.Status.Allocation, current.Status.ReservedFor = nil, nil
		return true, nil
	})
}

// update changes the status of a claim as it is now, and remembers it until the
// informer shows it.
func (p *Plugin) update(ctx context.Context, c *resourceapi.ResourceClaim, change func(*resourceapi.ResourceClaim) (bool, error)) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := p.client.ResourceV1().ResourceClaims(c.Namespace).Get(ctx, c.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if current.UID != c.UID {
			return fmt.Errorf("claim %s was deleted and made again", klog.KObj(c))
		}
		changed, err := change(current)
		if err != nil || !changed {
			return err
		}
		written, err := p.client.ResourceV1().ResourceClaims(c.Namespace).UpdateStatus(ctx, current, metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		framework.TakeNote(ctx, p.handle, Name, framework.Note{What: noteWritten, Object: written}, func() { p.claims.choose(written, true) })
		return nil
	})
}

// What notes of this plugin's memory say.
const (
	noteReserved  = "reserved"
	noteWritten   = "written"
	noteForgotten = "forgotten"
)

// Memory returns the claims whose allocation is being written, or has been just now.
func (p *Plugin) Memory() []framework.Note {
	p.claims.mu.Lock()
	defer p.claims.mu.Unlock()
	var notes []framework.Note
	for _, c := range p.claims.chosen {
		what := noteReserved
		if c.written {
			what = noteWritten
		}
		notes = append(notes, framework.Note{What: what, Object: c.claim})
	}
	return notes
}

// Recall takes over what another plugin of the kind knows.
func (p *Plugin) Recall(n framework.Note) error {
	c, ok := n.Object.(*resourceapi.ResourceClaim)
	if !ok {
		return fmt.Errorf("a note about a %T", n.Object)
	}
	if n.What == noteForgotten {
		p.claims.forget(c.UID)
	} else {
		p.claims.choose(c, n.What == noteWritten)
	}
	return nil
}
