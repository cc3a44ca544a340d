package scheduler_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	clientcache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/scheduler"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// asScheduler has this test's binary be kube-scheduler, so that there is a process to kill.
const asScheduler = "LEME_TEST_BE_SCHEDULER"

func TestMain(m *testing.M) {
	if os.Getenv(asScheduler) != "" {
		component.Command{Name: "kube-scheduler", Options: scheduler.NewOptions()}.Main()
		return
	}
	os.Exit(m.Run())
}

const (
	crowdedNodes = 10
	podsEach     = 20 // fill a node to the last millicore
	devicesEach  = 4  // each for a pod that needs nothing else
	kills        = 6
)

// A scheduler that is killed again and again under load, anywhere between taking a pod
// and binding it, loses no pod and moves none, and leaves nothing counted that is free:
// what is there is just enough for all pods and their devices, and all get it.
func TestKilledSchedulerLosesNothing(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--disable-admission-plugins=TaintNodesByCondition"))
	client, ctx := c.Client(t), t.Context()
	kubeconfig := writeKubeconfig(t, c)
	fillCluster(t, client)

	places := watchPlaces(t, client)
	total := crowdedNodes * (podsEach + devicesEach)
	var creating sync.WaitGroup
	defer creating.Wait()
	creating.Go(func() {
		for i := range total {
			if _, err := client.CoreV1().Pods("default").Create(ctx, crowdingPod(i), metav1.CreateOptions{}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range kills {
		before := places.count()
		stop := startScheduler(t, kubeconfig)
		componenttest.EventuallyTold(t, fmt.Sprintf("start %d to place pods", i), func() (bool, string) {
			n := places.count()
			return n > before || n == total, fmt.Sprint(n)
		})
		select { // anywhere in what it does by then
		case <-time.After(rand.N(100 * time.Millisecond)):
		case <-ctx.Done():
		}
		stop()
	}
	creating.Wait()
	startScheduler(t, kubeconfig)
	componenttest.EventuallyTold(t, "all pods to be placed", func() (bool, string) {
		n := places.count()
		return n == total, fmt.Sprint(n, waiting(t, client))
	})
	if moved := places.moved(); len(moved) > 0 {
		t.Errorf("pods that were bound twice: %v", moved)
	}
	sums := map[string]*resource.Quantity{}
	pods, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		sum, ok := sums[p.Spec.NodeName]
		if !ok {
			sum = resource.NewQuantity(0, resource.DecimalSI)
			sums[p.Spec.NodeName] = sum
		}
		sum.Add(*p.Spec.Containers[0].Resources.Requests.Cpu())
	}
	for node, sum := range sums {
		if sum.Cmp(resource.MustParse("2")) != 0 {
			t.Errorf("node %s has pods for %s CPUs, of 2", node, sum)
		}
	}
	wantDevices(t, client, pods.Items)
}

// waiting tells of the pods that have no node, and why not.
func waiting(t *testing.T, client kubernetes.Interface) (list []string) {
	t.Helper()
	pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName="})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		list = append(list, fmt.Sprintf("%s (promised %q): %v", p.Name, p.Status.NominatedNodeName, p.Status.Conditions))
	}
	return list
}

// wantDevices checks that each claim is its pod's, on the pod's node, and no device is given twice.
func wantDevices(t *testing.T, client kubernetes.Interface, pods []v1.Pod) {
	t.Helper()
	on := map[string]string{}
	for _, p := range pods {
		on[p.Name] = p.Spec.NodeName
	}
	claims, err := client.ResourceV1().ResourceClaims("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]string{}
	for _, c := range claims.Items {
		if c.Status.Allocation == nil || len(c.Status.ReservedFor) != 1 {
			t.Errorf("claim %s: allocated %v, reserved for %v", c.Name, c.Status.Allocation, c.Status.ReservedFor)
			continue
		}
		r, user := c.Status.Allocation.Devices.Results[0], c.Status.ReservedFor[0].Name
		device := r.Pool + "/" + r.Device
		if other, ok := taken[device]; ok {
			t.Errorf("device %s is given to %s and to %s", device, other, c.Name)
		}
		taken[device] = c.Name
		if user != c.Name || on[user] != r.Pool {
			t.Errorf("claim %s has a device on %s and is reserved for %s on %s", c.Name, r.Pool, user, on[user])
		}
	}
}

func fillCluster(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	if _, err := client.ResourceV1().DeviceClasses().Create(t.Context(), &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range crowdedNodes {
		name := fmt.Sprint("n", i)
		makeReadyFor(t, client, name, podsEach+devicesEach)
		slice := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.ResourceSliceSpec{
			Driver: "gpu.example.com", NodeName: &name, Pool: resourceapi.ResourcePool{Name: name, Generation: 1, ResourceSliceCount: 1},
		}}
		for d := range devicesEach {
			slice.Spec.Devices = append(slice.Spec.Devices, resourceapi.Device{Name: fmt.Sprint("g", d)})
		}
		if _, err := client.ResourceV1().ResourceSlices().Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range crowdedNodes * devicesEach {
		claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: crowdingPod(i * (podsEach + devicesEach) / devicesEach).Name}, Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
			Requests: []resourceapi.DeviceRequest{{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "gpu"}}},
		}}}
		if _, err := client.ResourceV1().ResourceClaims("default").Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// crowdingPod is the i-th of those that fill the cluster: it asks for CPU or for a device.
func crowdingPod(i int) *v1.Pod {
	p := newPod(fmt.Sprintf("p%03d", i), "", "100m", nil)
	if i%((podsEach+devicesEach)/devicesEach) == 0 {
		p.Spec.Containers[0].Resources = v1.ResourceRequirements{}
		p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr.To(p.Name)}}
	}
	return p
}

func writeKubeconfig(t *testing.T, c *testcluster.Cluster) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: c.Config.Host, CertificateAuthorityData: c.Config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {ClientCertificateData: c.Config.CertData, ClientKeyData: c.Config.KeyData}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "c",
	}, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// startScheduler starts a scheduler as a process. The returned function kills it, as the end of the test does.
func startScheduler(t *testing.T, kubeconfig string, flags ...string) (kill func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"--kubeconfig=" + kubeconfig, "--secure-port=0", "--leader-elect=false"}, flags...)...)
	cmd.Env = append(os.Environ(), asScheduler+"=1")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("a scheduler has ended by itself")
		}
	})
	t.Cleanup(kill)
	return kill
}

// placesSeen are the nodes that each pod has had, as a watch shows them.
type placesSeen struct {
	mu   sync.Mutex
	pods map[string]map[string]bool
}

func watchPlaces(t *testing.T, client kubernetes.Interface) *placesSeen {
	t.Helper()
	pods := client.CoreV1().Pods("default")
	list, err := pods.List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	// It misses nothing: the API server ends a watch that is too slow, and this one goes on where that has ended.
	w, err := watchtools.NewRetryWatcherWithContext(t.Context(), list.ResourceVersion, &clientcache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return pods.Watch(ctx, o) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		t.Errorf("%s is there already", list.Items[i].Name)
	}
	seen := &placesSeen{pods: map[string]map[string]bool{}}
	var watching sync.WaitGroup
	t.Cleanup(watching.Wait)
	t.Cleanup(w.Stop)
	watching.Go(func() {
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*v1.Pod); ok && p.Spec.NodeName != "" {
				seen.add(p.Name, p.Spec.NodeName)
			}
		}
	})
	return seen
}

func (s *placesSeen) add(pod, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods[pod] == nil {
		s.pods[pod] = map[string]bool{}
	}
	s.pods[pod][node] = true
}

func (s *placesSeen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pods)
}

// moved names the pods that have had several nodes.
func (s *placesSeen) moved() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for pod, nodes := range s.pods {
		if len(nodes) > 1 {
			out = append(out, fmt.Sprint(pod, " on ", slices.Sorted(maps.Keys(nodes))))
		}
	}
	return out
}

// One of two schedulers leads. When it stops, the other does not wait for its lease to run out.
func TestAnotherSchedulerTakesOver(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--disable-admission-plugins=TaintNodesByCondition"))
	client, kubeconfig := c.Client(t), writeKubeconfig(t, c)
	makeReady(t, client, "n")
	run := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := component.New(ctx, "kube-scheduler", scheduler.NewOptions(), []string{"--kubeconfig=" + kubeconfig, "--secure-port=0"})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		return sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	holder := func() string {
		lease, err := client.CoordinationV1().Leases("kube-system").Get(t.Context(), "kube-scheduler", metav1.GetOptions{})
		if err != nil {
			return ""
		}
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	place := func(name string) {
		t.Helper()
		if _, err := client.CoreV1().Pods("default").Create(t.Context(), newPod(name, "", "100m", nil), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		componenttest.Eventually(t, "a pod to be placed", func() bool {
			p, err := client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && p.Spec.NodeName == "n"
		})
	}
	stopFirst := run()
	defer stopFirst()
	componenttest.Eventually(t, "one to lead", func() bool { return holder() != "" })
	first := holder()
	stopSecond := run()
	defer stopSecond()
	place("a")
	if now := holder(); now != first {
		t.Fatalf("%s leads, and %s did", now, first)
	}
	stopFirst()
	stopped := time.Now()
	componenttest.EventuallyTold(t, "the other to lead", func() (bool, string) { now := holder(); return now != "" && now != first, now })
	// The tests of pkg/component/election say exactly how long it may take; a lease that is not given away runs for 15 s.
	if d := time.Since(stopped); d > 10*time.Second {
		t.Errorf("the other leads after %v", d)
	}
	place("b")
}
