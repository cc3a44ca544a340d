package resourcepoolstatus

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// most is how many types of partitions, and how many capacities, there is room for in the status of a pool.
const most = 32

// quantities are kept by name.
type quantities map[string]resource.Quantity

func (q quantities) add(name string, n resource.Quantity) {
	sum := q[name].DeepCopy()
	sum.Add(n)
	q[name] = sum
}

// counters are what partitions are cut from, by counter set and counter.
type counters map[[2]string]resource.Quantity

// fits reports whether there is enough left for a device.
func (c counters) fits(d *resourcev1.Device) bool {
	for _, uses := range d.ConsumesCounters {
		for name, n := range uses.Counters {
			left, ok := c[[2]string{uses.CounterSet, name}]
			if !ok || left.Cmp(n.Value) < 0 {
				return false
			}
		}
	}
	return true
}

// take cuts off what a device needs.
func (c counters) take(d *resourcev1.Device) {
	for _, uses := range d.ConsumesCounters {
		for name, n := range uses.Counters {
			if left, ok := c[[2]string{uses.CounterSet, name}]; ok {
				left = left.DeepCopy()
				left.Sub(n.Value)
				c[[2]string{uses.CounterSet, name}] = left
			}
		}
	}
}

// cost says what a device needs, so that it can be compared.
func cost(d *resourcev1.Device) string {
	var parts []string
	for _, uses := range d.ConsumesCounters {
		for name, n := range uses.Counters {
			parts = append(parts, uses.CounterSet+"/"+name+"="+n.Value.String())
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// A partition is a device, and the attribute that says of which type it is.
type partition struct {
	*resourcev1.Device
	attribute string
}

// devices returns those of a pool, each with the attribute that its slice names, or, if no slice with devices names any, with the fallback.
func (p *pool) devices(fallback *string) (list []partition, grouped bool) {
	for _, s := range p.slices {
		grouped = grouped || s.Spec.PartitionTypeAttribute != nil && len(s.Spec.Devices) > 0
	}
	for _, s := range p.slices {
		attribute := string(ptr.Deref(s.Spec.PartitionTypeAttribute, ""))
		if !grouped {
			attribute = ptr.Deref(fallback, "")
		}
		for i := range s.Spec.Devices {
			list = append(list, partition{&s.Spec.Devices[i], attribute})
		}
	}
	return list, grouped || fallback != nil && len(list) > 0
}

// kind is the type of a partition. The domain of an attribute may be left out where it is the driver's.
func (d partition) kind(driver string) (string, bool) {
	a, ok := d.Attributes[resourcev1.QualifiedName(d.attribute)]
	if name, own := strings.CutPrefix(d.attribute, driver+"/"); own && !ok {
		a = d.Attributes[resourcev1.QualifiedName(name)]
	}
	return ptr.Deref(a.StringValue, ""), a.StringValue != nil
}

// partitions says of each type how many there are, and how many more could be had if no other type were asked for.
func (p *pool) partitions(u use, fallback *string) ([]resourcev1alpha3.PartitionTypeStatus, error) {
	devices, grouped := p.devices(fallback)
	if !grouped {
		return nil, nil
	}
	left := counters{}
	for _, s := range p.slices {
		for _, set := range s.Spec.SharedCounters {
			for name, n := range set.Counters {
				left[[2]string{set.Name, name}] = n.Value
			}
		}
	}
	if !slices.ContainsFunc(p.slices, func(s *resourcev1.ResourceSlice) bool { return len(s.Spec.SharedCounters) > 0 }) {
		return nil, fmt.Errorf("PartitionTypeMissing: pool %s/%s declares partitionTypeAttribute but publishes no sharedCounters", p.driver, p.name)
	}
	type group struct{ attribute, kind string }
	groups := map[group][]partition{}
	for _, d := range devices {
		if u.devices[d.Name] {
			left.take(d.Device)
		}
		if len(d.ConsumesCounters) == 0 || d.attribute == "" {
			continue
		}
		kind, ok := d.kind(p.driver)
		if !ok {
			return nil, fmt.Errorf("PartitionTypeMissing: device %q in pool %s/%s does not carry partition type attribute %q", d.Name, p.driver, p.name, d.attribute)
		}
		g := group{d.attribute, kind}
		if len(groups[g]) > 0 && cost(groups[g][0].Device) != cost(d.Device) {
			return nil, fmt.Errorf("PartitionCostMismatch: devices of partition type %q in pool %s/%s consume different counters", kind, p.driver, p.name)
		}
		groups[g] = append(groups[g], d)
	}
	if len(groups) > most {
		return nil, fmt.Errorf("PartitionSummaryOverCap: pool %s/%s has %d partition types, exceeding the maximum of %d", p.driver, p.name, len(groups), most)
	}
	var summary []resourcev1alpha3.PartitionTypeStatus
	for g, members := range groups {
		alone, more := maps.Clone(left), int32(0)
		for _, d := range members {
			if !u.devices[d.Name] && alone.fits(d.Device) {
				alone.take(d.Device)
				more++
			}
		}
		summary = append(summary, resourcev1alpha3.PartitionTypeStatus{Attribute: g.attribute, Type: g.kind, Total: ptr.To(int32(len(members))), Allocatable: &more})
	}
	slices.SortFunc(summary, func(a, b resourcev1alpha3.PartitionTypeStatus) int {
		return cmp.Or(cmp.Compare(a.Attribute, b.Attribute), cmp.Compare(a.Type, b.Type))
	})
	return summary, nil
}

// shares says what is left of the devices that several claims may have at a time. It is nil if there are none.
func (p *pool) shares(u use) (*resourcev1alpha3.ShareableSummaryStatus, error) {
	var whole, part int32
	total := quantities{}
	for _, s := range p.slices {
		for _, d := range s.Spec.Devices {
			if !ptr.Deref(d.AllowMultipleAllocations, false) {
				continue
			}
			if u.devices[d.Name] {
				part++
			} else {
				whole++
			}
			for name, c := range d.Capacity {
				total.add(string(name), c.Value)
			}
		}
	}
	if whole+part == 0 {
		return nil, nil
	}
	if len(total) > most {
		return nil, fmt.Errorf("ShareableSummaryOverCap: pool %s/%s has %d shareable capacity keys, exceeding the maximum of %d", p.driver, p.name, len(total), most)
	}
	summary := &resourcev1alpha3.ShareableSummaryStatus{FullyAvailableDevices: &whole, PartiallyAvailableDevices: &part}
	for _, name := range slices.Sorted(maps.Keys(total)) {
		all, used := total[name], u.capacity[name]
		left := all.DeepCopy()
		if left.Sub(used); left.Sign() < 0 {
			left = *resource.NewQuantity(0, all.Format)
		}
		summary.Capacity = append(summary.Capacity, resourcev1alpha3.ShareableCapacityStatus{Name: name, Total: &all, Consumed: &used, Available: &left})
	}
	return summary, nil
}
