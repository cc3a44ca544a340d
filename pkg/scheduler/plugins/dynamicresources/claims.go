package dynamicresources

import (
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/sets"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"
)

// tracker knows claims, and which devices are taken: by claims that the informer shows
// as allocated, and by those whose allocation is being written.
type tracker struct {
	lister resourcelisters.ResourceClaimLister

	mu sync.Mutex
	// chosen are claims with an allocation that the informer may not show yet; one
	// that has been written carries the resource version that it got.
	chosen map[types.UID]chosen
}

type chosen struct {
	claim   *resourceapi.ResourceClaim
	written bool
}

func newTracker(lister resourcelisters.ResourceClaimLister) *tracker {
	return &tracker{lister: lister, chosen: map[types.UID]chosen{}}
}

// of returns the claims of a pod. It is an error, for people to read, if one cannot be
// used: it is not there yet, somebody else's, or being deleted.
func (t *tracker) of(pod *v1.Pod) ([]*resourceapi.ResourceClaim, error) {
	var claims []*resourceapi.ResourceClaim
	for i := range pod.Spec.ResourceClaims {
		name, own, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name == nil { // the template asks for none
			continue
		}
		claim, err := t.lister.ResourceClaims(pod.Namespace).Get(*name)
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
			if err := resourceclaim.IsForPod(pod, claim, false); err != nil {
				return nil, err
			}
		}
		claims = append(claims, t.now(claim))
	}
	return claims, nil
}

// now returns a claim as it is taken to be: as it was written, where the informer lags.
func (t *tracker) now(seen *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.chosen[seen.UID]
	if !ok || !c.written {
		return seen
	}
	if lags(seen, c.claim) {
		return c.claim
	}
	delete(t.chosen, seen.UID)
	return seen
}

func lags(seen, written *resourceapi.ResourceClaim) bool {
	n, err := resourceversion.CompareResourceVersion(seen.ResourceVersion, written.ResourceVersion)
	return err == nil && n < 0
}

// pending reports whether an allocation is being written.
func (t *tracker) pending(uid types.UID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.chosen[uid]
	return ok && !c.written
}

func (t *tracker) choose(claim *resourceapi.ResourceClaim, written bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.chosen[claim.UID] = chosen{claim, written}
}

func (t *tracker) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.chosen, uid)
}

// taken returns the devices that are in use.
func (t *tracker) taken() (structured.AllocatedState, error) {
	s := structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	all, err := t.lister.List(labels.Everything())
	if err != nil {
		return s, err
	}
	there := sets.New[types.UID]()
	for _, seen := range all {
		there.Insert(seen.UID)
		if a := t.now(seen).Status.Allocation; a != nil {
			take(&s, a)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for uid, c := range t.chosen {
		switch {
		case !c.written:
			take(&s, c.claim.Status.Allocation)
		case !there.Has(uid): // it has been deleted
			delete(t.chosen, uid)
		}
	}
	return s, nil
}

func take(s *structured.AllocatedState, a *resourceapi.AllocationResult) {
	for _, r := range a.Devices.Results {
		if ptr.Deref(r.AdminAccess, false) { // it looks on, and takes nothing
			continue
		}
		id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
		if r.ShareID == nil {
			s.AllocatedDevices.Insert(id)
			continue
		}
		s.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, r.ShareID))
		if r.ConsumedCapacity != nil {
			s.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity))
		}
	}
}
