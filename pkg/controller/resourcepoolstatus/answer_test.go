package resourcepoolstatus

import (
	"fmt"
	"strings"
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const driver = "gpu.example.com"

func slice(pool, node string, generation, of int64, devices ...resourcev1.Device) resourcev1.ResourceSlice {
	s := resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Driver: driver, Pool: resourcev1.ResourcePool{Name: pool, Generation: generation, ResourceSliceCount: of}, Devices: devices}}
	if node != "" {
		s.Spec.NodeName = &node
	}
	return s
}

func devices(names string, change ...func(*resourcev1.Device)) []resourcev1.Device {
	var all []resourcev1.Device
	for _, name := range strings.Fields(names) {
		d := resourcev1.Device{Name: name}
		for _, f := range change {
			f(&d)
		}
		all = append(all, d)
	}
	return all
}

func tainted(effect resourcev1.DeviceTaintEffect) func(*resourcev1.Device) {
	return func(d *resourcev1.Device) { d.Taints = []resourcev1.DeviceTaint{{Key: "k", Effect: effect}} }
}

// claim has devices of a pool, each perhaps with "*" if it is for administration, or "=" and the memory that it takes.
func claim(pool, names string) resourcev1.ResourceClaim {
	c := resourcev1.ResourceClaim{Status: resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{}}}
	for _, name := range strings.Fields(names) {
		name, admin := strings.CutSuffix(name, "*")
		name, memory, shared := strings.Cut(name, "=")
		r := resourcev1.DeviceRequestAllocationResult{Driver: driver, Pool: pool, Device: name, AdminAccess: &admin}
		if shared {
			r.ConsumedCapacity = map[resourcev1.QualifiedName]resource.Quantity{"memory": resource.MustParse(memory)}
		}
		c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results, r)
	}
	return c
}

func rule(device string, effect resourcev1.DeviceTaintEffect) resourcev1.DeviceTaintRule {
	return resourcev1.DeviceTaintRule{Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: ptr.To(driver), Pool: ptr.To("a"), Device: &device}, Taint: resourcev1.DeviceTaint{Key: "k", Effect: effect},
	}}
}

// short writes a pool as name[@node]#generation slices total/allocated/available/unavailable, or what is wrong with it.
func short(p resourcev1alpha3.PoolStatus) string {
	text := p.PoolName
	if p.NodeName != nil {
		text += "@" + *p.NodeName
	}
	text += fmt.Sprintf("#%d", p.Generation)
	if p.TotalDevices != nil {
		text += fmt.Sprintf(" %d %d/%d/%d/%d", *p.ResourceSliceCount, *p.TotalDevices, *p.AllocatedDevices, *p.AvailableDevices, *p.UnavailableDevices)
	}
	for _, t := range p.PartitionSummary {
		text += fmt.Sprintf(" %s=%s:%d/%d", t.Attribute, t.Type, *t.Total, *t.Allocatable)
	}
	if s := p.ShareableSummary; s != nil {
		text += fmt.Sprintf(" %d whole %d part", *s.FullyAvailableDevices, *s.PartiallyAvailableDevices)
		for _, c := range s.Capacity {
			text += fmt.Sprintf(" %s:%s-%s=%s", c.Name, c.Total, c.Consumed, c.Available)
		}
	}
	if p.ValidationError != nil {
		text += " " + *p.ValidationError
	}
	return text
}

func TestAnswer(t *testing.T) {
	foreign := slice("a", "", 1, 1, devices("x")...)
	foreign.Spec.Driver = "other.example.com"
	four := slice("a", "n", 1, 1, devices("0 1 2 3")...)
	for name, c := range map[string]struct {
		spec    resourcev1alpha3.ResourcePoolStatusRequestSpec
		view    view
		want    string // one pool a line
		count   int32  // of all pools, if there are more than those
		pending string
		message string
	}{
		"no pool":             {view: view{slices: []resourcev1.ResourceSlice{foreign}}, message: "Calculated status for 0 pools"},
		"one":                 {view: view{slices: []resourcev1.ResourceSlice{four, foreign}}, want: "a@n#1 1 4/0/4/0", message: "Calculated status for 1 pools"},
		"some in use":         {view: view{slices: []resourcev1.ResourceSlice{four}, claims: []resourcev1.ResourceClaim{claim("a", "0 1"), claim("a", "1 2*"), claim("b", "3"), {}}}, want: "a@n#1 1 4/2/2/0"},
		"an older generation": {view: view{slices: []resourcev1.ResourceSlice{slice("a", "n", 2, 2, devices("0")...), four, slice("a", "n", 2, 2, devices("1")...)}}, want: "a@n#2 2 2/0/2/0"},
		"of several nodes":    {view: view{slices: []resourcev1.ResourceSlice{slice("a", "n", 1, 2, devices("0")...), slice("a", "m", 1, 2, devices("1")...)}}, want: "a#1 2 2/0/2/0"},
		"of no node":          {view: view{slices: []resourcev1.ResourceSlice{slice("a", "", 1, 2, devices("0")...), slice("a", "m", 1, 2, devices("1")...)}}, want: "a#1 2 2/0/2/0"},
		"by name": {spec: resourcev1alpha3.ResourcePoolStatusRequestSpec{PoolName: ptr.To("b")},
			view: view{slices: []resourcev1.ResourceSlice{four, slice("b", "n", 1, 1, devices("0")...)}}, want: "b@n#1 1 1/0/1/0"},
		"cut": {spec: resourcev1alpha3.ResourcePoolStatusRequestSpec{Limit: ptr.To[int32](2)},
			view: view{slices: []resourcev1.ResourceSlice{slice("c", "", 1, 1), slice("b", "", 1, 1), slice("a", "", 1, 1)}}, want: "a#1 1 0/0/0/0\nb#1 1 0/0/0/0", count: 3, message: "Calculated status for 2 pools"},
		"incomplete": {view: view{slices: []resourcev1.ResourceSlice{slice("a", "n", 1, 3, devices("0")...), slice("b", "", 1, 1, devices("0")...)}},
			want: "a@n#1 PoolIncomplete: pool gpu.example.com/a is incomplete: observed 1/3 slices at generation 1\nb#1 1 1/0/1/0", pending: "a", message: "Calculated status for 2 pools (1 incomplete)"},
		"tainted": {view: view{slices: []resourcev1.ResourceSlice{slice("a", "", 1, 2, devices("0 1", tainted(resourcev1.DeviceTaintEffectNoSchedule))...), slice("a", "", 1, 2, devices("2", tainted(resourcev1.DeviceTaintEffectNoExecute))...)}},
			want: "a#1 2 3/0/0/3"},
		"tainted without effect": {view: view{slices: []resourcev1.ResourceSlice{slice("a", "", 1, 1, devices("0", tainted(resourcev1.DeviceTaintEffectNone))...)}}, want: "a#1 1 1/0/1/0"},
		"tainted by a rule": {view: view{slices: []resourcev1.ResourceSlice{four}, rules: []resourcev1.DeviceTaintRule{rule("0", resourcev1.DeviceTaintEffectNoSchedule), rule("1", resourcev1.DeviceTaintEffectNone), rule("7", resourcev1.DeviceTaintEffectNoExecute), {}}},
			want: "a@n#1 1 4/0/3/1"},
		"tainted and in use": {view: view{slices: []resourcev1.ResourceSlice{four}, claims: []resourcev1.ResourceClaim{claim("a", "0 1 2 3")}, rules: []resourcev1.DeviceTaintRule{rule("0", resourcev1.DeviceTaintEffectNoSchedule)}},
			want: "a@n#1 1 4/4/0/1"},
	} {
		c.spec.Driver = driver
		got, pending := c.view.answer(c.spec, now)
		var lines []string
		for _, p := range got.Pools {
			lines = append(lines, short(p))
		}
		if text := strings.Join(lines, "\n"); text != c.want || pending != c.pending {
			t.Errorf("%s: pending %q\n%s\nwant\n%s", name, pending, text, c.want)
		}
		if *got.PoolCount != max(c.count, int32(len(lines))) || c.message != "" && got.Conditions[0].Message != c.message {
			t.Errorf("%s: of %d pools, %+v", name, *got.PoolCount, got.Conditions)
		}
	}
}

func TestParts(t *testing.T) {
	counters := slice("a", "", 1, 2)
	counters.Spec.SharedCounters = []resourcev1.CounterSet{{Name: "card", Counters: map[string]resourcev1.Counter{"memory": {Value: resource.MustParse("80Gi")}}}}
	// part is a device of a type, which takes memory of the card.
	part := func(name, attribute, kind, memory string) resourcev1.Device {
		d := resourcev1.Device{Name: name, ConsumesCounters: []resourcev1.DeviceCounterConsumption{{CounterSet: "card", Counters: map[string]resourcev1.Counter{"memory": {Value: resource.MustParse(memory)}}}}}
		if kind != "" {
			d.Attributes = map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{resourcev1.QualifiedName(attribute): {StringValue: &kind}}
		}
		return d
	}
	full, half, other := part("f", "profile", "Full", "80Gi"), part("h0", "profile", "Half", "40Gi"), part("h1", driver+"/profile", "Half", "40Gi")
	named := func(attribute string, s resourcev1.ResourceSlice) resourcev1.ResourceSlice {
		s.Spec.PartitionTypeAttribute = ptr.To(resourcev1.FullyQualifiedName(attribute))
		return s
	}
	parts := slice("a", "", 1, 2, full, half, other)
	shared := func(d *resourcev1.Device) {
		d.AllowMultipleAllocations = ptr.To(true)
		d.Capacity = map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"memory": {Value: resource.MustParse("40Gi")}, "cores": {Value: resource.MustParse("4")}}
	}
	many := devices("0", shared)
	for i := range most {
		many[0].Capacity[resourcev1.QualifiedName(fmt.Sprint("c", i))] = resourcev1.DeviceCapacity{Value: resource.MustParse("1")}
	}
	for name, c := range map[string]struct {
		slices   []resourcev1.ResourceSlice
		claims   []resourcev1.ResourceClaim
		fallback *string
		want     string // after the counts
	}{
		"not by type":         {slices: []resourcev1.ResourceSlice{counters, parts}},
		"by the slice's type": {slices: []resourcev1.ResourceSlice{counters, named(driver+"/profile", parts)}, fallback: ptr.To(driver + "/other"), want: "gpu.example.com/profile=Full:1/1 gpu.example.com/profile=Half:2/2"},
		"by the request's":    {slices: []resourcev1.ResourceSlice{counters, parts}, fallback: ptr.To(driver + "/profile"), want: "gpu.example.com/profile=Full:1/1 gpu.example.com/profile=Half:2/2"},
		"the whole is taken":  {slices: []resourcev1.ResourceSlice{counters, named(driver+"/profile", parts)}, claims: []resourcev1.ResourceClaim{claim("a", "f"), claim("a", "f")}, want: "gpu.example.com/profile=Full:1/0 gpu.example.com/profile=Half:2/0"},
		"a half is taken":     {slices: []resourcev1.ResourceSlice{counters, named(driver+"/profile", parts)}, claims: []resourcev1.ResourceClaim{claim("a", "h1")}, want: "gpu.example.com/profile=Full:1/0 gpu.example.com/profile=Half:2/1"},
		"by two attributes": {slices: []resourcev1.ResourceSlice{counters, named(driver+"/profile", parts), named("example.org/class", slice("a", "", 1, 2, part("x", "example.org/class", "A", "40Gi")))},
			want: "example.org/class=A:1/1 gpu.example.com/profile=Full:1/1 gpu.example.com/profile=Half:2/2"},
		"of no counter that is known": {slices: []resourcev1.ResourceSlice{named(driver+"/profile", parts), slice("a", "", 1, 2)},
			want: "PartitionTypeMissing: pool gpu.example.com/a declares partitionTypeAttribute but publishes no sharedCounters"},
		"without a type": {slices: []resourcev1.ResourceSlice{counters, named(driver+"/profile", slice("a", "", 1, 2, full, part("x", "", "", "1")))},
			want: `PartitionTypeMissing: device "x" in pool gpu.example.com/a does not carry partition type attribute "gpu.example.com/profile"`},
		"of one type that differ": {slices: []resourcev1.ResourceSlice{counters, named(driver+"/profile", slice("a", "", 1, 2, half, part("x", "profile", "Half", "50Gi")))},
			want: `PartitionCostMismatch: devices of partition type "Half" in pool gpu.example.com/a consume different counters`},
		"that are shared": {slices: []resourcev1.ResourceSlice{slice("a", "", 1, 1, append(devices("0 1", shared), devices("2")...)...)}, claims: []resourcev1.ResourceClaim{claim("a", "0=10Gi"), claim("a", "0=5Gi")},
			want: "1 whole 1 part cores:8-0=8 memory:80Gi-15Gi=65Gi"},
		"that are overdrawn": {slices: []resourcev1.ResourceSlice{slice("a", "", 1, 1, devices("0", shared)...)}, claims: []resourcev1.ResourceClaim{claim("a", "0=50Gi")},
			want: "0 whole 1 part cores:4-0=4 memory:40Gi-50Gi=0"},
		"with too much to tell": {slices: []resourcev1.ResourceSlice{slice("a", "", 1, 1, many...)},
			want: "ShareableSummaryOverCap: pool gpu.example.com/a has 34 shareable capacity keys, exceeding the maximum of 32"},
	} {
		got, _ := view{slices: c.slices, claims: c.claims}.answer(resourcev1alpha3.ResourcePoolStatusRequestSpec{Driver: driver, DefaultPartitionTypeAttribute: c.fallback}, now)
		text := ""
		if words := strings.SplitN(short(got.Pools[0]), " ", 4); len(words) == 4 {
			text = words[3]
		}
		if text != c.want {
			t.Errorf("%s: %s\nwant %s", name, short(got.Pools[0]), c.want)
		}
	}
}

func TestExpires(t *testing.T) {
	created := metav1.NewTime(now.Add(-time.Minute))
	r := &resourcev1alpha3.ResourcePoolStatusRequest{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: created}}
	if got := expires(r); !got.Equal(created.Add(24 * time.Hour)) {
		t.Errorf("without an answer: %s", got)
	}
	r.Status, _ = view{}.answer(r.Spec, now)
	if got := expires(r); !got.Equal(now.Add(time.Hour)) {
		t.Errorf("with one: %s", got)
	}
}
