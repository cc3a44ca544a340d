package devices

import (
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/utils/ptr"
)

// knowing returns a Manager that knows objects, and the informers that it reads.
func knowing(t *testing.T, objects ...runtime.Object) (*Manager, informers.SharedInformerFactory) {
	t.Helper()
	f := informers.NewSharedInformerFactory(nil, 0)
	m := NewManager(f)
	r := f.Resource().V1()
	for _, o := range objects {
		var err error
		switch o.(type) {
		case *resourceapi.DeviceClass:
			err = r.DeviceClasses().Informer().GetStore().Add(o)
		case *resourceapi.ResourceSlice:
			err = r.ResourceSlices().Informer().GetStore().Add(o)
		case *resourceapi.DeviceTaintRule:
			err = r.DeviceTaintRules().Informer().GetStore().Add(o)
		case *resourceapi.ResourceClaim:
			err = r.ResourceClaims().Informer().GetStore().Add(o)
		default:
			t.Fatalf("a %T", o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return m, f
}

func TestClassesOfExtendedResources(t *testing.T) {
	class := func(name, resource string, born int64) *resourceapi.DeviceClass {
		c := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(born, 0))}}
		if resource != "" {
			c.Spec.ExtendedResourceName = &resource
		}
		return c
	}
	m, _ := knowing(t, class("plain", "", 1), class("old", "a.io/x", 1), class("new", "a.io/x", 2), class("b", "a.io/y", 1), class("a", "a.io/y", 1))
	for name, want := range map[v1.ResourceName]string{
		"cpu": "", "a.io/z": "", "a.io/x": "new", "a.io/y": "a",
		"deviceclass.resource.kubernetes.io/plain": "plain", "deviceclass.resource.kubernetes.io/old": "old", "deviceclass.resource.kubernetes.io/gone": "",
	} {
		got := ""
		if c := m.DeviceClassResolver().GetDeviceClass(name); c != nil {
			got = c.Name
		}
		if got != want {
			t.Errorf("%s stands for %q, want %q", name, got, want)
		}
	}
}

func slice(name string, devices ...resourceapi.Device) *resourceapi.ResourceSlice {
	return &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.ResourceSliceSpec{
		Driver: "d", NodeName: &name, Pool: resourceapi.ResourcePool{Name: name, Generation: 1, ResourceSliceCount: 1}, Devices: devices,
	}}
}

// Rules taint the devices that they select; what no rule selects stays as it is.
func TestDeviceTaintRules(t *testing.T) {
	own := resourceapi.Device{Name: "0", Taints: []resourceapi.DeviceTaint{{Key: "own", Effect: resourceapi.DeviceTaintEffectNoSchedule}}}
	a, b := slice("a", own, resourceapi.Device{Name: "1"}), slice("b", resourceapi.Device{Name: "0"})
	rule := func(name string, s *resourceapi.DeviceTaintSelector) *resourceapi.DeviceTaintRule {
		return &resourceapi.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.DeviceTaintRuleSpec{
			DeviceSelector: s, Taint: resourceapi.DeviceTaint{Key: name, Effect: resourceapi.DeviceTaintEffectNoSchedule},
		}}
	}
	type sel = resourceapi.DeviceTaintSelector
	for _, tc := range []struct {
		name  string
		rules []runtime.Object
		want  string
	}{
		{"none", nil, "[a/0:own a/1: b/0:]"},
		{"without a selector", []runtime.Object{rule("r", nil)}, "[a/0:own a/1: b/0:]"},
		{"all", []runtime.Object{rule("r", &sel{})}, "[a/0:own,r a/1:r b/0:r]"},
		{"one device", []runtime.Object{rule("r", &sel{Driver: ptr.To("d"), Pool: ptr.To("a"), Device: ptr.To("1")})}, "[a/0:own a/1:r b/0:]"},
		{"another driver", []runtime.Object{rule("r", &sel{Driver: ptr.To("e")})}, "[a/0:own a/1: b/0:]"},
		{"two, by name", []runtime.Object{rule("s", &sel{Pool: ptr.To("a")}), rule("r", &sel{Device: ptr.To("0")})}, "[a/0:own,r,s a/1:s b/0:r]"},
	} {
		m, _ := knowing(t, append(tc.rules, a, b)...)
		all, err := m.ResourceSlices().ListWithDeviceTaintRules()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range all {
			for _, d := range s.Spec.Devices {
				line := s.Name + "/" + d.Name + ":"
				for i, taint := range d.Taints {
					if i > 0 {
						line += ","
					}
					line += taint.Key
				}
				got = append(got, line)
			}
		}
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%s: %v, want %s", tc.name, got, tc.want)
		}
	}
	if len(a.Spec.Devices[0].Taints) != 1 {
		t.Error("the informer's slice was changed")
	}
}

// claim is one with a device, if that is named.
func claim(name, device, version string) *resourceapi.ResourceClaim {
	c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), ResourceVersion: version}}
	if device != "" {
		c.Status.Allocation = &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{Driver: "d", Pool: "a", Device: device}}}}
	}
	return c
}

func special(c *resourceapi.ResourceClaim, pod types.UID) *resourceapi.ResourceClaim {
	c.Annotations = map[string]string{resourceapi.ExtendedResourceClaimAnnotation: "true"}
	c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: string(pod), UID: pod, Controller: ptr.To(true)}}
	return c
}

// Devices are taken from the moment that they are chosen until their claim is seen to
// have none, whatever of it the informer has shown.
func TestTakenDevices(t *testing.T) {
	m, f := knowing(t, claim("a", "1", "5"), claim("b", "", "6"))
	store := f.Resource().V1().ResourceClaims().Informer().GetStore()
	c := m.Claims()
	taken := func(step string, want ...string) {
		t.Helper()
		s, err := c.GatherAllocatedState()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for id := range s.AllocatedDevices {
			got = append(got, id.Device.String())
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: devices %v are taken, want %v", step, got, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	taken("as seen", "1")
	do(c.SignalClaimPendingAllocation("b", claim("b", "2", "6")))
	do(c.SignalClaimPendingAllocation("b", claim("b", "3", "6"))) // shares what is pending
	taken("pending", "1", "2")
	if c.MaybeRemoveClaimPendingAllocation("b", false) || c.GetPendingAllocation("b") == nil {
		t.Error("what two share was given back by one")
	}
	c.Wrote(claim("b", "2", "7"))
	if c.GetPendingAllocation("b") != nil {
		t.Error("what has been written is still pending")
	}
	taken("written, not seen", "1", "2")
	do(store.Update(claim("b", "2", "7")))
	taken("seen", "1", "2")
	do(store.Update(claim("b", "", "8")))
	taken("freed", "1")
	c.Wrote(claim("b", "2", "9"))
	do(store.Delete(claim("b", "", "")))
	taken("deleted", "1")

	do(c.SignalClaimPendingAllocation(SpecialUID("p"), special(claim("", "4", ""), "p")))
	taken("for extended resources", "1", "4")
	c.Wrote(special(claim("s", "4", "20"), "p"))
	if c.GetPendingAllocation(SpecialUID("p")) != nil {
		t.Error("what has been written is still pending")
	}
	taken("a new claim that is not seen yet", "1", "4")
	if got, err := c.Get("default", "s"); err != nil || got.ResourceVersion != "20" {
		t.Errorf("the new claim is %v, %v", got, err)
	}
	do(store.Add(claim("c", "", "21")))
	taken("something later is seen: it has been deleted", "1")
	c.Wrote(special(claim("s", "4", "22"), "p"))
	c.AssumedClaimRestore("default", "s")
	taken("known to be deleted", "1")
	if err := c.SignalClaimPendingAllocation("x", claim("x", "", "")); err == nil {
		t.Error("a claim without an allocation is pending")
	}
}

func TestCount(t *testing.T) {
	zone := &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchExpressions: []v1.NodeSelectorRequirement{{Key: "zone", Operator: v1.NodeSelectorOpIn, Values: []string{"z"}}}}}}
	shared := slice("shared", resourceapi.Device{Name: "s0", AllNodes: ptr.To(true)}, resourceapi.Device{Name: "s1", NodeSelector: zone}, resourceapi.Device{Name: "s2", NodeName: ptr.To("b")})
	shared.Spec.NodeName, shared.Spec.PerDeviceNodeSelection = nil, ptr.To(true)
	other := slice("other", resourceapi.Device{Name: "o"})
	other.Spec.Driver, other.Spec.NodeName = "e", ptr.To("a")
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: `device.driver == "d"`}}}}}
	m, _ := knowing(t, class, slice("a", resourceapi.Device{Name: "0"}, resourceapi.Device{Name: "1"}), shared, other, claim("c", "1", "1"))
	n, err := m.Count(t.Context(), class)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		node       *v1.Node
		all, taken int64
	}{
		{&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, 3, 1},
		{&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}, 2, 0},
		{&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "c", Labels: map[string]string{"zone": "z"}}}, 2, 0},
	} {
		if all, taken := n.On(tc.node); all != tc.all || taken != tc.taken {
			t.Errorf("node %s: %d of %d devices are taken, want %d of %d", tc.node.Name, taken, all, tc.taken, tc.all)
		}
	}
}
