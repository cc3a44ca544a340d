package node

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	critesting "k8s.io/cri-api/pkg/apis/testing"
)

type machine struct{}

func (machine) Capacity() v1.ResourceList {
	return v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")}
}
func (machine) Allocatable() v1.ResourceList { return machine{}.Capacity() }
func (machine) Info() v1.NodeSystemInfo      { return v1.NodeSystemInfo{BootID: "b"} }

type noImages struct{}

func (noImages) NodeImages(context.Context) ([]v1.ContainerImage, error) { return nil, nil }

type noPressure struct{}

func (noPressure) Conditions() []v1.NodeCondition { return nil }
func (noPressure) Changed() <-chan struct{}       { return nil }

// start runs a Manager of the node "n" until the test ends.
func start(t *testing.T, client, watch kubernetes.Interface) {
	t.Helper()
	cri := critesting.NewFakeRuntimeService()
	cri.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}
	m := New(Config{
		Name: "n", Hostname: "h", IPs: []net.IP{net.IPv4(10, 0, 0, 1)}, Register: true, Labels: map[string]string{"zone": "a"},
		Taints: []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}},
		Look:   10 * time.Millisecond, Report: time.Hour, LeaseSeconds: 40,
	}, Dependencies{
		Client: client, Watch: watch, CRI: cri, Machine: machine{}, Images: noImages{}, Pressure: noPressure{},
		Recorder: record.NewFakeRecorder(1000), Changed: func(context.Context, *v1.Node) {},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, what string, done func(context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 10*time.Second, true, done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// TestRegisters: a node registers, becomes ready and sends heartbeats; one that was
// deleted comes back.
func TestRegisters(t *testing.T) {
	client := fake.NewClientset()
	start(t, client, client)
	ready := func(ctx context.Context) (bool, error) {
		n, err := client.CoreV1().Nodes().Get(ctx, "n", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err == nil && (n.Labels["zone"] != "a" || n.Labels[v1.LabelHostname] != "h" || len(n.Spec.Taints) != 1) {
			t.Errorf("labels %v, taints %v", n.Labels, n.Spec.Taints)
		}
		return err == nil && isReady(&n.Status) && n.Status.NodeInfo.BootID == "b", err
	}
	eventually(t, "the node is ready", ready)
	eventually(t, "its Lease is there", func(ctx context.Context) (bool, error) {
		l, err := client.CoordinationV1().Leases(v1.NamespaceNodeLease).Get(ctx, "n", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil && *l.Spec.LeaseDurationSeconds == 40 && *l.Spec.HolderIdentity == "n", err
	})
	eventually(t, "somebody watches", func(context.Context) (bool, error) {
		for _, a := range client.Actions() {
			if a.Matches("watch", "nodes") {
				return true, nil
			}
		}
		return false, nil
	})
	if err := client.CoreV1().Nodes().Delete(t.Context(), "n", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node is back", ready)
}

// TestWatchesWithItsOwnClient: heartbeats end early when nobody answers; a watch on
// the same client would be cut off as often.
func TestWatchesWithItsOwnClient(t *testing.T) {
	client, watcher := fake.NewClientset(), fake.NewClientset()
	client.PrependWatchReactor("nodes", func(clienttesting.Action) (bool, watch.Interface, error) {
		t.Error("watches with the client for heartbeats")
		return false, nil, nil
	})
	start(t, client, watcher)
	eventually(t, "the node is watched", func(context.Context) (bool, error) {
		for _, a := range watcher.Actions() {
			if a.Matches("watch", "nodes") {
				return true, nil
			}
		}
		return false, nil
	})
}

// Whoever gives the node an extended resource writes its capacity; the node says that all of it is allocatable, until
// the capacity is gone.
func TestExtendedResourcesAreAllocatable(t *testing.T) {
	client := fake.NewClientset()
	start(t, client, client)
	given := func(ctx context.Context) (*v1.Node, bool, error) {
		n, err := client.CoreV1().Nodes().Get(ctx, "n", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		q, ok := n.Status.Allocatable["example.com/given"]
		return n, ok && q.Value() == 5, nil
	}
	eventually(t, "the node is ready", func(ctx context.Context) (bool, error) {
		n, _, err := given(ctx)
		return n != nil && isReady(&n.Status), err
	})
	patch := func(version, capacity string) { // this API does not count versions itself
		t.Helper()
		if _, err := client.CoreV1().Nodes().Patch(t.Context(), "n", types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q},"status":{"capacity":{"example.com/given":%s}}}`, version, capacity), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	patch("2", `"5"`)
	eventually(t, "it is allocatable", func(ctx context.Context) (bool, error) { _, ok, err := given(ctx); return ok, err })
	patch("3", "null")
	eventually(t, "it is allocatable no more", func(ctx context.Context) (bool, error) { _, ok, err := given(ctx); return !ok, err })
}

func TestKeepExtended(t *testing.T) {
	list := func(kv ...string) v1.ResourceList {
		l := v1.ResourceList{}
		for i := 0; i < len(kv); i += 2 {
			l[v1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
		}
		return l
	}
	own := list("cpu", "2", "example.com/plugged", "0")
	keepExtended(own, list("cpu", "1", "example.com/plugged", "3", "example.com/given", "5", "hugepages-2Mi", "4Mi"))
	if want := list("cpu", "2", "example.com/plugged", "0", "example.com/given", "5"); !equality.Semantic.DeepEqual(own, want) {
		t.Errorf("got %v", own)
	}
}
