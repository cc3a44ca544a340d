package pods

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	critest "k8s.io/cri-api/pkg/apis/testing"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// configs remembers what containers were made of.
type configs struct {
	*critest.FakeRuntimeService
	mu   sync.Mutex
	made []*runtimeapi.ContainerConfig
}

func (c *configs) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, s *runtimeapi.PodSandboxConfig) (string, error) {
	c.mu.Lock()
	c.made = append(c.made, config)
	c.mu.Unlock()
	return c.FakeRuntimeService.CreateContainer(ctx, sandbox, config, s)
}

// fakeDevices fails once and then gives every container the same.
type fakeDevices struct {
	held
	calls []string
	given runtime.Devices
}

func (f *fakeDevices) called(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
	return len(f.calls)
}

func (f *fakeDevices) Prepare(_ context.Context, pod *v1.Pod) error {
	if f.called("prepare "+pod.Name) == 1 {
		return fmt.Errorf("not yet")
	}
	f.set(pod.UID, true)
	return nil
}

func (f *fakeDevices) Of(context.Context, *v1.Pod, *v1.Container) (runtime.Devices, error) {
	return f.given, nil
}

func (f *fakeDevices) Release(_ context.Context, uid types.UID) error {
	if f.called("release "+string(uid)) == 1 {
		return fmt.Errorf("not yet")
	}
	f.set(uid, false)
	return nil
}

// TestDevices has containers get what rooms of devices give, and has it taken back.
func TestDevices(t *testing.T) {
	cri, images := &configs{FakeRuntimeService: critest.NewFakeRuntimeService()}, critest.NewFakeImageService()
	images.SetFakeImages([]string{"image"})
	pod := sizedPod("a", 100)
	pod.Spec.Containers[0].Env = []v1.EnvVar{{Name: "OWN", Value: "mine"}}
	client, _ := versioned(pod)
	m, _ := fakeManager(t, t.TempDir(), cri, images, client)
	m.Node = func(context.Context) (*v1.Node, error) {
		n := &v1.Node{}
		n.Name = "node"
		n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: *pod.Spec.Containers[0].Resources.Requests.Cpu()}
		return n, nil
	}
	devices := &fakeDevices{held: held{pods: map[types.UID]bool{}}, given: runtime.Devices{
		CDI: []string{"example.com/d=1"}, Envs: map[string]string{"OWN": "theirs", "NEW": "1"}, Annotations: map[string]string{"a": "b"},
		Nodes: []*runtimeapi.Device{{HostPath: "/dev/x"}}, Mounts: []*runtimeapi.Mount{{ContainerPath: "/lib/x"}},
	}}
	more := &fakeDevices{held: held{pods: map[types.UID]bool{}}, calls: []string{"before"}, given: runtime.Devices{CDI: []string{"example.com/e=2"}}}
	m.Devices = []Devices{devices, more}
	ctx, _ := start(t, m)

	m.set(ctx, pod)
	componenttest.Eventually(t, "it runs", func() bool { p, ok := m.Pod("a"); return ok && p.Status.Phase == v1.PodRunning })
	cri.mu.Lock()
	c := cri.made[0]
	cri.mu.Unlock()
	envs := map[string]string{}
	for _, e := range c.Envs {
		envs[e.Key] = string(e.Value)
	}
	if envs["OWN"] != "mine" || envs["NEW"] != "1" || c.Annotations["a"] != "b" || len(c.CDIDevices) != 2 || c.CDIDevices[1].Name != "example.com/e=2" {
		t.Errorf("the container has %v %v %v", envs, c.Annotations, c.CDIDevices)
	}
	if !slices.ContainsFunc(c.Mounts, func(m *runtimeapi.Mount) bool { return m.ContainerPath == "/lib/x" }) || len(c.Devices) != 1 {
		t.Errorf("the container has %v %v", c.Mounts, c.Devices)
	}
	m.unset(pod)
	componenttest.Eventually(t, "it is gone", func() bool { return len(m.Pods()) == 0 })
	devices.mu.Lock()
	defer devices.mu.Unlock()
	if got := devices.calls; !slices.Contains(got, "release a") || got[1] != "prepare a" {
		t.Errorf("calls %q", got)
	}
}

// TestDevicesOfEarlierPods has devices taken back from pods that are gone, as soon as that can be done.
func TestDevicesOfEarlierPods(t *testing.T) {
	m, _ := fakeManager(t, t.TempDir(), critest.NewFakeRuntimeService(), critest.NewFakeImageService(), nil)
	devices := &fakeDevices{held: held{pods: map[types.UID]bool{"earlier": true}}}
	m.Devices = []Devices{devices}
	start(t, m)
	componenttest.Eventually(t, "devices are taken back", func() bool { uids, _ := devices.UIDs(); return len(uids) == 0 })
}
