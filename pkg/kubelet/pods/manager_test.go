package pods

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	critest "k8s.io/cri-api/pkg/apis/testing"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/objects"
	"github.com/leme-k8s/leme/pkg/kubelet/probes"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
	"github.com/leme-k8s/leme/pkg/kubelet/status"
)

// held stands for the rooms that hold something of a pod on the node.
type held struct {
	mu   sync.Mutex
	pods map[types.UID]bool
}

func (h *held) set(uid types.UID, there bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if there {
		h.pods[uid] = true
	} else {
		delete(h.pods, uid)
	}
}

func (h *held) UIDs() ([]types.UID, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []types.UID
	for uid := range h.pods {
		out = append(out, uid)
	}
	return out, nil
}

type fakeVolumes struct{ held }

func (f *fakeVolumes) Mount(_ context.Context, pod *v1.Pod) (Mounted, error) {
	f.set(pod.UID, true)
	return Mounted{}, nil
}

func (f *fakeVolumes) Unmount(_ context.Context, uid types.UID) error { f.set(uid, false); return nil }

func (f *fakeVolumes) SubPath(context.Context, *v1.Pod, *v1.Container, int, runtime.Volume, string) (string, error) {
	return "", nil
}

type fakeCgroups struct{ held }

func (f *fakeCgroups) Ensure(_ context.Context, pod *v1.Pod) (string, error) {
	f.set(pod.UID, true)
	return "/kubepods/pod" + string(pod.UID), nil
}

func (*fakeCgroups) Grow(context.Context, *v1.Pod) error       { return nil }
func (*fakeCgroups) Shrinkable(context.Context, *v1.Pod) error { return nil }
func (*fakeCgroups) Actual(*v1.Pod) (v1.ResourceRequirements, error) {
	return v1.ResourceRequirements{}, nil
}

func (f *fakeCgroups) Remove(_ context.Context, uid types.UID) error { f.set(uid, false); return nil }

type fakeImages struct{}

func (fakeImages) Forget(types.UID) {}

func (fakeImages) Ensure(_ context.Context, r ImageRequest) (string, error) { return r.Image, nil }

// watchedImages are fakeImages that look around whenever an image is asked for.
type watchedImages struct {
	fakeImages
	look func(image string)
}

func (w watchedImages) Ensure(ctx context.Context, r ImageRequest) (string, error) {
	w.look(r.Image)
	return w.fakeImages.Ensure(ctx, r)
}

func inMemory(t *testing.T) *allocation.Store {
	s, err := allocation.Open("")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fakeManager is a manager whose rooms are fakes, or work in dir. What it tells of events is in the recorder.
func fakeManager(t *testing.T, dir string, cri criapi.RuntimeService, images *critest.FakeImageService, client kubernetes.Interface) (*Manager, *record.FakeRecorder) {
	recorder := record.NewFakeRecorder(1000)
	m := NewManager(Config{NodeName: "node", Limits: BackoffLimits{10 * time.Second, 300 * time.Second}, RuntimeName: "fake"})
	run := runtime.New(runtime.Config{RootDir: filepath.Join(dir, "root"), LogDir: filepath.Join(dir, "logs"), LogLinkDir: filepath.Join(dir, "links"), MaxPods: 10, Parallel: 2}, runtime.Dependencies{
		CRI: cri, Images: images, Services: func(string) []*v1.Service { return nil }, Recorder: recorder,
		HostIPs: func() []string { return []string{"192.0.2.1"} }, Allocatable: func() v1.ResourceList { return nil },
		RecursiveReadOnly: func(string) bool { return false },
	})
	m.Dependencies = Dependencies{
		Runtime: run, Observer: runtime.NewObserver(cri), Probes: probes.NewManager(run.Exec, recorder, m.Wake), Status: status.NewWriter(client, 1),
		Objects: objects.New(nil, m.Refresh), Volumes: &fakeVolumes{held{pods: map[types.UID]bool{}}}, Cgroups: &fakeCgroups{held{pods: map[types.UID]bool{}}},
		Allocated: inMemory(t), Actuated: inMemory(t), Images: fakeImages{}, Recorder: recorder,
		Node:    func(context.Context) (*v1.Node, error) { n := &v1.Node{}; n.Name = "node"; return n, nil },
		Handler: func(context.Context, *v1.Pod) (string, error) { return "", nil },
	}
	return m, recorder
}

// start runs a manager until the test ends, or stop is called.
func start(t *testing.T, m *Manager) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = m.Run(ctx) }()
	stop = func() { cancel(); <-stopped }
	t.Cleanup(stop)
	return ctx, stop
}

// TestStaticPod takes a pod from its file to its last trace, on a fake runtime, and finds a container that
// nobody wants on the way.
func TestCheck(t *testing.T) {
	m := NewManager(Config{})
	req := httptest.NewRequest(http.MethodGet, "/healthz/syncloop", nil)
	if err := m.Check(req); err != nil {
		t.Error(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Check(req.WithContext(ctx)); err == nil {
		t.Error("it is well though nobody can be told of pods")
	}
}

func TestStaticPod(t *testing.T) {
	dir := t.TempDir()
	manifests := filepath.Join(dir, "manifests")
	if err := os.Mkdir(manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	volumes, cgroups := &fakeVolumes{held{pods: map[types.UID]bool{"left": true}}}, &fakeCgroups{held{pods: map[types.UID]bool{}}}
	orphan := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "orphan", Namespace: "n", Uid: "orphan"},
		Labels:   map[string]string{"io.kubernetes.pod.name": "orphan", "io.kubernetes.pod.namespace": "n", "io.kubernetes.pod.uid": "orphan"},
	}
	foreign := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "foreign", Namespace: "n", Uid: "foreign"}}
	for _, config := range []*runtimeapi.PodSandboxConfig{orphan, foreign} {
		if _, err := cri.RunPodSandbox(t.Context(), config, ""); err != nil {
			t.Fatal(err)
		}
	}

	m, _ := fakeManager(t, dir, cri, images, nil)
	m.StaticPodPath, m.Volumes, m.Cgroups = manifests, volumes, cgroups

	left := filepath.Join(dir, "logs", "n_left_left")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(manifests, "p.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: kube-system}\n"+
		"spec: {hostNetwork: true, containers: [{name: c, image: image}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, m)

	componenttest.Eventually(t, "the pod runs", func() bool {
		pod, ok := m.PodByName("kube-system", "p-node")
		return ok && pod.Status.Phase == v1.PodRunning
	})
	componenttest.Eventually(t, "the logs of an earlier pod are gone", func() bool { _, err := os.Stat(left); return os.IsNotExist(err) })
	cri.Lock()
	for _, c := range cri.Containers {
		if c.Labels["io.kubernetes.container.name"] != "c" || c.Annotations["io.kubernetes.container.hash"] == "" {
			t.Errorf("the container is not labelled as a kubelet's: %v %v", c.Labels, c.Annotations)
		}
	}
	cri.Unlock()
	pod, _ := m.PodByName("kube-system", "p-node")
	path, _, err := m.ContainerLog(pod.UID, "c", false)
	if want := filepath.Join("kube-system_p-node_"+string(pod.UID), "c", "0.log"); err != nil || !strings.HasSuffix(path, want) {
		t.Errorf("log at %q, want …%s: %v", path, want, err)
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	componenttest.Eventually(t, "only what no kubelet made is left", func() bool {
		cri.Lock()
		defer cri.Unlock()
		return len(cri.Containers) == 0 && len(cri.Sandboxes) == 1
	})
	componenttest.Eventually(t, "volumes and cgroups are given back, those of earlier pods too", func() bool {
		v, _ := volumes.UIDs()
		c, _ := cgroups.UIDs()
		return len(v)+len(c)+len(m.Pods()) == 0
	})
}

// TestReplacedAtOnce gives a container another image. While its successor is being made, its end has not
// been told: for clients, one container runs and then another.
func TestReplacedAtOnce(t *testing.T) {
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image", "other"})
	pod := sizedPod("a", 0)
	pod.Spec.Containers[0].Resources = v1.ResourceRequirements{}
	client, _ := versioned(pod)
	m, _ := fakeManager(t, t.TempDir(), cri, images, client)
	// The worker asks for the image in the pass that would have told of the end before.
	told := make(chan v1.ContainerStatus, 1)
	m.Images = watchedImages{look: func(image string) {
		if image != "other" {
			return
		}
		if now, ok := m.Pod("a"); ok {
			told <- now.Status.ContainerStatuses[0]
		}
	}}
	ctx, _ := start(t, m)
	get := func() *v1.Pod {
		p, err := client.CoreV1().Pods("n").Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ready := func() bool {
		s := get().Status
		return len(s.ContainerStatuses) == 1 && s.ContainerStatuses[0].Ready
	}
	m.set(ctx, pod)
	componenttest.Eventually(t, "it is ready", ready)

	changed := get()
	changed.Spec.Containers[0].Image = "other"
	changed, err := client.CoreV1().Pods("n").Update(ctx, changed, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.set(ctx, changed)
	componenttest.Eventually(t, "it is ready after a restart", func() bool { return ready() && get().Status.ContainerStatuses[0].RestartCount == 1 })
	if s := <-told; !s.Ready || s.State.Running == nil {
		t.Errorf("while its successor was made, the container was said to be %+v", s)
	}
}

// A pod that was deleted by force is ended without a word to the API, which has it no more and may have another of its name.
func TestNothingIsToldOfAPodThatIsGone(t *testing.T) {
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	pod := sizedPod("a", 0)
	client, _ := versioned(pod)
	m, _ := fakeManager(t, t.TempDir(), cri, images, client)
	ctx, _ := start(t, m)
	m.set(ctx, pod)
	componenttest.Eventually(t, "it is ready", func() bool {
		p, err := client.CoreV1().Pods("n").Get(ctx, "a", metav1.GetOptions{})
		return err == nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].Ready
	})
	gone, err := client.CoreV1().Pods("n").Get(ctx, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Pods("n").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	client.ClearActions()
	m.unset(gone)
	componenttest.Eventually(t, "nothing is left of it", func() bool {
		cri.Lock()
		defer cri.Unlock()
		return len(cri.Containers)+len(cri.Sandboxes) == 0
	})
	for _, a := range client.Actions() {
		if a.GetVerb() == "patch" || a.GetVerb() == "delete" {
			t.Errorf("%s %s", a.GetVerb(), a.GetSubresource())
		}
	}
}

// slowRuntime is a runtime whose containers of one name take their time to stop, and to start.
type slowRuntime struct {
	criapi.RuntimeService
	slow    func(id string) bool
	started chan struct{} // if not nil, is told of each start
	release chan struct{}
}

func (r slowRuntime) StopContainer(ctx context.Context, id string, grace int64) error {
	if r.slow(id) {
		select {
		case <-r.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.RuntimeService.StopContainer(ctx, id, grace)
}

func (r slowRuntime) StartContainer(ctx context.Context, id string) error {
	if r.started != nil && r.slow(id) {
		r.started <- struct{}{}
		select {
		case <-r.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.RuntimeService.StartContainer(ctx, id)
}

// A pod that is deleted while its container is being started ends after the start, which is not given up half-way: the
// runtime would tell of a container that has failed.
func TestDeletedWhileItStarts(t *testing.T) {
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	slow := slowRuntime{RuntimeService: cri, started: make(chan struct{}, 1), release: make(chan struct{}), slow: func(string) bool { return true }}
	pod := sizedPod("a", 0)
	client, next := versioned(pod)
	m, recorder := fakeManager(t, t.TempDir(), slow, images, client)
	ctx, _ := start(t, m)
	m.set(ctx, pod)
	<-slow.started
	deleted := pod.DeepCopy()
	deleted.DeletionTimestamp, deleted.DeletionGracePeriodSeconds, deleted.ResourceVersion = ptr.To(metav1.Now()), ptr.To[int64](0), next()
	m.set(ctx, deleted)
	close(slow.release)
	componenttest.Eventually(t, "the pod has ended", func() bool {
		_, err := client.CoreV1().Pods("n").Get(ctx, "a", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	for {
		select {
		case e := <-recorder.Events:
			if strings.Contains(e, "Started") {
				return
			}
		default:
			t.Fatal("the start was given up")
		}
	}
}

// While one container takes its time to stop, the API hears of what becomes of the others.
func TestToldWhileContainersStop(t *testing.T) {
	cri, images := critest.NewFakeRuntimeService(), critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	slow := slowRuntime{RuntimeService: cri, release: make(chan struct{}), slow: func(id string) bool {
		cri.Lock()
		defer cri.Unlock()
		return cri.Containers[id].GetMetadata().GetName() == "slow"
	}}
	pod := sizedPod("a", 0)
	pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{Name: "slow", Image: "image"})
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](300)
	client, next := versioned(pod)
	m, _ := fakeManager(t, t.TempDir(), slow, images, client)
	ctx, _ := start(t, m)
	get := func() *v1.Pod {
		p, err := client.CoreV1().Pods("n").Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	m.set(ctx, pod)
	componenttest.Eventually(t, "both run", func() bool {
		s := get().Status.ContainerStatuses
		return len(s) == 2 && s[0].Ready && s[1].Ready
	})
	deleted := get()
	deleted.DeletionTimestamp, deleted.DeletionGracePeriodSeconds, deleted.ResourceVersion = ptr.To(metav1.Now()), ptr.To[int64](300), next()
	m.set(ctx, deleted)
	componenttest.Eventually(t, "it is told that one has ended", func() bool {
		m.Wake("a")
		s := get().Status.ContainerStatuses
		return s[0].State.Terminated != nil && s[1].State.Running != nil
	})
	close(slow.release)
	componenttest.Eventually(t, "the pod has ended", func() bool {
		_, err := client.CoreV1().Pods("n").Get(ctx, "a", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}
