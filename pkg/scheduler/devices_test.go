package scheduler

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

func wants(claims ...string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		for _, c := range claims {
			p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, v1.PodResourceClaim{Name: c, ResourceClaimName: &c})
		}
	}
}

func deviceClaim(name string, change ...func(*resourceapi.ResourceClaim)) *resourceapi.ResourceClaim {
	c := &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{{
			Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1},
		}}}},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// deviceSlice has those that a driver offers on a node.
func deviceSlice(node string, names ...string) *resourceapi.ResourceSlice {
	s := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: node},
		Spec:       resourceapi.ResourceSliceSpec{Driver: "gpu.example", NodeName: &node, Pool: resourceapi.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1}},
	}
	for _, n := range names {
		s.Spec.Devices = append(s.Spec.Devices, resourceapi.Device{Name: n})
	}
	return s
}

func given(node, device string, to ...types.UID) func(*resourceapi.ResourceClaim) {
	return func(c *resourceapi.ResourceClaim) {
		c.Status.Allocation = &resourceapi.AllocationResult{
			Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{Request: "r", Driver: "gpu.example", Pool: node, Device: device}}},
			NodeSelector: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchFields: []v1.NodeSelectorRequirement{
				{Key: "metadata.name", Operator: v1.NodeSelectorOpIn, Values: []string{node}},
			}}}},
		}
		for _, uid := range to {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: string(uid), UID: uid})
		}
	}
}

func TestDynamicResources(t *testing.T) {
	a, b := makeNode("a", "8", "16Gi"), makeNode("b", "4", "8Gi")
	nodes := []*v1.Node{a, b}
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}
	two := func(c *resourceapi.ResourceClaim) { c.Spec.Devices.Requests[0].Exactly.Count = 2 }
	pod := makePod("p", "1", "1Gi", wants("c"))
	none := "0/2 nodes are available: 2 cannot allocate all claims."
	for _, tc := range []placementCase{
		{"no claim yet", pod, nodes, nil, nil, `0/2 nodes are available: could not find ResourceClaim "default/c".`},
		{"no class", pod, nodes, nil, []runtime.Object{deviceClaim("c")}, "0/2 nodes are available: request r: device class gpu does not exist."},
		{"where there is a device", pod, nodes, nil, []runtime.Object{class, deviceSlice("b", "g0"), deviceClaim("c")}, "b"},
		{"no device", pod, nodes, nil, []runtime.Object{class, deviceClaim("c")}, none},
		{"too few devices", pod, nodes, nil, []runtime.Object{class, deviceSlice("a", "g0"), deviceSlice("b", "g0", "g1"), deviceClaim("c", two)}, "b"},
		{"a device that is taken", pod, nodes, nil, []runtime.Object{class, deviceSlice("b", "g0"), deviceClaim("c"), deviceClaim("d", given("b", "g0", "q"))}, none},
		{"where the claim was allocated", pod, nodes, nil, []runtime.Object{class, deviceSlice("b", "g0"), deviceClaim("c", given("b", "g0"))}, "b"},
		{"another claim has no device where the first was allocated", makePod("p", "1", "1Gi", wants("c", "d")), nodes, nil,
			[]runtime.Object{class, deviceSlice("b", "g0"), deviceClaim("c", given("b", "g0")), deviceClaim("d")}, none},
		{"shared with another pod", pod, nodes, nil, []runtime.Object{class, deviceSlice("b", "g0"), deviceClaim("c", given("b", "g0", "q"))}, "b"},
	} {
		tc.check(t)
	}
}

// A claim that would rather have one kind of device than another goes where there is one.
func TestPrioritizedLists(t *testing.T) {
	class := func(name, driver string) *resourceapi.DeviceClass {
		return &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{
			{CEL: &resourceapi.CELDeviceSelector{Expression: `device.driver == "` + driver + `"`}},
		}}}
	}
	fast := deviceSlice("b", "f0")
	fast.Name, fast.Spec.Driver = "fast", "fast.example"
	either := func(c *resourceapi.ResourceClaim) {
		c.Spec.Devices.Requests[0] = resourceapi.DeviceRequest{Name: "r", FirstAvailable: []resourceapi.DeviceSubRequest{
			{Name: "fast", DeviceClassName: "fast", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1},
			{Name: "slow", DeviceClassName: "gpu", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1},
		}}
	}
	objects := []runtime.Object{class("gpu", "gpu.example"), class("fast", "fast.example"), deviceSlice("a", "g0"), fast, deviceClaim("c", either)}
	(&placementCase{"the emptier node has the worse device", makePod("p", "1", "1Gi", wants("c")),
		[]*v1.Node{makeNode("a", "8", "16Gi"), makeNode("b", "4", "8Gi")}, nil, objects, "b"}).check(t)
}

// Devices are taken from the moment that the node is chosen, and written before the pod is bound.
func TestDevicesAreBound(t *testing.T) {
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}
	pod, second := makePod("p", "1", "1Gi", wants("c")), makePod("q", "1", "1Gi", wants("d"))
	w := newWorld(t, []*v1.Node{makeNode("a", "8", "16Gi")}, []*v1.Pod{pod, second}, class, deviceSlice("a", "g0"), deviceClaim("c"), deviceClaim("d"))
	ctx, state := t.Context(), framework.NewCycleState(false)
	if p, err := (&cycle{fw: w.fw, snapshot: w.snapshot}).run(ctx, state, pod, 0); err != nil || p.node != "a" {
		t.Fatalf("the pod goes to %q: %v", p.node, err)
	}
	if s := w.fw.RunReservePluginsReserve(ctx, state, pod, "a"); !s.IsSuccess() {
		t.Fatal(s)
	}
	if got, want := w.where(t, second), "0/1 nodes are available: 1 cannot allocate all claims."; got != want {
		t.Errorf("the second pod: %s, want %s", got, want)
	}
	if s := w.fw.RunPreBind(ctx, state, pod, "a"); !s.IsSuccess() {
		t.Fatal(s)
	}
	c, err := w.client.ResourceV1().ResourceClaims("default").Get(ctx, "c", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Finalizers) != 1 || c.Status.Allocation == nil || c.Status.Allocation.Devices.Results[0].Device != "g0" || len(c.Status.ReservedFor) != 1 || c.Status.ReservedFor[0].UID != "p" {
		t.Errorf("the claim is %v, %v", c.Finalizers, c.Status)
	}
}

// A claim that nobody uses, allocated where the pod cannot go, is freed.
func TestIdleClaimsAreFreed(t *testing.T) {
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}
	pod := makePod("p", "1", "1Gi", wants("c"), func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{v1.LabelHostname: "b"} })
	w := newWorld(t, []*v1.Node{makeNode("a", "8", "16Gi"), makeNode("b", "8", "16Gi")}, []*v1.Pod{pod}, class, deviceSlice("a", "g0"), deviceSlice("b", "g0"), deviceClaim("c", given("a", "g0")))
	if _, msg := w.preempt(t, pod); msg == "" {
		t.Error("nothing was done for the pod")
	}
	c, err := w.client.ResourceV1().ResourceClaims("default").Get(t.Context(), "c", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Status.Allocation != nil {
		t.Errorf("the claim is still allocated: %v", ptr.Deref(c.Status.Allocation, resourceapi.AllocationResult{}))
	}
}
