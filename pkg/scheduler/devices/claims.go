package devices

import (
	"fmt"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/sets"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
	"k8s.io/dynamic-resource-allocation/structured"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"
)

// Claims knows claims, and which devices are taken: by claims that the informer shows as
// allocated, and by those whose allocation is being written.
type Claims struct {
	lister resourcelisters.ResourceClaimLister

	mu sync.Mutex
	// pending are allocations that are being written, by the UID of the claim.
	pending map[types.UID]pending
	// written are claims as they were written, until the informer shows them so.
	written map[types.UID]*resourceapi.ResourceClaim
}

type pending struct {
	claim *resourceapi.ResourceClaim
	users int
}

var _ fwk.ResourceClaimTracker = &Claims{}

func newClaims(lister resourcelisters.ResourceClaimLister) *Claims {
	return &Claims{lister: lister, pending: map[types.UID]pending{}, written: map[types.UID]*resourceapi.ResourceClaim{}}
}

// SpecialUID stands for the claim that the scheduler makes for the extended resources of
// a pod, until the API server has given it one.
func SpecialUID(pod types.UID) types.UID { return "extended-resources-of-" + pod }

// IsSpecial reports whether a claim was made by the scheduler for the extended resources
// of the pod with the UID that it returns.
func IsSpecial(c *resourceapi.ResourceClaim) (types.UID, bool) {
	owner := metav1.GetControllerOfNoCopy(c)
	if c.Annotations[resourceapi.ExtendedResourceClaimAnnotation] != "true" || owner == nil || owner.Kind != "Pod" {
		return "", false
	}
	return owner.UID, true
}

// Get returns a claim as it is taken to be: as it was written, where the informer lags.
func (t *Claims) Get(namespace, name string) (*resourceapi.ResourceClaim, error) {
	seen, err := t.lister.ResourceClaims(namespace).Get(name)
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.now(seen), nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.written {
		if _, special := IsSpecial(c); special && c.Namespace == namespace && c.Name == name { // just created
			return c, nil
		}
	}
	return nil, err
}

// now returns a claim as it is taken to be. The mutex is held.
func (t *Claims) now(seen *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	written, ok := t.written[seen.UID]
	if !ok {
		return seen
	}
	if older(seen.ResourceVersion, written.ResourceVersion) {
		return written
	}
	delete(t.written, seen.UID)
	return seen
}

func older(a, b string) bool {
	n, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && n < 0
}

// List returns all claims, as they are taken to be.
func (t *Claims) List() ([]*resourceapi.ResourceClaim, error) {
	all, err := t.lister.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listLocked(all), nil
}

func (t *Claims) listLocked(all []*resourceapi.ResourceClaim) []*resourceapi.ResourceClaim {
	there := make(sets.Set[types.UID], len(all))
	newest := ""
	for i, seen := range all {
		there.Insert(seen.UID)
		if newest == "" || older(newest, seen.ResourceVersion) {
			newest = seen.ResourceVersion
		}
		all[i] = t.now(seen)
	}
	for uid, c := range t.written {
		if there.Has(uid) {
			continue
		}
		if _, special := IsSpecial(c); special && !older(c.ResourceVersion, newest) {
			all = append(all, c) // created, and the informer does not know yet
			continue
		}
		delete(t.written, uid) // it has been deleted
	}
	return all
}

// ListAllAllocatedDevices returns the devices that are in use by one claim alone.
func (t *Claims) ListAllAllocatedDevices() (sets.Set[structured.DeviceID], error) {
	s, err := t.GatherAllocatedState()
	if err != nil {
		return nil, err
	}
	return s.AllocatedDevices, nil
}

// GatherAllocatedState returns what is in use of devices.
func (t *Claims) GatherAllocatedState() (*structured.AllocatedState, error) {
	s := &structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	all, err := t.lister.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.listLocked(all) {
		if a := c.Status.Allocation; a != nil {
			take(s, a)
		}
	}
	for _, p := range t.pending {
		take(s, p.claim.Status.Allocation)
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

// SignalClaimPendingAllocation takes the devices of a claim whose allocation is going to
// be written. Who does so for a claim that has one already shares that.
func (t *Claims) SignalClaimPendingAllocation(uid types.UID, allocated *resourceapi.ResourceClaim) error {
	if allocated == nil || allocated.Status.Allocation == nil {
		return fmt.Errorf("claim %s has no allocation that could be pending", uid)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.pending[uid]
	if !ok {
		p.claim = allocated
	}
	p.users++
	t.pending[uid] = p
	return nil
}

// GetPendingAllocation returns the allocation that is being written; nil if none is.
func (t *Claims) GetPendingAllocation(uid types.UID) *resourceapi.AllocationResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.pending[uid]; ok {
		return p.claim.Status.Allocation
	}
	return nil
}

// MaybeRemoveClaimPendingAllocation gives devices back when the last, or anyone by
// force, who took them does. It reports whether they are free now.
func (t *Claims) MaybeRemoveClaimPendingAllocation(uid types.UID, force bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.pending[uid]
	if !ok {
		return false
	}
	if p.users--; p.users > 0 && !force {
		t.pending[uid] = p
		return false
	}
	delete(t.pending, uid)
	return true
}

// AssumeClaimAfterAPICall is Wrote.
func (t *Claims) AssumeClaimAfterAPICall(c *resourceapi.ResourceClaim) error {
	t.Wrote(c)
	return nil
}

// Wrote remembers a claim as it was written. Its allocation is no longer pending.
func (t *Claims) Wrote(c *resourceapi.ResourceClaim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written[c.UID] = c
	delete(t.pending, c.UID)
	if pod, special := IsSpecial(c); special {
		delete(t.pending, SpecialUID(pod))
	}
}

// AssumedClaimRestore forgets what was written to a claim: it did not come to pass, or
// the claim has been deleted.
func (t *Claims) AssumedClaimRestore(namespace, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for uid, c := range t.written {
		if c.Namespace == namespace && c.Name == name {
			delete(t.written, uid)
		}
	}
}

// Known returns what this scheduler knows of claims before the informer: those whose
// allocation is being written, and those that have been written.
func (t *Claims) Known() (pending, written []*resourceapi.ResourceClaim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pending {
		pending = append(pending, p.claim)
	}
	for _, c := range t.written {
		written = append(written, c)
	}
	return pending, written
}
