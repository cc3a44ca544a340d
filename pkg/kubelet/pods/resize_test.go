package pods

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	critest "k8s.io/cri-api/pkg/apis/testing"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
)

// sizedPod asks for some thousandths of a CPU.
func sizedPod(name string, milli int64) *v1.Pod {
	cpu := v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(milli, resource.DecimalSI)}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: types.UID(name), ResourceVersion: "1", Generation: 1},
		Spec: v1.PodSpec{
			NodeName: "node", HostNetwork: true, RestartPolicy: v1.RestartPolicyAlways,
			Containers: []v1.Container{{Name: "c", Image: "image", Resources: v1.ResourceRequirements{Requests: cpu}}},
		},
	}
}

// actuatedCPU is what was last applied to container c of a pod.
func actuatedCPU(m *Manager, uid types.UID) string {
	r, _ := m.Actuated.Get(uid)
	c := r.Containers["c"]
	return c.Requests.Cpu().String()
}

// versioned is a fake API that gives each version of a pod a number, and whose updates change no status, and where
// the numbers come from.
func versioned(objects ...kruntime.Object) (*fake.Clientset, func() string) {
	client := fake.NewClientset(objects...)
	var one sync.Mutex // change at a time: each reads before it writes
	var last atomic.Int64
	last.Store(100)
	next := func() string { return strconv.FormatInt(last.Add(1), 10) }
	patch := clienttesting.ObjectReaction(client.Tracker())
	client.PrependReactor("patch", "pods", func(action clienttesting.Action) (bool, kruntime.Object, error) {
		one.Lock()
		defer one.Unlock()
		handled, obj, err := patch(action)
		if err != nil {
			return handled, obj, err
		}
		pod := obj.(*v1.Pod).DeepCopy()
		pod.ResourceVersion = next()
		return true, pod, client.Tracker().Update(action.GetResource(), pod, pod.Namespace)
	})
	client.PrependReactor("update", "pods", func(action clienttesting.Action) (bool, kruntime.Object, error) {
		one.Lock()
		defer one.Unlock()
		pod := action.(clienttesting.UpdateAction).GetObject().(*v1.Pod).DeepCopy()
		old, err := client.Tracker().Get(action.GetResource(), pod.Namespace, pod.Name)
		if err != nil {
			return true, nil, err
		}
		pod.Status, pod.ResourceVersion = old.(*v1.Pod).Status, next()
		return true, pod, client.Tracker().Update(action.GetResource(), pod, pod.Namespace)
	})
	return client, next
}

func TestByUrgency(t *testing.T) {
	now := time.Now()
	with := func(had, want int64, priority int32, since time.Duration) candidate {
		c := candidate{pod: sizedPod("p", want), given: sizedPod("p", had), waitingSince: now.Add(-since)}
		c.pod.Spec.Priority = &priority
		return c
	}
	guaranteed := with(1, 2, 0, 0)
	guaranteed.pod.Spec.Containers[0].Resources = v1.ResourceRequirements{}
	guaranteed.pod.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceCPU: resource.MustParse("2m"), v1.ResourceMemory: resource.MustParse("1Mi")}
	guaranteed.pod.Spec.Containers[0].Resources.Requests = guaranteed.pod.Spec.Containers[0].Resources.Limits
	want := []candidate{with(2, 1, 0, 0), with(1, 2, 9, 0), guaranteed, with(1, 2, 0, time.Hour), with(1, 2, 0, time.Minute)}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortStableFunc(got, byUrgency)
	for i := range want {
		if got[i].pod != want[i].pod {
			t.Errorf("place %d is taken by the wrong one", i)
		}
	}
}

func TestResizeCondition(t *testing.T) {
	at := func(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }
	first, news := resizeCondition(nil, v1.PodResizePending, v1.PodReasonDeferred, "no room", 2, at(1))
	if !news || !first.LastTransitionTime.Time.Equal(at(1)) || first.ObservedGeneration != 2 {
		t.Errorf("the first one: %v %v", first, news)
	}
	if same, news := resizeCondition(first, v1.PodResizePending, v1.PodReasonDeferred, "no room", 2, at(2)); news || same != first {
		t.Errorf("nothing has changed: %v", same)
	}
	if other, news := resizeCondition(first, v1.PodResizePending, v1.PodReasonDeferred, "still no room", 2, at(3)); news || other.Message != "still no room" || !other.LastTransitionTime.Time.Equal(at(1)) {
		t.Errorf("another message: %v %v", other, news)
	}
	if later, news := resizeCondition(first, v1.PodResizePending, v1.PodReasonInfeasible, "never", 3, at(4)); !news || !later.LastTransitionTime.Time.Equal(at(4)) {
		t.Errorf("another reason: %v %v", later, news)
	}
}

// TestResize has a pod grow into the room that another one leaves, and shrink.
func TestResize(t *testing.T) {
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	a, b := sizedPod("a", 1000), sizedPod("b", 500)
	client, _ := versioned(a, b)
	m, recorder := fakeManager(t, t.TempDir(), cri, images, client)
	m.Node = func(context.Context) (*v1.Node, error) {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
		n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourcePods: resource.MustParse("10")}
		return n, nil
	}
	ctx, _ := start(t, m)

	api := func(name string) *v1.Pod {
		pod, err := client.CoreV1().Pods("n").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return pod
	}
	// says sums up what the API shows of a: the generation, conditions of a resize, CPU promised and applied.
	says := func() string {
		s := api("a").Status
		var conditions []string
		for _, c := range s.Conditions {
			if c.Type == v1.PodResizePending || c.Type == v1.PodResizeInProgress {
				conditions = append(conditions, fmt.Sprintf(" %s %s %d", c.Type, c.Reason, c.ObservedGeneration))
			}
		}
		promised := "none"
		if len(s.ContainerStatuses) > 0 {
			promised = s.ContainerStatuses[0].AllocatedResources.Cpu().String()
		}
		return fmt.Sprintf("%d%s %s %s", s.ObservedGeneration, strings.Join(conditions, ""), promised, actuatedCPU(m, "a"))
	}
	expect := func(want string) {
		t.Helper()
		defer func() {
			if t.Failed() {
				t.Logf("a is said to be %s", says())
			}
		}()
		componenttest.Eventually(t, "a is said to be "+want, func() bool { return says() == want })
	}
	resize := func(milli int64) {
		pod := api("a")
		pod.Generation++
		pod.Spec.Containers[0].Resources = sizedPod("a", milli).Spec.Containers[0].Resources
		pod, err := client.CoreV1().Pods("n").Update(ctx, pod, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		m.set(ctx, pod)
	}
	m.set(ctx, a)
	m.set(ctx, b)
	expect("1 1 1")
	componenttest.Eventually(t, "b runs", func() bool { return api("b").Status.Phase == v1.PodRunning })

	resize(1800)
	expect("2 PodResizePending Deferred 2 1 1")
	if pod, _ := m.Pod("a"); pod.Spec.Containers[0].Resources.Requests.Cpu().String() != "1" {
		t.Errorf("to the rest of the kubelet it has %v", pod.Spec.Containers[0].Resources.Requests)
	}
	m.unset(b)
	expect("2 1800m 1800m")
	resize(300)
	expect("3 300m 300m")
	resize(300)
	expect("4 300m 300m")

	cri.Lock()
	for _, call := range []string{"UpdateContainerResources", "UpdatePodSandboxResources"} {
		if n := len(slices.DeleteFunc(slices.Clone(cri.Called), func(c string) bool { return c != call })); n != 2 {
			t.Errorf("%s was called %d times, want 2", call, n)
		}
	}
	cri.Unlock()
	var events []string
	for len(recorder.Events) > 0 {
		if e := <-recorder.Events; strings.Contains(e, "Resize") {
			e, _, _ = strings.Cut(e, ":")
			events = append(events, e)
		}
	}
	want := []string{
		"Warning ResizeDeferred Pod resize Deferred", "Normal ResizeStarted Pod resize started", "Normal ResizeCompleted Pod resize completed",
		"Normal ResizeStarted Pod resize started", "Normal ResizeCompleted Pod resize completed",
	}
	if !slices.Equal(events, want) {
		t.Errorf("events %q", events)
	}
}

// TestSizesOutliveTheKubelet has a kubelet end while a pod runs: the next one finds what was settled.
func TestSizesOutliveTheKubelet(t *testing.T) {
	images := critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	pod := sizedPod("a", 100)
	client, _ := versioned(pod)
	m, _ := fakeManager(t, t.TempDir(), critest.NewFakeRuntimeService(), images, client)
	m.Node = func(context.Context) (*v1.Node, error) {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
		n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")}
		return n, nil
	}
	ctx, stop := start(t, m)
	m.set(ctx, pod)
	componenttest.Eventually(t, "it runs", func() bool { p, ok := m.Pod("a"); return ok && p.Status.Phase == v1.PodRunning })
	stop()
	if _, ok := m.Allocated.Get("a"); !ok || actuatedCPU(m, "a") != "100m" {
		t.Errorf("allocated: %v, actuated %s", ok, actuatedCPU(m, "a"))
	}
}

// TestResizeFails has the runtime refuse a new size, at first.
func TestResizeFails(t *testing.T) {
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	pod := sizedPod("a", 100)
	client, version := versioned(pod)
	m, _ := fakeManager(t, t.TempDir(), cri, images, client)
	m.Node = func(context.Context) (*v1.Node, error) {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
		n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")}
		return n, nil
	}
	ctx, _ := start(t, m)
	condition := func() *v1.PodCondition {
		got, err := client.CoreV1().Pods("n").Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return resizingOf(got).progress
	}
	m.set(ctx, pod)
	componenttest.Eventually(t, "it runs", func() bool { p, ok := m.Pod("a"); return ok && p.Status.Phase == v1.PodRunning })
	cri.InjectError("UpdateContainerResources", fmt.Errorf("refused"))
	bigger := sizedPod("a", 200)
	bigger.Generation, bigger.ResourceVersion = 2, version()
	m.set(ctx, bigger)
	componenttest.Eventually(t, "the status says why", func() bool {
		c := condition()
		return c != nil && c.Reason == v1.PodReasonError && strings.Contains(c.Message, "refused") && c.ObservedGeneration == 2
	})
	componenttest.Eventually(t, "it is resized in the end", func() bool {
		return condition() == nil && actuatedCPU(m, "a") == "200m"
	})
}
