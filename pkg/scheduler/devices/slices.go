package devices

import (
	"cmp"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/labels"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
)

// sliceLister lists ResourceSlices with the taints that DeviceTaintRules add.
type sliceLister struct {
	slices resourcelisters.ResourceSliceLister
	rules  resourcelisters.DeviceTaintRuleLister
}

// ListWithDeviceTaintRules returns all slices, in the order of their names, so that the
// same choice is made whatever the informer's order.
func (l sliceLister) ListWithDeviceTaintRules() ([]*resourceapi.ResourceSlice, error) {
	all, err := l.slices.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *resourceapi.ResourceSlice) int { return cmp.Compare(a.Name, b.Name) })
	rules, err := l.rules.List(labels.Everything())
	if err != nil || len(rules) == 0 {
		return all, err
	}
	slices.SortFunc(rules, func(a, b *resourceapi.DeviceTaintRule) int { return cmp.Compare(a.Name, b.Name) })
	for i, s := range all {
		all[i] = tainted(s, rules)
	}
	return all, nil
}

// tainted returns a slice whose devices have the taints of rules as well as their own.
// One that no rule concerns is returned as it is.
func tainted(s *resourceapi.ResourceSlice, rules []*resourceapi.DeviceTaintRule) *resourceapi.ResourceSlice {
	out := s
	for _, r := range rules {
		for i := range s.Spec.Devices {
			if !selects(r.Spec.DeviceSelector, s, s.Spec.Devices[i].Name) {
				continue
			}
			if out == s {
				out = s.DeepCopy()
			}
			out.Spec.Devices[i].Taints = append(out.Spec.Devices[i].Taints, r.Spec.Taint)
		}
	}
	return out
}

func selects(sel *resourceapi.DeviceTaintSelector, s *resourceapi.ResourceSlice, device string) bool {
	is := func(want *string, got string) bool { return want == nil || *want == got }
	return sel != nil && is(sel.Driver, s.Spec.Driver) && is(sel.Pool, s.Spec.Pool.Name) && is(sel.Device, device)
}
