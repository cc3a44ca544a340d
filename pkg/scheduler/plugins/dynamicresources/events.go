package dynamicresources

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/devices"
)

// EventsToRegister: claims are made, allocated and freed; devices and classes appear.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{
		{Event: fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add | fwk.UpdateNodeLabel | fwk.UpdateNodeTaint | fwk.UpdateNodeAllocatable}},
		{Event: fwk.ClusterEvent{Resource: fwk.ResourceClaim, ActionType: fwk.Add | fwk.Update | fwk.Delete}, QueueingHintFn: p.claimChanged},
		{Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodGeneratedResourceClaim}, QueueingHintFn: p.claimsMade},
		{Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, QueueingHintFn: p.podGone},
		{Event: fwk.ClusterEvent{Resource: fwk.DeviceClass, ActionType: fwk.Add | fwk.Update}},
		{Event: fwk.ClusterEvent{Resource: fwk.ResourceSlice, ActionType: fwk.Add | fwk.Update}},
	}, nil
}

// claimChanged asks whether a claim of the pod's came, or has another status, or any
// other gave devices back.
func (p *Plugin) claimChanged(_ klog.Logger, pod *v1.Pod, oldObj, newObj any) (fwk.QueueingHint, error) {
	before, err := claimIn(oldObj)
	if err != nil {
		return fwk.Queue, err
	}
	after, err := claimIn(newObj)
	if err != nil {
		return fwk.Queue, err
	}
	if before != nil && before.Status.Allocation != nil && (after == nil || after.Status.Allocation == nil) {
		return fwk.Queue, nil
	}
	if after == nil {
		owner, special := devices.IsSpecial(before)
		if special && owner == pod.UID { // it was in the way
			return fwk.Queue, nil
		}
		return fwk.QueueSkip, nil
	}
	claims, err := p.claimsOf(pod)
	if err != nil { // not all are there yet
		return fwk.QueueSkip, nil //nolint:nilerr // this is the answer
	}
	if !slices.ContainsFunc(claims, func(c *resourceapi.ResourceClaim) bool { return c.UID == after.UID }) {
		return fwk.QueueSkip, nil
	}
	if before != nil && equality.Semantic.DeepEqual(before.Status, after.Status) {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}

// claimIn returns the claim that an event is about, nil if there is none on this side of it.
func claimIn(obj any) (*resourceapi.ResourceClaim, error) {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if obj == nil || reflect.ValueOf(obj).Kind() == reflect.Pointer && reflect.ValueOf(obj).IsNil() {
		return nil, nil
	}
	c, ok := obj.(*resourceapi.ResourceClaim)
	if !ok {
		return nil, fmt.Errorf("a %T, want a ResourceClaim", obj)
	}
	return c, nil
}

// claimsMade asks whether all claims of the pod have been made.
func (p *Plugin) claimsMade(_ klog.Logger, _ *v1.Pod, _, newObj any) (fwk.QueueingHint, error) {
	pod, ok := newObj.(*v1.Pod)
	if !ok {
		return fwk.Queue, fmt.Errorf("a %T, want a Pod", newObj)
	}
	if _, err := p.claimsOf(pod); err != nil {
		return fwk.QueueSkip, nil //nolint:nilerr // this is the answer
	}
	return fwk.Queue, nil
}

// podGone asks whether a pod that went, or was turned back before it was bound, may have
// been about to get devices: of these no claim tells.
func (p *Plugin) podGone(_ klog.Logger, _ *v1.Pod, oldObj, _ any) (fwk.QueueingHint, error) {
	if gone, ok := oldObj.(*v1.Pod); ok && len(gone.Spec.ResourceClaims) == 0 && len(classesOf(gone, p.resolver)) == 0 {
		return fwk.QueueSkip, nil
	}
	return fwk.Queue, nil
}
