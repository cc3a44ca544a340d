package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
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
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), ResourceVersion: "1"},
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

// asking is a container's request for so many of an extended resource.
func asking(resourceName, n string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		list := p.Spec.Containers[0].Resources.Requests
		list[v1.ResourceName(resourceName)] = resource.MustParse(n)
		p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceName(resourceName): resource.MustParse(n)}
	}
}

const dongle = "example.com/dongle"

func dongleClass() *resourceapi.DeviceClass {
	return &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourceapi.DeviceClassSpec{ExtendedResourceName: ptr.To(dongle)}}
}

// What a pod asks for by the name of an extended resource it gets from a device plugin,
// or else from devices of the class that stands for it.
func TestExtendedResources(t *testing.T) {
	a, b := makeNode("a", "8", "16Gi"), makeNode("b", "4", "8Gi")
	plugged := makeNode("b", "4", "8Gi", func(n *v1.Node) { n.Status.Allocatable[dongle] = resource.MustParse("1") })
	unplugged := makeNode("b", "4", "8Gi", func(n *v1.Node) { n.Status.Allocatable[dongle] = resource.MustParse("0") })
	nodes := []*v1.Node{a, b}
	class := dongleClass()
	pod := makePod("p", "1", "1Gi", asking(dongle, "1"))
	special := deviceClaim("s", given("a", "g0"), func(c *resourceapi.ResourceClaim) {
		c.Annotations = map[string]string{resourceapi.ExtendedResourceClaimAnnotation: "true"}
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "p", Controller: ptr.To(true)}}
	})
	for _, tc := range []placementCase{
		{"no class", pod, nodes, nil, []runtime.Object{deviceSlice("b", "g0")}, "0/2 nodes are available: 2 Insufficient example.com/dongle."},
		{"where there is a device", pod, nodes, nil, []runtime.Object{class, deviceSlice("b", "g0")}, "b"},
		{"by the name of the class", makePod("p", "1", "1Gi", asking(resourceapi.ResourceDeviceClassPrefix+"gpu", "1")), nodes, nil, []runtime.Object{class, deviceSlice("b", "g0")}, "b"},
		{"no device", pod, nodes, nil, []runtime.Object{class}, "0/2 nodes are available: 2 cannot allocate all claims."},
		{"too few devices", makePod("p", "1", "1Gi", asking(dongle, "2")), nodes, nil, []runtime.Object{class, deviceSlice("b", "g0")}, "0/2 nodes are available: 2 cannot allocate all claims."},
		{"none of it", makePod("p", "1", "1Gi", asking(dongle, "0")), nodes, nil, []runtime.Object{class}, "a"},
		{"from a device plugin", pod, []*v1.Node{a, plugged}, nil, []runtime.Object{class}, "b"},
		{"the device plugin has no more, and the devices are not asked for", pod, []*v1.Node{plugged}, []*v1.Pod{makePod("q", "", "", asking(dongle, "1"), on("b"))},
			[]runtime.Object{class, deviceSlice("b", "g0")}, "0/1 nodes are available: 1 Insufficient example.com/dongle."},
		{"the device plugin has gone", pod, []*v1.Node{a, unplugged}, nil, []runtime.Object{class, deviceSlice("b", "g0")}, "b"},
		{"beside a claim", makePod("p", "1", "1Gi", asking(dongle, "1"), wants("c")), nodes, nil, []runtime.Object{class, deviceSlice("a", "g0"), deviceSlice("b", "g0", "g1"), deviceClaim("c")}, "b"},
		{"an earlier attempt has left its claim", pod, nodes, nil, []runtime.Object{class, deviceSlice("b", "g0"), special}, "0/2 nodes are available: 2 cannot schedule extended resource claim."},
	} {
		tc.check(t)
	}
}

// The claim that an earlier attempt has left for extended resources is deleted.
func TestLeftOverClaimIsDeleted(t *testing.T) {
	special := deviceClaim("s", given("a", "g0"), func(c *resourceapi.ResourceClaim) {
		c.Annotations, c.Finalizers = map[string]string{resourceapi.ExtendedResourceClaimAnnotation: "true"}, []string{resourceapi.Finalizer}
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "p", Controller: ptr.To(true)}}
	})
	pod := makePod("p", "1", "1Gi", asking(dongle, "1"))
	w := newWorld(t, []*v1.Node{makeNode("a", "8", "16Gi")}, []*v1.Pod{pod}, dongleClass(), deviceSlice("a", "g0"), special)
	if _, msg := w.preempt(t, pod); !strings.HasPrefix(msg, "deletion of ResourceClaim completed") {
		t.Errorf("what was done is %q", msg)
	}
	if _, err := w.client.ResourceV1().ResourceClaims("default").Get(t.Context(), "s", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the claim is still there: %v", err)
	}
}

// A claim is made for a pod that gets extended resources from devices, named in its
// status, and deleted if the pod is not bound after all.
func TestExtendedResourcesAreBound(t *testing.T) {
	pod, second := makePod("p", "1", "1Gi", asking(dongle, "1")), makePod("q", "1", "1Gi", asking(dongle, "1"))
	w := newWorld(t, []*v1.Node{makeNode("a", "8", "16Gi")}, []*v1.Pod{pod, second}, dongleClass(), deviceSlice("a", "g0"))
	nameClaims(w.client)
	ctx, state := t.Context(), framework.NewCycleState(false)
	if p, err := (&cycle{fw: w.fw, snapshot: w.snapshot}).run(ctx, state, pod, 0); err != nil || p.node != "a" {
		t.Fatalf("the pod goes to %q: %v", p.node, err)
	}
	if s := w.fw.RunReservePluginsReserve(ctx, state, pod, "a"); !s.IsSuccess() {
		t.Fatal(s)
	}
	none := "0/1 nodes are available: 1 cannot allocate all claims."
	if got := w.where(t, second); got != none {
		t.Errorf("the second pod: %s, want %s", got, none)
	}
	if s := w.fw.RunPreBind(ctx, state, pod, "a"); !s.IsSuccess() {
		t.Fatal(s)
	}
	if got := w.where(t, second); got != none {
		t.Errorf("the second pod, when the claim has been written: %s, want %s", got, none)
	}
	list, err := w.client.ResourceV1().ResourceClaims("default").List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("there are %d claims, %v", len(list.Items), err)
	}
	c := list.Items[0]
	if c.GenerateName != "p-extended-resources-" || !metav1.IsControlledBy(&c, pod) || len(c.Finalizers) != 1 || c.Spec.Devices.Requests[0].Exactly.DeviceClassName != "gpu" ||
		c.Status.Allocation == nil || c.Status.Allocation.Devices.Results[0].Device != "g0" || c.Status.Allocation.AllocationTimestamp == nil || len(c.Status.ReservedFor) != 1 || c.Status.ReservedFor[0].UID != "p" {
		t.Errorf("the claim is %v", c)
	}
	bound, err := w.client.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := &v1.PodExtendedResourceClaimStatus{ResourceClaimName: c.Name, RequestMappings: []v1.ContainerExtendedResourceRequest{{ContainerName: "c", ResourceName: dongle, RequestName: "container-0-request-1"}}}
	if got := bound.Status.ExtendedResourceClaimStatus; !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("the pod's status says %v, want %v", got, want)
	}

	w.fw.RunReservePluginsUnreserve(ctx, state, pod, "a")
	if list, err = w.client.ResourceV1().ResourceClaims("default").List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("there are still %d claims, %v", len(list.Items), err)
	}
	componenttest.EventuallyTold(t, "the device to be free", func() (bool, string) { got := w.where(t, second); return got == "a", got })
}

// The strategies that weigh resources count devices as such.
func TestExtendedResourcesAreWeighed(t *testing.T) {
	c := config.Default()
	for _, a := range c.Profiles[0].PluginConfig {
		if fit, ok := a.Args.Object.(*configv1.NodeResourcesFitArgs); ok {
			fit.ScoringStrategy = &configv1.ScoringStrategy{Type: configv1.MostAllocated, Resources: []configv1.ResourceSpec{{Name: dongle, Weight: 1}}}
		}
	}
	c.Profiles[0].Plugins.Score.Disabled = []configv1.Plugin{{Name: "*"}}
	c.Profiles[0].Plugins.Score.Enabled = []configv1.Plugin{{Name: "NodeResourcesFit"}}
	pod := makePod("p", "1", "1Gi", asking(dongle, "1"))
	client := fake.NewClientset(dongleClass(), deviceSlice("a", "g0", "g1", "g2"), deviceSlice("b", "g0", "g1"), deviceClaim("c", given("a", "g0", "q")))
	f := informers.NewSharedInformerFactory(client, 0)
	d, err := NewDecider(t.Context(), c, framework.Gates{}, client, f, &events.FakeRecorder{})
	if err != nil {
		t.Fatal(err)
	}
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())
	d.Cluster.SetNode(makeNode("a", "8", "16Gi"))
	d.Cluster.SetNode(makeNode("b", "8", "16Gi"))
	got, err := d.Decide(t.Context(), pod)
	if err != nil || got.Node != "a" {
		t.Fatalf("the pod goes to %q: %v, %v", got.Node, got.Fit, err)
	}
	scores := map[string]int64{}
	for _, s := range got.Scores {
		scores[s.Name] = s.TotalScore
	}
	if scores["a"] != 66 || scores["b"] != 50 { // two of three devices would be in use, and one of two
		t.Errorf("the scores are %v", scores)
	}
}

// A claim whose devices cannot become ready is freed, and allocated anew.
func TestClaimsThatFailedAreFreed(t *testing.T) {
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}
	conditional := func(age time.Duration) func(*resourceapi.ResourceClaim) {
		return func(c *resourceapi.ResourceClaim) {
			at := metav1.NewTime(time.Now().Add(-age))
			c.Status.Allocation.AllocationTimestamp = &at
			c.Status.Allocation.Devices.Results[0].BindingConditions = []string{"attached"}
			c.Status.Allocation.Devices.Results[0].BindingFailureConditions = []string{"broken"}
		}
	}
	says := func(condition string) func(*resourceapi.ResourceClaim) {
		return func(c *resourceapi.ResourceClaim) {
			r := c.Status.Allocation.Devices.Results[0]
			c.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: r.Driver, Pool: r.Pool, Device: r.Device, Conditions: []metav1.Condition{{Type: condition, Status: metav1.ConditionTrue}}}}
		}
	}
	pod := makePod("p", "1", "1Gi", wants("c"))
	for _, tc := range []struct {
		name  string
		claim *resourceapi.ResourceClaim
		freed bool // or the pod goes to a
	}{
		{"not ready yet", deviceClaim("c", given("a", "g0"), conditional(time.Minute)), false},
		{"ready", deviceClaim("c", given("a", "g0"), conditional(time.Hour), says("attached")), false},
		{"broken", deviceClaim("c", given("a", "g0", "p"), conditional(time.Minute), says("broken")), true},
		{"too late", deviceClaim("c", given("a", "g0"), conditional(10*time.Minute)), true},
	} {
		w := newWorld(t, []*v1.Node{makeNode("a", "8", "16Gi")}, []*v1.Pod{pod}, class, deviceSlice("a", "g0"), tc.claim)
		got := w.where(t, pod)
		if !tc.freed {
			if got != "a" {
				t.Errorf("%s: %s", tc.name, got)
			}
			continue
		}
		if want := "0/1 nodes are available: 1 resourceclaim not available on the node."; got != want {
			t.Errorf("%s: %s, want %s", tc.name, got, want)
		}
		if _, msg := w.preempt(t, pod); !strings.HasPrefix(msg, "deallocation of ResourceClaim completed") {
			t.Errorf("%s: what was done is %q", tc.name, msg)
		}
		c, err := w.client.ResourceV1().ResourceClaims("default").Get(t.Context(), "c", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if c.Status.Allocation != nil || c.Status.Devices != nil || c.Status.ReservedFor != nil {
			t.Errorf("%s: the claim says %v", tc.name, c.Status)
		}
	}
	// Of two claims the one that failed is freed, not the other.
	both := makePod("p", "1", "1Gi", wants("d", "c"))
	w := newWorld(t, []*v1.Node{makeNode("a", "8", "16Gi")}, []*v1.Pod{both}, class, deviceSlice("a", "g0", "g1"),
		deviceClaim("d", given("a", "g1")), deviceClaim("c", given("a", "g0"), conditional(time.Hour)))
	w.preempt(t, both)
	for name, freed := range map[string]bool{"c": true, "d": false} {
		if c, err := w.client.ResourceV1().ResourceClaims("default").Get(t.Context(), name, metav1.GetOptions{}); err != nil || freed != (c.Status.Allocation == nil) {
			t.Errorf("of two claims, %s has %v, %v", name, c.Status.Allocation, err)
		}
	}
}

// The pod is bound when its devices say that they are ready; not if they say that they are not.
func TestWaitsForDevices(t *testing.T) {
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}
	slice := deviceSlice("a", "g0")
	slice.Spec.Devices[0].BindingConditions, slice.Spec.Devices[0].BindingFailureConditions = []string{"attached"}, []string{"broken"}
	for _, tc := range []struct{ says, want string }{
		{"attached", ""},
		{"broken", "claim c binding failed: device gpu.example/a/g0 has condition broken"},
	} {
		pod := makePod("p", "1", "1Gi", wants("c"))
		w := newWorld(t, []*v1.Node{makeNode("a", "8", "16Gi")}, []*v1.Pod{pod}, class, slice, deviceClaim("c"))
		ctx, state := t.Context(), framework.NewCycleState(false)
		if p, err := (&cycle{fw: w.fw, snapshot: w.snapshot}).run(ctx, state, pod, 0); err != nil || p.node != "a" {
			t.Fatalf("the pod goes to %q: %v", p.node, err)
		}
		if s := w.fw.RunReservePluginsReserve(ctx, state, pod, "a"); !s.IsSuccess() {
			t.Fatal(s)
		}
		result := make(chan *fwk.Status, 1)
		go func() { result <- w.fw.RunPreBind(ctx, state, pod, "a") }()
		claims := w.client.ResourceV1().ResourceClaims("default")
		var c *resourceapi.ResourceClaim
		componenttest.EventuallyTold(t, "the allocation to be written", func() (bool, string) {
			var err error
			c, err = claims.Get(ctx, "c", metav1.GetOptions{})
			return err == nil && c.Status.Allocation != nil, fmt.Sprint(c, err)
		})
		select {
		case s := <-result:
			t.Fatalf("%s: PreBind did not wait: %v", tc.says, s)
		default:
		}
		c.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: "gpu.example", Pool: "a", Device: "g0", Conditions: []metav1.Condition{{Type: tc.says, Status: metav1.ConditionTrue}}}}
		if _, err := claims.UpdateStatus(ctx, c, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if s := <-result; s.Message() != tc.want && !strings.Contains(s.Message(), tc.want) || s.IsSuccess() != (tc.want == "") {
			t.Errorf("%s: %v, want %q", tc.says, s, tc.want)
		}
	}
}

// nameClaims has the client give claims that are created their names, as an API server does.
func nameClaims(client *fake.Clientset) {
	n := 0
	client.PrependReactor("create", "resourceclaims", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if c, ok := a.(clienttesting.CreateAction).GetObject().(*resourceapi.ResourceClaim); ok && c.Name == "" {
			c.Name = fmt.Sprint(c.GenerateName, n)
			c.UID = types.UID(c.Name)
			n++
		}
		return false, nil, nil
	})
}

// What the allocator knows of devices is asked of it: who only looks on takes nothing,
// tainted devices must be tolerated, and parts of devices and of their capacity are counted.
func TestKindsOfDevices(t *testing.T) {
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}
	nodes := []*v1.Node{makeNode("a", "8", "16Gi")}
	pod := makePod("p", "1", "1Gi", wants("c"))
	const none = "0/1 nodes are available: 1 cannot allocate all claims."
	exactly := func(change func(*resourceapi.ExactDeviceRequest)) func(*resourceapi.ResourceClaim) {
		return func(c *resourceapi.ResourceClaim) { change(c.Spec.Devices.Requests[0].Exactly) }
	}
	tolerant := exactly(func(r *resourceapi.ExactDeviceRequest) {
		r.Tolerations = []resourceapi.DeviceToleration{{Key: "sick", Operator: resourceapi.DeviceTolerationOpExists}}
	})
	taken := deviceClaim("d", given("a", "g0", "q"))
	rule := &resourceapi.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: resourceapi.DeviceTaintRuleSpec{
		DeviceSelector: &resourceapi.DeviceTaintSelector{Driver: ptr.To("gpu.example")}, Taint: resourceapi.DeviceTaint{Key: "sick", Effect: resourceapi.DeviceTaintEffectNoSchedule},
	}}
	// Two halves of one device, and the whole of it, of which there is one at a time.
	parts := deviceSlice("a", "whole", "half-0", "half-1")
	parts.Spec.Pool.ResourceSliceCount = 2
	for i, n := range []string{"2", "1", "1"} {
		parts.Spec.Devices[i].ConsumesCounters = []resourceapi.DeviceCounterConsumption{{CounterSet: "gpu-0", Counters: map[string]resourceapi.Counter{"slots": {Value: resource.MustParse(n)}}}}
	}
	counters := deviceSlice("a")
	counters.Name, counters.Spec.Pool.ResourceSliceCount = "counters", 2
	counters.Spec.SharedCounters = []resourceapi.CounterSet{{Name: "gpu-0", Counters: map[string]resourceapi.Counter{"slots": {Value: resource.MustParse("2")}}}}
	// A device that many share, as far as its memory goes.
	sharedDevice := deviceSlice("a", "g0")
	sharedDevice.Spec.Devices[0].AllowMultipleAllocations = ptr.To(true)
	sharedDevice.Spec.Devices[0].Capacity = map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: resource.MustParse("8Gi")}}
	needs := func(memory string) func(*resourceapi.ResourceClaim) {
		return exactly(func(r *resourceapi.ExactDeviceRequest) {
			r.Capacity = &resourceapi.CapacityRequirements{Requests: map[resourceapi.QualifiedName]resource.Quantity{"memory": resource.MustParse(memory)}}
		})
	}
	share := deviceClaim("d", given("a", "g0", "q"), func(c *resourceapi.ResourceClaim) {
		r := &c.Status.Allocation.Devices.Results[0]
		r.ShareID, r.ConsumedCapacity = ptr.To(types.UID("s")), map[resourceapi.QualifiedName]resource.Quantity{"memory": resource.MustParse("6Gi")}
	})
	for _, tc := range []placementCase{
		{"an admin looks on at a device that is taken", pod, nodes, nil, []runtime.Object{class, deviceSlice("a", "g0"), taken, deviceClaim("c", exactly(func(r *resourceapi.ExactDeviceRequest) { r.AdminAccess = ptr.To(true) }))}, "a"},
		{"a device that an admin looks on at is free", pod, nodes, nil, []runtime.Object{class, deviceSlice("a", "g0"), deviceClaim("c"), deviceClaim("d", given("a", "g0", "q"), func(c *resourceapi.ResourceClaim) {
			c.Status.Allocation.Devices.Results[0].AdminAccess = ptr.To(true)
		})}, "a"},
		{"tainted by a rule", pod, nodes, nil, []runtime.Object{class, deviceSlice("a", "g0"), rule, deviceClaim("c")}, none},
		{"tainted by a rule, and tolerated", pod, nodes, nil, []runtime.Object{class, deviceSlice("a", "g0"), rule, deviceClaim("c", tolerant)}, "a"},
		{"the other half", pod, nodes, nil, []runtime.Object{class, parts, counters, deviceClaim("c"), deviceClaim("d", given("a", "half-0", "q"))}, "a"},
		{"no half of what is taken whole", pod, nodes, nil, []runtime.Object{class, parts, counters, deviceClaim("c"), deviceClaim("d", given("a", "whole", "q"))}, none},
		{"what is left of the capacity", pod, nodes, nil, []runtime.Object{class, sharedDevice, deviceClaim("c", needs("2Gi")), share}, "a"},
		{"more than is left of the capacity", pod, nodes, nil, []runtime.Object{class, sharedDevice, deviceClaim("c", needs("3Gi")), share}, none},
	} {
		tc.check(t)
	}
}

// What one profile takes of devices no other gives away.
func TestProfilesShareDevices(t *testing.T) {
	c := config.Default()
	c.Profiles = append(c.Profiles, *c.Profiles[0].DeepCopy())
	c.Profiles[1].SchedulerName = ptr.To("other")
	m, err := newMind(t.Context(), c, plugins.Registry(), framework.Deps{Client: fake.NewClientset(), Informers: informers.NewSharedInformerFactory(nil, 0)},
		func(string) events.EventRecorderLogger { return &events.FakeRecorder{} })
	if err != nil {
		t.Fatal(err)
	}
	one, other := m.profiles[config.DefaultSchedulerName].SharedDRAManager(), m.profiles["other"].SharedDRAManager()
	if err := one.ResourceClaims().SignalClaimPendingAllocation("c", deviceClaim("c", given("a", "g0"))); err != nil {
		t.Fatal(err)
	}
	if taken, err := other.ResourceClaims().ListAllAllocatedDevices(); err != nil || len(taken) != 1 {
		t.Errorf("the other profile knows that %v are taken, %v", taken, err)
	}
}
