package dra

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
	drapbv1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

// fakeDriver prepares a device for each of the requests r1 and r2.
type fakeDriver struct {
	drapb.UnimplementedDRAPluginServer

	mu    sync.Mutex
	calls []string
	fails string
}

func (d *fakeDriver) heard() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := strings.Join(d.calls, ", ")
	d.calls = nil
	return out
}

func (d *fakeDriver) NodePrepareResources(_ context.Context, r *drapb.NodePrepareResourcesRequest) (*drapb.NodePrepareResourcesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &drapb.NodePrepareResourcesResponse{Claims: map[string]*drapb.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		d.calls = append(d.calls, "prepare "+c.Name)
		one := &drapb.NodePrepareResourceResponse{Error: d.fails}
		for _, request := range []string{"r1", "r2"} {
			one.Devices = append(one.Devices, &drapb.Device{RequestNames: []string{request}, PoolName: "p", DeviceName: "d-" + request, CdiDeviceIds: []string{"example.com/d=" + request}})
		}
		resp.Claims[c.Uid] = one
	}
	return resp, nil
}

func (d *fakeDriver) NodeUnprepareResources(_ context.Context, r *drapb.NodeUnprepareResourcesRequest) (*drapb.NodeUnprepareResourcesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &drapb.NodeUnprepareResourcesResponse{Claims: map[string]*drapb.NodeUnprepareResourceResponse{}}
	for _, c := range r.Claims {
		d.calls = append(d.calls, "unprepare "+c.Name)
		resp.Claims[c.Uid] = &drapb.NodeUnprepareResourceResponse{}
	}
	return resp, nil
}

func podOf(uid types.UID, requests ...string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p-" + string(uid), UID: uid}}
	p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "mine", ResourceClaimName: ptr.To("c")}}
	c := v1.Container{Name: "main"}
	for _, r := range requests {
		c.Resources.Claims = append(c.Resources.Claims, v1.ResourceClaim{Name: "mine", Request: r})
	}
	p.Spec.Containers = []v1.Container{c}
	return p
}

func allocated(name string, pods ...types.UID) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID("uid-" + name)}}
	c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
		{Request: "r1", Driver: "d.example"}, {Request: "r2", Driver: "d.example"},
	}}}
	for _, uid := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "p-" + string(uid), UID: uid})
	}
	return c
}

// serve has a driver answer, in both versions of its interface, and returns its socket.
func serve(t *testing.T, d *fakeDriver) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "dra.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	drapb.RegisterDRAPluginServer(s, d)
	drapbv1beta1.RegisterDRAPluginServer(s, drapbv1beta1.V1ServerWrapper{DRAPluginServer: d})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return socket
}

// TestClaim has two pods share a claim, over a restart of the kubelet.
func TestClaim(t *testing.T) {
	for _, version := range []string{drapb.DRAPluginService, drapbv1beta1.DRAPluginService} {
		t.Run(version, func(t *testing.T) {
			d := &fakeDriver{}
			config := Config{Client: fake.NewClientset(allocated("c", "a", "b")), NodeName: "node", StateFile: filepath.Join(t.TempDir(), StateFile)}
			m, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			registry := metrictest.New(m)
			a, b := podOf("a", "r2"), podOf("b", "")
			if err := m.Prepare(t.Context(), a); err == nil || !strings.Contains(err.Error(), "driver d.example: DRA driver d.example is not registered") {
				t.Errorf("without a driver: %v", err)
			}
			socket := serve(t, d)
			if err := m.Register(t.Context(), "d.example", socket, []string{version}); err != nil {
				t.Fatal(err)
			}
			d.fails = "no power"
			if err := m.Prepare(t.Context(), a); err == nil || !strings.Contains(err.Error(), "no power") {
				t.Errorf("a driver that fails: %v", err)
			}
			d.fails = ""
			for _, pod := range []*v1.Pod{a, a, b} {
				if err := m.Prepare(t.Context(), pod); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.heard(); got != "prepare c, prepare c" {
				t.Errorf("the driver was asked to %s", got)
			}
			registry.Expect(t, map[string]float64{
				`dra_operations_duration_seconds{is_error="true",operation_name="PrepareResources"}`:  2,
				`dra_operations_duration_seconds{is_error="false",operation_name="PrepareResources"}`: 3,
				`dra_resource_claims_in_use{driver_name="<any>"}`:                                     1, `dra_resource_claims_in_use{driver_name="d.example"}`: 1,
				`dra_grpc_operations_duration_seconds{driver_name="d.example",grpc_status_code="OK",method_name="/k8s.io.kubelet.pkg.apis.dra.` + version + `/NodePrepareResources"}`: 2,
			})
			for pod, want := range map[*v1.Pod]string{a: "[example.com/d=r2]", b: "[example.com/d=r1 example.com/d=r2]"} {
				if got, err := m.Of(t.Context(), pod, &pod.Spec.Containers[0]); err != nil || fmt.Sprint(got.CDI) != want {
					t.Errorf("devices %v, want %s: %v", got.CDI, want, err)
				}
			}
			if err := m.Release(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}

			again, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := again.Of(t.Context(), b, &b.Spec.Containers[0]); err != nil || len(got.CDI) != 2 {
				t.Errorf("after a restart: %v %v", got, err)
			}
			if err := again.Release(t.Context(), "b"); err == nil {
				t.Error("given back without its driver")
			}
			if err := again.Register(t.Context(), "d.example", socket, []string{version}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := again.Release(t.Context(), "b"); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.heard(); got != "unprepare c" {
				t.Errorf("the driver was asked to %s", got)
			}
			if _, err := again.Of(t.Context(), b, &b.Spec.Containers[0]); err == nil {
				t.Error("there are devices still")
			}
		})
	}
}

func TestRefused(t *testing.T) {
	m, err := New(Config{NodeName: "node"})
	if err != nil {
		t.Fatal(err)
	}
	unallocated, template := allocated("c", "a"), podOf("a")
	unallocated.Status.Allocation = nil
	template.Spec.ResourceClaims[0] = v1.PodResourceClaim{Name: "mine", ResourceClaimTemplateName: ptr.To("t")}
	owned := podOf("a")
	owned.Spec.ResourceClaims, owned.Status.ResourceClaimStatuses = template.Spec.ResourceClaims, []v1.PodResourceClaimStatus{{Name: "mine", ResourceClaimName: ptr.To("c")}}
	for name, test := range map[string]struct {
		claim *resourcev1.ResourceClaim
		pod   *v1.Pod
		err   string
	}{
		"missing":         {allocated("other"), podOf("a"), "not found"},
		"not allocated":   {unallocated, podOf("a"), "not allocated"},
		"not reserved":    {allocated("c", "b"), podOf("a"), "not reserved"},
		"not made yet":    {allocated("c", "a"), template, "resource claim mine"},
		"somebody else's": {allocated("c", "a"), owned, "was not created for Pod"},
	} {
		m.Client = fake.NewClientset(test.claim)
		if err := m.Prepare(t.Context(), test.pod); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.Register(t.Context(), "d", "/nowhere", []string{"v7.DRAPlugin"}); err == nil {
		t.Error("a driver that speaks another language")
	}
}

// A claim that was made for the group of a pod, and is reserved for it, is the pod's where that is switched on.
func TestGroupClaims(t *testing.T) {
	pod, group, controller := podOf("a"), "g", true
	pod.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: &group}
	pod.Spec.ResourceClaims[0] = v1.PodResourceClaim{Name: "mine", ResourceClaimTemplateName: ptr.To("t")}
	pod.Status.ResourceClaimStatuses = []v1.PodResourceClaimStatus{{Name: "mine", ResourceClaimName: ptr.To("c")}}
	claim := allocated("c")
	claim.OwnerReferences = []metav1.OwnerReference{{APIVersion: "scheduling.k8s.io/v1beta1", Kind: "PodGroup", Name: group, UID: "g", Controller: &controller}}
	claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{APIGroup: "scheduling.k8s.io", Resource: "podgroups", Name: group, UID: "g"}}
	for on, want := range map[bool]string{true: "d.example", false: "was not created for Pod"} { // nobody has registered that driver
		m, err := New(Config{NodeName: "node", Client: fake.NewClientset(claim), GroupClaims: on})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Prepare(t.Context(), pod); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("switched on %t: %v, want %s", on, err, want)
		}
	}
}

func TestSkips(t *testing.T) {
	c := allocated("c")
	c.Status.Allocation.Devices.Results[0].SkipNodeOperations = []resourcev1.SkipNodeOperation{resourcev1.SkipNodeOperationNodePrepareResources}
	if d := newClaim(c).DriverState["d.example"]; d.skips(resourcev1.SkipNodeOperationNodePrepareResources) {
		t.Error("one of two devices needs the driver")
	}
	c.Status.Allocation.Devices.Results[1].SkipNodeOperations = []resourcev1.SkipNodeOperation{resourcev1.SkipNodeOperationAll}
	d := newClaim(c).DriverState["d.example"]
	if !d.skips(resourcev1.SkipNodeOperationNodePrepareResources) || d.skips(resourcev1.SkipNodeOperationNodeUnprepareResources) {
		t.Errorf("skips %v", d.SkipNodeOperations)
	}
}

// TestExtended has a container use a claim that stands for an extended resource.
func TestExtended(t *testing.T) {
	pod := podOf("a")
	pod.Spec.ResourceClaims = nil
	pod.Status.ExtendedResourceClaimStatus = &v1.PodExtendedResourceClaimStatus{
		ResourceClaimName: "x", RequestMappings: []v1.ContainerExtendedResourceRequest{{ContainerName: "main", RequestName: "r1"}, {ContainerName: "other", RequestName: "r2"}},
	}
	if got := uses(pod, &pod.Spec.Containers[0]); !slices.Equal(got, []use{{"x", "r1"}}) {
		t.Errorf("it uses %v", got)
	}
}

// TestWipe takes back what a driver offered that has gone for good.
func TestWipe(t *testing.T) {
	slice := func(name, driver string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceSliceSpec{Driver: driver, NodeName: ptr.To("node")}}
	}
	client := fake.NewClientset(slice("kept", "d.example"), slice("left", "gone.example"))
	m, err := New(Config{Client: client, NodeName: "node", Patience: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Register(t.Context(), "d.example", serve(t, &fakeDriver{}), []string{drapb.DRAPluginService}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go m.Run(ctx)
	var deleted []string
	componenttest.Eventually(t, "the slices of a driver that has gone are deleted", func() bool {
		deleted = nil
		for _, a := range client.Actions() {
			if a, ok := a.(clienttesting.DeleteCollectionAction); ok && a.GetVerb() == "delete-collection" {
				deleted = append(deleted, a.GetListRestrictions().Fields.String())
			}
		}
		return len(deleted) > 0
	})
	if got := strings.Join(deleted, "; "); got != "spec.driver=gone.example,spec.nodeName=node" && got != "spec.nodeName=node,spec.driver=gone.example" {
		t.Errorf("deleted %s", got)
	}
}
