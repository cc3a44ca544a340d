package resourcepoolstatus

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// view is what requests are answered from.
type view struct {
	slices []resourcev1.ResourceSlice
	claims []resourcev1.ResourceClaim
	rules  []resourcev1.DeviceTaintRule
}

// answer works out what is said to a request. It may be that a driver is still publishing one of the pools that were asked for:
// then pending says which.
func (v view) answer(spec resourcev1alpha3.ResourcePoolStatusRequestSpec, now time.Time) (status *resourcev1alpha3.ResourcePoolStatusRequestStatus, pending string) {
	status = &resourcev1alpha3.ResourcePoolStatusRequestStatus{}
	pools := v.pools(spec)
	limit := int(ptr.Deref(spec.Limit, resourcev1alpha3.ResourcePoolStatusRequestLimitDefault))
	wrong := 0
	for _, p := range pools[:min(limit, len(pools))] {
		if p.missing() && pending == "" {
			pending = p.name
		}
		s := p.status(v.use(p), v.rules, spec.DefaultPartitionTypeAttribute)
		if s.ValidationError != nil {
			wrong++
		}
		status.Pools = append(status.Pools, s)
	}
	message := fmt.Sprintf("Calculated status for %d pools", len(status.Pools))
	if wrong > 0 {
		message += fmt.Sprintf(" (%d incomplete)", wrong)
	}
	status.PoolCount = ptr.To(int32(len(pools)))
	status.Conditions = []metav1.Condition{{
		Type: resourcev1alpha3.ResourcePoolStatusRequestConditionComplete, Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
		Reason: "CalculationComplete", Message: message,
	}}
	return status, pending
}

// A pool is the slices of its newest generation.
type pool struct {
	driver, name string
	slices       []*resourcev1.ResourceSlice
}

// pools returns those that are asked for, by name.
func (v view) pools(spec resourcev1alpha3.ResourcePoolStatusRequestSpec) []*pool {
	byName := map[string]*pool{}
	for i := range v.slices {
		s := &v.slices[i]
		name := s.Spec.Pool.Name
		if s.Spec.Driver != spec.Driver || ptr.Deref(spec.PoolName, name) != name {
			continue
		}
		p := byName[name]
		if p == nil {
			p = &pool{driver: spec.Driver, name: name}
			byName[name] = p
		}
		switch cmp.Compare(s.Spec.Pool.Generation, p.generation()) {
		case 1:
			p.slices = []*resourcev1.ResourceSlice{s}
		case 0:
			p.slices = append(p.slices, s)
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b *pool) int { return cmp.Compare(a.name, b.name) })
}

func (p *pool) generation() int64 {
	if len(p.slices) == 0 {
		return -1
	}
	return p.slices[0].Spec.Pool.Generation
}

// missing reports whether slices are yet to come.
func (p *pool) missing() bool { return int64(len(p.slices)) < p.slices[0].Spec.Pool.ResourceSliceCount }

// use is what claims have of a pool. Those that only administer devices have nothing.
type use struct {
	devices  map[string]bool
	capacity quantities // of devices that several claims may have
}

func (v view) use(p *pool) use {
	u := use{devices: map[string]bool{}, capacity: quantities{}}
	for i := range v.claims {
		a := v.claims[i].Status.Allocation
		if a == nil {
			continue
		}
		for _, r := range a.Devices.Results {
			if r.Driver != p.driver || r.Pool != p.name || ptr.Deref(r.AdminAccess, false) {
				continue
			}
			u.devices[r.Device] = true
			for name, q := range r.ConsumedCapacity {
				u.capacity.add(string(name), q)
			}
		}
	}
	return u
}

// longestError is what there is room for in the status of a pool.
const longestError = 256

// status is what is said about a pool. What is wrong with its partitions or shares takes nothing from the other numbers.
func (p *pool) status(u use, rules []resourcev1.DeviceTaintRule, partitionType *string) resourcev1alpha3.PoolStatus {
	s := resourcev1alpha3.PoolStatus{Driver: p.driver, PoolName: p.name, Generation: p.generation(), NodeName: p.node()}
	fail := func(err error) {
		if text := err.Error(); s.ValidationError == nil {
			s.ValidationError = ptr.To(text[:min(len(text), longestError)])
		}
	}
	if p.missing() {
		fail(fmt.Errorf("PoolIncomplete: pool %s/%s is incomplete: observed %d/%d slices at generation %d", p.driver, p.name, len(p.slices), p.slices[0].Spec.Pool.ResourceSliceCount, p.generation()))
		return s
	}
	var total, tainted int32
	for _, slice := range p.slices {
		for i := range slice.Spec.Devices {
			total++
			if p.isTainted(&slice.Spec.Devices[i], rules) {
				tainted++ // though a claim may have it
			}
		}
	}
	allocated := int32(len(u.devices))
	s.ResourceSliceCount, s.TotalDevices, s.AllocatedDevices = ptr.To(int32(len(p.slices))), &total, &allocated
	s.UnavailableDevices, s.AvailableDevices = &tainted, ptr.To(max(0, total-allocated-tainted))

	partitions, err := p.partitions(u, partitionType)
	if err != nil {
		fail(err)
	}
	if s.ShareableSummary, err = p.shares(u); err != nil {
		fail(err)
	}
	if s.ValidationError == nil {
		s.PartitionSummary = partitions
	}
	return s
}

// node is the one that all slices are of, or nil.
func (p *pool) node() *string {
	node := p.slices[0].Spec.NodeName
	for _, s := range p.slices {
		if node == nil || ptr.Deref(s.Spec.NodeName, "") != *node {
			return nil
		}
	}
	return node
}

// isTainted reports whether new pods are kept from a device.
func (p *pool) isTainted(d *resourcev1.Device, rules []resourcev1.DeviceTaintRule) bool {
	keepsOff := func(t resourcev1.DeviceTaint) bool {
		return t.Effect == resourcev1.DeviceTaintEffectNoSchedule || t.Effect == resourcev1.DeviceTaintEffectNoExecute
	}
	if slices.ContainsFunc(d.Taints, keepsOff) {
		return true
	}
	return slices.ContainsFunc(rules, func(r resourcev1.DeviceTaintRule) bool {
		of := r.Spec.DeviceSelector
		return keepsOff(r.Spec.Taint) && of != nil &&
			ptr.Deref(of.Driver, p.driver) == p.driver && ptr.Deref(of.Pool, p.name) == p.name && ptr.Deref(of.Device, d.Name) == d.Name
	})
}
