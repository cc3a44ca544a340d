package resource

import resourcev1 "k8s.io/api/resource/v1"

// DropDisabledClaimFields clears the fields of a claim that belong to features which are
// off (derived attributes), unless the stored one uses them already. old is nil on creation.
func DropDisabledClaimFields(c, old *resourcev1.ResourceClaim) {
	if old == nil {
		old = &resourcev1.ResourceClaim{}
	}
	dropRequestFields(&c.Spec, &old.Spec)
}

// DropDisabledTemplateFields does the same for a template of claims.
func DropDisabledTemplateFields(t, old *resourcev1.ResourceClaimTemplate) {
	if old == nil {
		old = &resourcev1.ResourceClaimTemplate{}
	}
	dropRequestFields(&t.Spec.Spec, &old.Spec.Spec)
}

func dropRequestFields(spec, old *resourcev1.ResourceClaimSpec) {
	drop := func(s *resourcev1.ResourceClaimSpec) (used bool) {
		for i := range s.Devices.Requests {
			r := &s.Devices.Requests[i]
			if r.Exactly != nil {
				used = clearList(&r.Exactly.DerivedAttributes) || used
			}
			for j := range r.FirstAvailable {
				used = clearList(&r.FirstAvailable[j].DerivedAttributes) || used
			}
		}
		return used
	}
	if !drop(old.DeepCopy()) {
		drop(spec)
	}
}

// DropDisabledClaimStatusFields clears the fields of the status of a claim that belong
// to features which are off (optional operations of nodes), unless the stored one uses
// them already.
func DropDisabledClaimStatusFields(status, old *resourcev1.ResourceClaimStatus) {
	drop := func(s *resourcev1.ResourceClaimStatus) (used bool) {
		if s.Allocation == nil {
			return false
		}
		for i := range s.Allocation.Devices.Results {
			used = clearList(&s.Allocation.Devices.Results[i].SkipNodeOperations) || used
		}
		return used
	}
	if !drop(old.DeepCopy()) {
		drop(status)
	}
}

// disabledSliceFields are the fields of slices that belong to features which are off, by
// feature. Each function clears the fields and tells whether any was set.
var disabledSliceFields = map[string]func(*resourcev1.ResourceSliceSpec) bool{
	"DRAPartitionableDevicesType": func(s *resourcev1.ResourceSliceSpec) bool {
		used := s.PartitionTypeAttribute != nil
		s.PartitionTypeAttribute = nil
		return used
	},
	"DRAOptionalNodeOperations": func(s *resourcev1.ResourceSliceSpec) bool { return clearList(&s.SkipNodeOperations) },
	"DRANodeAllocatableResources": inDevices(func(d *resourcev1.Device) bool {
		used := len(d.NodeAllocatableResources) > 0
		d.NodeAllocatableResources = nil
		return used
	}),
	"DRADeviceCompatibilityGroups": inDevices(func(d *resourcev1.Device) (used bool) {
		for i := range d.ConsumesCounters {
			used = clearList(&d.ConsumesCounters[i].CompatibilityGroups) || used
		}
		return used
	}),
	"DRAListTypeAttributes": inDevices(func(d *resourcev1.Device) (used bool) {
		for name, a := range d.Attributes {
			lists := clearList(&a.BoolValues)
			lists = clearList(&a.IntValues) || lists
			lists = clearList(&a.StringValues) || lists
			lists = clearList(&a.VersionValues) || lists
			if lists {
				d.Attributes[name] = a
			}
			used = used || lists
		}
		return used
	}),
}

// DropDisabledSliceFields clears the fields of a slice that belong to features which are
// off, unless the stored one uses them already. old is nil on creation.
func DropDisabledSliceFields(spec, old *resourcev1.ResourceSliceSpec) {
	for _, drop := range disabledSliceFields {
		if old == nil || !drop(old.DeepCopy()) {
			drop(spec)
		}
	}
}

func inDevices(drop func(*resourcev1.Device) bool) func(*resourcev1.ResourceSliceSpec) bool {
	return func(s *resourcev1.ResourceSliceSpec) (used bool) {
		for i := range s.Devices {
			used = drop(&s.Devices[i]) || used
		}
		return used
	}
}

func clearList[T any](list *[]T) bool {
	used := *list != nil
	*list = nil
	return used
}
