package devices

import (
	"context"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"
)

// Count says how many devices of a class there are on nodes, and how many of them are in use.
type Count struct {
	onNode map[string]amount
	// others are those that are not of one node alone.
	others []other
}

type amount struct{ all, taken int64 }

func (a amount) plus(taken bool) amount {
	a.all++
	if taken {
		a.taken++
	}
	return a
}

type other struct {
	everywhere bool
	selector   *v1.NodeSelector
	taken      bool
}

// Count counts the devices of a class.
func (m *Manager) Count(ctx context.Context, class *resourceapi.DeviceClass) (*Count, error) {
	all, err := m.slices.ListWithDeviceTaintRules()
	if err != nil {
		return nil, err
	}
	state, err := m.claims.GatherAllocatedState()
	if err != nil {
		return nil, err
	}
	c := &Count{onNode: map[string]amount{}}
	for _, s := range all {
		for i := range s.Spec.Devices {
			d := &s.Spec.Devices[i]
			if !m.is(ctx, d, s.Spec.Driver, class) {
				continue
			}
			taken := structured.IsDeviceAllocated(structured.MakeDeviceID(s.Spec.Driver, s.Spec.Pool.Name, d.Name), state)
			node, everywhere, selector := s.Spec.NodeName, s.Spec.AllNodes, s.Spec.NodeSelector
			if ptr.Deref(s.Spec.PerDeviceNodeSelection, false) {
				node, everywhere, selector = d.NodeName, d.AllNodes, d.NodeSelector
			}
			if name := ptr.Deref(node, ""); name != "" {
				c.onNode[name] = c.onNode[name].plus(taken)
			} else {
				c.others = append(c.others, other{ptr.Deref(everywhere, false), selector, taken})
			}
		}
	}
	return c, nil
}

// is reports whether a device belongs to a class. One of which that cannot be told does not.
func (m *Manager) is(ctx context.Context, d *resourceapi.Device, driver string, class *resourceapi.DeviceClass) bool {
	for _, s := range class.Spec.Selectors {
		if s.CEL == nil {
			return false
		}
		compiled := m.cel.GetOrCompile(s.CEL.Expression)
		if compiled.Error != nil {
			return false
		}
		matches, _, err := compiled.DeviceMatches(ctx, cel.Device{
			Driver: driver, AllowMultipleAllocations: d.AllowMultipleAllocations, Attributes: d.Attributes, Capacity: d.Capacity,
		})
		if err != nil || !matches {
			return false
		}
	}
	return true
}

// On returns how many of the devices can be used on a node, and how many of those are in use.
func (c *Count) On(node *v1.Node) (all, taken int64) {
	sum := c.onNode[node.Name]
	for _, o := range c.others {
		if ok, err := structured.NodeMatches(Features, node, "", o.everywhere, o.selector); err == nil && ok {
			sum = sum.plus(o.taken)
		}
	}
	return sum.all, sum.taken
}
