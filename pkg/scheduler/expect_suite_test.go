package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// makeDevices has a driver offer devices on a node, of the class gpu.
func makeDevices(t *testing.T, client kubernetes.Interface, node string, devices ...resourceapi.Device) {
	t.Helper()
	slice := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: resourceapi.ResourceSliceSpec{
		Driver: "gpu.example.com", NodeName: &node, Pool: resourceapi.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1}, Devices: devices,
	}}
	if _, err := client.ResourceV1().ResourceSlices().Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func makeClaim(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu"}}},
	}}}
	if _, err := client.ResourceV1().ResourceClaims("default").Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// history is all that a pod's status and spec say of nodes once something has been done, as
// a watch shows it, up to the first time that until holds: "nominated>node", one after the other.
func history(t *testing.T, client kubernetes.Interface, pod string, do func(), until func(*v1.Pod) bool) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w, err := client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + pod})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	do()
	var seen []string
	for e := range w.ResultChan() {
		p, ok := e.Object.(*v1.Pod)
		if !ok {
			t.Fatalf("watching pod %s: %v", pod, e.Object)
		}
		if state := p.Status.NominatedNodeName + ">" + p.Spec.NodeName; len(seen) == 0 || seen[len(seen)-1] != state {
			seen = append(seen, state)
		}
		if until(p) {
			return seen
		}
	}
	t.Fatalf("watching pod %s ended after %v", pod, seen)
	return nil
}

// While a pod waits for its device its status names the node, which another scheduler then
// takes up; the API server takes the name away with the binding. If the device fails, the
// scheduler does. A pod that waits for nothing is bound at once, and a name that somebody
// else writes is heeded.
func TestExpectedNodeOnACluster(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--disable-admission-plugins=TaintNodesByCondition"))
	client, ctx, kubeconfig := c.Client(t), t.Context(), writeKubeconfig(t, c)
	pods := client.CoreV1().Pods("default")
	if _, err := client.ResourceV1().DeviceClasses().Create(ctx, &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"a", "b"} {
		makeReady(t, client, node)
		makeDevices(t, client, node, resourceapi.Device{Name: "g0", BindingConditions: []string{"attached"}, BindingFailureConditions: []string{"broken"}})
	}
	create := func(name, claim string, change ...func(*v1.Pod)) {
		t.Helper()
		p := newPod(name, "", "100m", nil)
		if claim != "" {
			p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &claim}}
		}
		for _, f := range change {
			f(p)
		}
		if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	named := func(name string) (node string) {
		t.Helper()
		componenttest.EventuallyTold(t, "the status of "+name+" to name a node", func() (bool, string) {
			p, err := pods.Get(ctx, name, metav1.GetOptions{})
			if err != nil || p.Spec.NodeName != "" {
				return false, fmt.Sprint(p, err)
			}
			node = p.Status.NominatedNodeName
			return node != "", fmt.Sprint(p.Status)
		})
		return node
	}
	says := func(claim, condition string) {
		t.Helper()
		if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
			current, err := client.ResourceV1().ResourceClaims("default").Get(ctx, claim, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if current.Status.Allocation == nil {
				return fmt.Errorf("claim %s has no device", claim)
			}
			r := current.Status.Allocation.Devices.Results[0]
			current.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: r.Driver, Pool: r.Pool, Device: r.Device, Conditions: []metav1.Condition{
				{Type: condition, Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Now()},
			}}}
			_, err = client.ResourceV1().ResourceClaims("default").UpdateStatus(ctx, current, metav1.UpdateOptions{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	allocated := func(claim string) {
		t.Helper()
		componenttest.EventuallyTold(t, "claim "+claim+" to be allocated", func() (bool, string) {
			got, err := client.ResourceV1().ResourceClaims("default").Get(ctx, claim, metav1.GetOptions{})
			return err == nil && got.Status.Allocation != nil, fmt.Sprint(got, err)
		})
	}
	bound := func(p *v1.Pod) bool { return p.Spec.NodeName != "" }

	stop := startScheduler(t, kubeconfig)
	seen := history(t, client, "plain", func() { create("plain", "") }, bound)
	if slices.ContainsFunc(seen, func(s string) bool { return !strings.HasPrefix(s, ">") }) {
		t.Errorf("of a pod that waits for nothing was said %v", seen)
	}

	makeClaim(t, client, "c")
	create("waits", "c")
	node := named("waits")
	allocated("c")
	stop() // in the middle of it
	startScheduler(t, kubeconfig)
	if seen = history(t, client, "waits", func() { says("c", "attached") }, bound); seen[len(seen)-1] != ">"+node {
		t.Errorf("of a pod that waited for its device on %s was said %v", node, seen)
	}

	makeClaim(t, client, "d")
	create("fails", "d")
	named("fails")
	allocated("d")
	history(t, client, "fails", func() { says("d", "broken") }, func(p *v1.Pod) bool {
		return len(p.Status.Conditions) > 0 && p.Status.NominatedNodeName == ""
	})

	create("hinted", "", func(p *v1.Pod) { p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "example.com/wait"}} })
	hint := map[string]string{"a": "b", "b": "a"}[node]
	patch := func(body string, of ...string) {
		t.Helper()
		if _, err := pods.Patch(ctx, "hinted", types.MergePatchType, []byte(body), metav1.PatchOptions{}, of...); err != nil {
			t.Fatal(err)
		}
	}
	patch(fmt.Sprintf(`{"status":{"nominatedNodeName":%q}}`, hint), "status")
	if seen = history(t, client, "hinted", func() { patch(`{"spec":{"schedulingGates":null}}`) }, bound); seen[len(seen)-1] != ">"+hint {
		t.Errorf("of a pod that somebody wants on %s was said %v", hint, seen)
	}
}

// A claim that a group names is reserved for the group once, for pods that are scheduled
// together and for those that come later. One that it names a template of is made for it.
func TestClaimsOfGroupsOnACluster(t *testing.T) {
	const gates = "--feature-gates=GenericWorkload=true,DRAWorkloadResourceClaims=true"
	c := testcluster.Start(t, testcluster.WithAPIServerFlags(gates, "--runtime-config=scheduling.k8s.io/v1beta1=true", "--disable-admission-plugins=TaintNodesByCondition"),
		testcluster.WithControllerManager(gates), testcluster.WithScheduler(gates))
	g := &gangCluster{c.Client(t), c, t}
	if _, err := g.ResourceV1().DeviceClasses().Create(t.Context(), &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"a", "b"} {
		makeReady(t, g, node)
		makeDevices(t, g, node, resourceapi.Device{Name: "g0"})
	}
	for _, claim := range []string{"shared", "own"} {
		makeClaim(t, g, claim)
	}
	g.gang("workers", 2, func(group *schedulingv1beta1.PodGroup) {
		group.Spec.ResourceClaims = []schedulingv1beta1.PodGroupResourceClaim{{Name: "shared", ResourceClaimName: ptr.To("shared")}}
	})
	asks := func(claims ...string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			for _, name := range claims {
				p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, v1.PodResourceClaim{Name: name, ResourceClaimName: &name})
			}
		}
	}
	users := func(claim string) string {
		t.Helper()
		got, err := g.ResourceV1().ResourceClaims("default").Get(t.Context(), claim, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range got.Status.ReservedFor {
			out = append(out, strings.Join([]string{r.APIGroup, r.Resource, r.Name}, "/"))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	g.pod("p", "workers", "100m", asks("shared"))
	g.pod("q", "workers", "100m", asks("shared"))
	first := g.placed("p", "q")
	if len(first) != 1 {
		t.Errorf("the pods that share a device are on %v", first)
	}
	if got := users("shared"); got != "scheduling.k8s.io/podgroups/workers" {
		t.Errorf("the claim of the group is reserved for %q", got)
	}
	g.pod("r", "workers", "100m", asks("shared"))
	if late := g.placed("r"); !slices.Equal(late, first) {
		t.Errorf("a pod that comes later is on %v, the others on %v", late, first)
	}
	template := &resourceapi.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "t"}, Spec: resourceapi.ResourceClaimTemplateSpec{Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu"}}},
	}}}}
	if _, err := g.ResourceV1().ResourceClaimTemplates("default").Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	g.gang("made", 2, func(group *schedulingv1beta1.PodGroup) {
		group.Spec.ResourceClaims = []schedulingv1beta1.PodGroupResourceClaim{{Name: "gpu", ResourceClaimTemplateName: ptr.To("t")}}
	})
	for _, name := range []string{"x", "y"} {
		g.pod(name, "made", "100m", func(p *v1.Pod) {
			p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: ptr.To("t")}}
		})
	}
	if second := g.placed("x", "y"); len(second) != 1 || second[0] == first[0] {
		t.Errorf("the pods that share a device that was made for their group are on %v, those of another on %v", second, first)
	}
	made := *g.get("x").Status.ResourceClaimStatuses[0].ResourceClaimName
	if got := users(made); got != "scheduling.k8s.io/podgroups/made" || made != *g.get("y").Status.ResourceClaimStatuses[0].ResourceClaimName {
		t.Errorf("the claim that was made for a group is reserved for %q", got)
	}
	makeReady(t, g, "c")
	makeDevices(t, g, "c", resourceapi.Device{Name: "g0"})
	g.pod("s", "workers", "100m", asks("own"))
	g.placed("s")
	if got := users("shared") + ", " + users("own"); got != "scheduling.k8s.io/podgroups/workers, /pods/s" {
		t.Errorf("the claims are reserved for %q", got)
	}
}
