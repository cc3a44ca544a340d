package scheduler_test

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// makeReady creates a node with two CPUs that pods can run on.
func makeReady(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	makeReadyFor(t, client, name, 10)
}

// makeReadyFor is makeReady for a node with room for so many pods.
func makeReadyFor(t *testing.T, client kubernetes.Interface, name string, pods int64) {
	t.Helper()
	node, err := client.CoreV1().Nodes().Create(t.Context(), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error { // controllers update it as well
		if node, err = client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}
		node.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("4Gi"), v1.ResourcePods: *resource.NewQuantity(pods, resource.DecimalSI)}
		node.Status.Capacity = node.Status.Allocatable
		_, err = client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func newPod(name, class, cpu string, labels map[string]string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels},
		Spec: v1.PodSpec{
			PriorityClassName:             class,
			TerminationGracePeriodSeconds: ptr.To[int64](30),
			Containers: []v1.Container{{Name: "c", Image: "registry.example.com/c", Resources: v1.ResourceRequirements{
				Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)},
			}}},
		},
	}
}

// A pod of high priority takes the place of one of low priority, which is told why; a
// pod that must not preempt stays pending.
func TestPreemptionOnACluster(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithControllerManager(), testcluster.WithScheduler())
	client, ctx := c.Client(t), t.Context()
	for name, p := range map[string]int32{"high": 1000, "low": 1} {
		if _, err := client.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: p}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	polite := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "polite"}, Value: 500, PreemptionPolicy: ptr.To(v1.PreemptNever)}
	if _, err := client.SchedulingV1().PriorityClasses().Create(ctx, polite, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	makeReady(t, client, "n")
	pods := client.CoreV1().Pods("default")
	create := func(p *v1.Pod) {
		t.Helper()
		componenttest.EventuallyTold(t, "the service account", func() (bool, string) {
			_, err := pods.Create(ctx, p, metav1.CreateOptions{})
			return err == nil, fmt.Sprint(err)
		})
	}
	get := func(name string) *v1.Pod {
		p, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return &v1.Pod{}
		}
		return p
	}

	create(newPod("victim", "low", "1500m", nil))
	componenttest.EventuallyTold(t, "the first pod to be placed", func() (bool, string) { return get("victim").Spec.NodeName == "n", fmt.Sprint(get("victim").Status) })
	create(newPod("polite", "polite", "1500m", nil))
	componenttest.EventuallyTold(t, "a pod that must not preempt to be told so", func() (bool, string) {
		for _, cond := range get("polite").Status.Conditions {
			if cond.Type == v1.PodScheduled {
				want := "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
				return cond.Message == want, cond.Message
			}
		}
		return false, ""
	})
	if get("victim").DeletionTimestamp != nil {
		t.Fatal("a pod that must not preempt did")
	}

	create(newPod("high", "high", "1500m", nil))
	componenttest.EventuallyTold(t, "the victim to go", func() (bool, string) { p := get("victim"); return p.DeletionTimestamp != nil, fmt.Sprint(p.Status) })
	told := false
	for _, cond := range get("victim").Status.Conditions {
		told = told || cond.Type == v1.DisruptionTarget && cond.Status == v1.ConditionTrue && cond.Reason == v1.PodReasonPreemptionByScheduler
	}
	if !told {
		t.Errorf("the victim was not told why it goes: %v", get("victim").Status.Conditions)
	}
	componenttest.EventuallyTold(t, "the node to be promised", func() (bool, string) {
		return get("high").Status.NominatedNodeName == "n", fmt.Sprint(get("high").Status)
	})
	if err := pods.Delete(ctx, "victim", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil { // as its kubelet does
		t.Fatal(err)
	}
	componenttest.EventuallyTold(t, "the pod to take its place", func() (bool, string) { return get("high").Spec.NodeName == "n", fmt.Sprint(get("high").Status) })
	componenttest.EventuallyTold(t, "the event", func() (bool, string) {
		list, err := client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=Preempted"})
		return err == nil && len(list.Items) == 1 && list.Items[0].Message == fmt.Sprintf("Preempted by pod %s on node n", get("high").UID), fmt.Sprint(list, err)
	})
}

// A pod goes where there is a device for its claim, which says so before the pod is bound.
func TestDevicesOnACluster(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithControllerManager(), testcluster.WithScheduler())
	client, ctx := c.Client(t), t.Context()
	makeReady(t, client, "a")
	makeReady(t, client, "b")
	api := client.ResourceV1()
	if _, err := api.DeviceClasses().Create(ctx, &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	slice := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: resourceapi.ResourceSliceSpec{
		Driver: "gpu.example.com", NodeName: ptr.To("b"), Pool: resourceapi.ResourcePool{Name: "b", Generation: 1, ResourceSliceCount: 1},
		Devices: []resourceapi.Device{{Name: "g0"}},
	}}
	if _, err := api.ResourceSlices().Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu"}}},
	}}}
	if _, err := api.ResourceClaims("default").Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := newPod("p", "", "100m", nil)
	pod.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr.To("c")}}
	componenttest.EventuallyTold(t, "the service account", func() (bool, string) {
		_, err := client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		return err == nil, fmt.Sprint(err)
	})
	componenttest.EventuallyTold(t, "the pod to be placed", func() (bool, string) {
		p, err := client.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{})
		return err == nil && p.Spec.NodeName == "b", fmt.Sprint(p, err)
	})
	got, err := api.ResourceClaims("default").Get(ctx, "c", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Status.Allocation == nil || got.Status.Allocation.Devices.Results[0].Device != "g0" || len(got.Status.ReservedFor) != 1 || got.Status.ReservedFor[0].Name != "p" {
		t.Errorf("the claim says %v", got.Status)
	}
}

// A pod that asks for devices by the name of an extended resource gets a claim for them. It
// is bound when they are ready; if they fail, the claim is made anew. What a pod leaves,
// the next one gets.
func TestExtendedResourcesOnACluster(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithControllerManager(), testcluster.WithScheduler())
	client, ctx := c.Client(t), t.Context()
	makeReady(t, client, "a")
	makeReady(t, client, "b")
	const dongle = "example.com/dongle"
	api, pods := client.ResourceV1(), client.CoreV1().Pods("default")
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourceapi.DeviceClassSpec{ExtendedResourceName: ptr.To(dongle)}}
	if _, err := api.DeviceClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []resourceapi.Device{{Name: "far", BindingConditions: []string{"attached"}, BindingFailureConditions: []string{"broken"}}, {Name: "near"}} {
		slice := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: d.Name}, Spec: resourceapi.ResourceSliceSpec{
			Driver: "gpu.example.com", NodeName: ptr.To("b"), Pool: resourceapi.ResourcePool{Name: d.Name, Generation: 1, ResourceSliceCount: 1}, Devices: []resourceapi.Device{d},
		}}
		if _, err := api.ResourceSlices().Create(ctx, slice, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create := func(name string) {
		t.Helper()
		pod := newPod(name, "", "100m", nil)
		one := v1.ResourceList{dongle: resource.MustParse("1")}
		pod.Spec.Containers[0].Resources.Requests[dongle], pod.Spec.Containers[0].Resources.Limits = one[dongle], one
		componenttest.EventuallyTold(t, "the service account", func() (bool, string) {
			_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
			return err == nil, fmt.Sprint(err)
		})
	}
	// claimOf waits for the claim that is made for a pod and allocated, other than one.
	claimOf := func(pod string, but types.UID) (found *resourceapi.ResourceClaim) {
		t.Helper()
		componenttest.EventuallyTold(t, "a claim for "+pod, func() (bool, string) {
			list, err := api.ResourceClaims("default").List(ctx, metav1.ListOptions{})
			if err != nil {
				return false, err.Error()
			}
			for i := range list.Items {
				if owner := metav1.GetControllerOf(&list.Items[i]); owner != nil && owner.Name == pod && list.Items[i].UID != but && list.Items[i].Status.Allocation != nil {
					found = &list.Items[i]
					return true, ""
				}
			}
			return false, fmt.Sprint(list.Items)
		})
		return found
	}
	placed := func(name string) *v1.Pod {
		t.Helper()
		var pod *v1.Pod
		componenttest.EventuallyTold(t, name+" to be placed", func() (bool, string) {
			var err error
			pod, err = pods.Get(ctx, name, metav1.GetOptions{})
			return err == nil && pod.Spec.NodeName == "b", fmt.Sprint(pod.Status, err)
		})
		return pod
	}
	says := func(claim, condition string) {
		t.Helper()
		if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
			current, err := api.ResourceClaims("default").Get(ctx, claim, metav1.GetOptions{})
			if err != nil {
				return err
			}
			current.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: "gpu.example.com", Pool: "far", Device: "far", Conditions: []metav1.Condition{
				{Type: condition, Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Now()},
			}}}
			_, err = api.ResourceClaims("default").UpdateStatus(ctx, current, metav1.UpdateOptions{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}

	create("p")
	pod := placed("p")
	claim := claimOf("p", "")
	status := pod.Status.ExtendedResourceClaimStatus
	if status == nil || status.ResourceClaimName != claim.Name || len(status.RequestMappings) != 1 || status.RequestMappings[0].RequestName != claim.Spec.Devices.Requests[0].Name {
		t.Errorf("the pod's status says %v of claim %s", status, claim.Name)
	}
	if got := claim.Status.Allocation.Devices.Results[0].Device; got != "near" {
		t.Errorf("the first pod got device %s, which is not ready at once", got)
	}

	create("q")
	claim = claimOf("q", "")
	if q, err := pods.Get(ctx, "q", metav1.GetOptions{}); err != nil || q.Spec.NodeName != "" {
		t.Errorf("the second pod is on %q before its device is ready, %v", q.Spec.NodeName, err)
	}
	says(claim.Name, "broken")
	claim = claimOf("q", claim.UID)
	says(claim.Name, "attached")
	if pod = placed("q"); pod.Status.ExtendedResourceClaimStatus == nil || pod.Status.ExtendedResourceClaimStatus.ResourceClaimName != claim.Name {
		t.Errorf("the pod's status says %v of claim %s", pod.Status.ExtendedResourceClaimStatus, claim.Name)
	}

	create("r")
	componenttest.EventuallyTold(t, "the third pod to be told that there is none left", func() (bool, string) {
		r, err := pods.Get(ctx, "r", metav1.GetOptions{})
		if err != nil || len(r.Status.Conditions) == 0 {
			return false, fmt.Sprint(err)
		}
		return strings.HasPrefix(r.Status.Conditions[0].Message, "0/2 nodes are available: 2 cannot allocate all claims."), r.Status.Conditions[0].Message
	})
	if err := pods.Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	placed("r")
}

// A cluster may have no devices at all: the API server does not serve their kinds.
func TestSchedulesWithoutTheAPIOfDevices(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--runtime-config=resource.k8s.io/v1=false"), testcluster.WithScheduler())
	client, ctx := c.Client(t), t.Context()
	makeReady(t, client, "n")
	pod := newPod("p", "", "100m", nil)
	pod.Spec.Tolerations = []v1.Toleration{{Operator: v1.TolerationOpExists}} // no controller says that the node is ready
	if _, err := client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	componenttest.EventuallyTold(t, "the pod to be placed", func() (bool, string) {
		p, err := client.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{})
		return err == nil && p.Spec.NodeName == "n", fmt.Sprint(p, err)
	})
}
