package volumebinding

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/component-helpers/storage/volume"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// pollInterval is how often a pod looks whether its claims are bound.
const pollInterval = time.Second

// Reserve takes the volumes of the plan to be the claims', so that the next pod does
// not choose them too.
func (p *Plugin) Reserve(ctx context.Context, cs fwk.CycleState, _ *v1.Pod, node string) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	planned := s.plan(node)
	if planned == nil {
		return nil
	}
	reserved := &plan{}
	for _, b := range planned.bindings {
		v, _, err := volume.GetBindVolumeToClaim(b.volume, b.claim)
		if err != nil {
			p.forget(ctx, reserved)
			return fwk.AsStatus(err)
		}
		p.assumedVolumes.assume(v)
		reserved.bindings = append(reserved.bindings, binding{b.claim, v})
	}
	for _, n := range planned.provisions {
		claim := n.claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volume.AnnSelectedNode, node)
		p.assumedClaims.assume(claim)
		reserved.provisions = append(reserved.provisions, provision{claim, n.capacity})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plans[node] = reserved
	return nil
}

// Unreserve gives the volumes back.
func (p *Plugin) Unreserve(ctx context.Context, cs fwk.CycleState, _ *v1.Pod, node string) {
	if s, err := read(cs); err == nil {
		if planned := s.plan(node); planned != nil {
			p.forget(ctx, planned)
		}
	}
}

func (p *Plugin) forget(ctx context.Context, planned *plan) {
	for _, b := range planned.bindings {
		framework.TakeNote(ctx, p.handle, Name, framework.Note{What: noteForgotten, Object: b.volume}, func() { p.assumedVolumes.forget(b.volume) })
	}
	for _, n := range planned.provisions {
		framework.TakeNote(ctx, p.handle, Name, framework.Note{What: noteForgotten, Object: n.claim}, func() { p.assumedClaims.forget(n.claim) })
	}
}

// What notes of this plugin's memory say.
const (
	noteAssumed   = "assumed"
	noteForgotten = "forgotten"
)

// Memory returns the volumes and claims that are being written.
func (p *Plugin) Memory() []framework.Note {
	var notes []framework.Note
	for _, v := range p.assumedVolumes.all() {
		notes = append(notes, framework.Note{What: noteAssumed, Object: v})
	}
	for _, c := range p.assumedClaims.all() {
		notes = append(notes, framework.Note{What: noteAssumed, Object: c})
	}
	return notes
}

// Recall takes over what another plugin of the kind knows.
func (p *Plugin) Recall(n framework.Note) error {
	switch o := n.Object.(type) {
	case *v1.PersistentVolume:
		recall(p.assumedVolumes, n.What, o)
	case *v1.PersistentVolumeClaim:
		recall(p.assumedClaims, n.What, o)
	default:
		return fmt.Errorf("a note about a %T", n.Object)
	}
	return nil
}

func recall[T metav1.Object](a *assumed[T], what string, object T) {
	if what == noteAssumed {
		a.assume(object)
	} else {
		a.forget(object)
	}
}

// PreBindPreFlight skips pods whose claims are all bound.
func (p *Plugin) PreBindPreFlight(_ context.Context, cs fwk.CycleState, _ *v1.Pod, node string) (*fwk.PreBindPreFlightResult, *fwk.Status) {
	s, err := read(cs)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	flight := &fwk.PreBindPreFlightResult{AllowParallel: true}
	if planned := s.plan(node); planned == nil || len(planned.bindings)+len(planned.provisions) == 0 {
		return flight, fwk.NewStatus(fwk.Skip)
	}
	return flight, nil
}

// PreBind writes the plan and waits until the claims are bound.
func (p *Plugin) PreBind(ctx context.Context, cs fwk.CycleState, pod *v1.Pod, node string) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	planned := s.plan(node)
	if planned == nil {
		return nil
	}
	if err := p.write(ctx, planned); err != nil {
		return fwk.AsStatus(err)
	}
	err = wait.PollUntilContextTimeout(ctx, pollInterval, p.timeout, true, func(context.Context) (bool, error) {
		return p.bound(planned, pod, node)
	})
	if wait.Interrupted(err) {
		err = fmt.Errorf("timed out waiting for the claims of the pod to be bound: %w", err)
	}
	return fwk.AsStatus(err)
}

// write tells the controller of volumes what to bind, and provisioners where to.
func (p *Plugin) write(ctx context.Context, planned *plan) error {
	for i, b := range planned.bindings {
		v, err := p.client.CoreV1().PersistentVolumes().Update(ctx, b.volume, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("binding volume %s to claim %s: %w", b.volume.Name, b.claim.Name, err)
		}
		planned.bindings[i].volume = v
	}
	for i, n := range planned.provisions {
		claim, err := p.client.CoreV1().PersistentVolumeClaims(n.claim.Namespace).Update(ctx, n.claim, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("choosing the node of claim %s: %w", n.claim.Name, err)
		}
		planned.provisions[i].claim = claim
	}
	return nil
}

// bound reports whether all claims of a plan are bound. It is an error if something
// happened that takes another node, or the pod's end.
func (p *Plugin) bound(planned *plan, pod *v1.Pod, name string) (bool, error) {
	node, err := p.nodes.Get(name)
	if err != nil {
		return false, fmt.Errorf("failed to get node %q: %w", name, err)
	}
	if _, err := p.pods.Pods(pod.Namespace).Get(pod.Name); apierrors.IsNotFound(err) {
		return false, fmt.Errorf("pod does not exist any more: %w", err)
	}
	done := true
	for _, b := range planned.bindings {
		v, err := p.volumes.Get(b.volume.Name)
		if err != nil {
			return false, fmt.Errorf("failed to check binding: %w", err)
		}
		claim, err := p.claims.PersistentVolumeClaims(b.claim.Namespace).Get(b.claim.Name)
		if err != nil {
			return false, fmt.Errorf("failed to check binding: %w", err)
		}
		if older(v, b.volume) { // the informer has not seen what was written
			done = false
			continue
		}
		if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == "" {
			return false, fmt.Errorf("ClaimRef got reset for pv %q", v.Name)
		}
		if err := p.fits(v, node); err != nil {
			return false, err
		}
		done = done && isBound(claim)
	}
	for _, n := range planned.provisions {
		claim, err := p.claims.PersistentVolumeClaims(n.claim.Namespace).Get(n.claim.Name)
		if err != nil {
			return false, fmt.Errorf("failed to check provisioning pvc: %w", err)
		}
		if older(claim, n.claim) {
			done = false
			continue
		}
		if claim.Annotations[volume.AnnSelectedNode] != name { // the provisioner gave up on the node
			return false, fmt.Errorf("provisioning failed for PVC %q", claim.Name)
		}
		if !isBound(claim) {
			done = false
			continue
		}
		v, err := p.volumes.Get(claim.Spec.VolumeName)
		if apierrors.IsNotFound(err) {
			done = false
			continue
		}
		if err != nil {
			return false, err
		}
		if err := p.fits(v, node); err != nil {
			return false, err
		}
	}
	return done, nil
}

func (p *Plugin) fits(v *v1.PersistentVolume, node *v1.Node) error {
	v, err := p.translated(v)
	if err != nil {
		return err
	}
	if err := volume.CheckNodeAffinity(v, node.Labels); err != nil {
		return fmt.Errorf("pv %q node affinity doesn't match node %q: %w", v.Name, node.Name, err)
	}
	return nil
}

// older reports whether an informer's object is from before one that was written.
func older(seen, written metav1.Object) bool {
	n, err := resourceversion.CompareResourceVersion(seen.GetResourceVersion(), written.GetResourceVersion())
	return err == nil && n < 0
}
