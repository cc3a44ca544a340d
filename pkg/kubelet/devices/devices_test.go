package devices

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
	"github.com/leme-k8s/leme/pkg/kubelet/plugins"
)

const name = "example.com/d"

// fakePlugin offers what it is told to.
type fakePlugin struct {
	pluginapi.UnimplementedDevicePluginServer
	lists chan []*pluginapi.Device

	mu    sync.Mutex
	calls []string
	fails bool
}

func (p *fakePlugin) said(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, fmt.Sprintf(format, args...))
}

func (p *fakePlugin) heard() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.calls, ", ")
	p.calls = nil
	return out
}

func (p *fakePlugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true}, nil
}

func (p *fakePlugin) ListAndWatch(_ *pluginapi.Empty, s grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	for {
		select {
		case list := <-p.lists:
			if err := s.Send(&pluginapi.ListAndWatchResponse{Devices: list}); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// GetPreferredAllocation prefers the last ones.
func (p *fakePlugin) GetPreferredAllocation(_ context.Context, r *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	q := r.ContainerRequests[0]
	ids := q.AvailableDeviceIDs[len(q.AvailableDeviceIDs)-int(q.AllocationSize):]
	if len(q.MustIncludeDeviceIDs) > 0 {
		ids = q.MustIncludeDeviceIDs
	}
	return &pluginapi.PreferredAllocationResponse{ContainerResponses: []*pluginapi.ContainerPreferredAllocationResponse{{DeviceIDs: ids}}}, nil
}

func (p *fakePlugin) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	ids := strings.Join(r.ContainerRequests[0].DevicesIds, "+")
	p.said("allocate %s", ids)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails {
		return nil, fmt.Errorf("broken")
	}
	return &pluginapi.AllocateResponse{ContainerResponses: []*pluginapi.ContainerAllocateResponse{{
		Envs: map[string]string{"DEVICES": ids}, CdiDevices: []*pluginapi.CDIDevice{{Name: "example.com/d=" + ids}}, Annotations: map[string]string{"a": "b"},
		Devices: []*pluginapi.DeviceSpec{{HostPath: "/dev/x", ContainerPath: "/dev/y", Permissions: "rw"}},
		Mounts:  []*pluginapi.Mount{{HostPath: "/lib/x", ContainerPath: "/lib/y", ReadOnly: true}},
	}}}, nil
}

func (p *fakePlugin) PreStartContainer(_ context.Context, r *pluginapi.PreStartContainerRequest) (*pluginapi.PreStartContainerResponse, error) {
	p.said("ready %s", strings.Join(r.DevicesIds, "+"))
	return &pluginapi.PreStartContainerResponse{}, nil
}

// serve has a plugin answer in dir, and register with the kubelet there as often as that is new.
func serve(t *testing.T, dir string, p *fakePlugin) (register func() error, stop func()) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "plugin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(s, p)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return func() error {
		conn, err := plugins.Dial(filepath.Join(dir, "kubelet.sock"))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = pluginapi.NewRegistrationClient(conn).Register(t.Context(), &pluginapi.RegisterRequest{
			Version: pluginapi.Version, Endpoint: "plugin.sock", ResourceName: name,
			Options: &pluginapi.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true},
		}, grpc.WaitForReady(true))
		return err
	}, s.Stop
}

func healthy(ids ...string) (out []*pluginapi.Device) {
	for _, id := range ids {
		d := &pluginapi.Device{ID: id, Health: pluginapi.Healthy}
		if strings.HasPrefix(id, "bad") {
			d.Health = pluginapi.Unhealthy
		}
		out = append(out, d)
	}
	return out
}

func podOf(uid types.UID, init, regular int) *v1.Pod {
	p := &v1.Pod{}
	p.UID = uid
	c := func(name_ string, n int) v1.Container {
		return v1.Container{Name: name_, Resources: v1.ResourceRequirements{Limits: v1.ResourceList{name: *resource.NewQuantity(int64(n), resource.DecimalSI)}}}
	}
	p.Spec.InitContainers, p.Spec.Containers = []v1.Container{c("i", init)}, []v1.Container{c("c", regular)}
	return p
}

func run(t *testing.T, m *Manager) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := m.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return func() { cancel(); <-stopped }
}

func TestDevices(t *testing.T) {
	dir := t.TempDir()
	m, err := New(dir, func() {})
	if err != nil {
		t.Fatal(err)
	}
	registry := metrictest.New(m)
	stop := run(t, m)
	componenttest.Eventually(t, "it listens", func() bool { _, err := os.Stat(filepath.Join(dir, "kubelet.sock")); return err == nil })
	p := &fakePlugin{lists: make(chan []*pluginapi.Device)}
	register, stopPlugin := serve(t, dir, p)
	if err := register(); err != nil {
		t.Fatal(err)
	}
	offer := func(m *Manager) string {
		capacity, allocatable := m.Capacity()
		all, ok := capacity[name]
		usable := allocatable[name]
		return fmt.Sprintf("%t %s %s", ok, usable.String(), all.String())
	}
	p.lists <- healthy("1", "2", "3", "bad")
	componenttest.Eventually(t, "devices are offered", func() bool { return offer(m) == "true 3 4" })
	registry.Expect(t, map[string]float64{`kubelet_device_plugin_registration_total{resource_name="` + name + `"}`: 1})

	a := podOf("a", 1, 2)
	for range 2 {
		if err := m.Prepare(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	// The init container got the one that the plugin prefers, and leaves it to the other one.
	if got := p.heard(); got != "allocate 3, allocate 3+1" {
		t.Errorf("the plugin was asked to %s", got)
	}
	got, err := m.Of(t.Context(), a, &a.Spec.Containers[0])
	if err != nil {
		t.Fatal(err)
	}
	if got.Envs["DEVICES"] != "3+1" || got.CDI[0] != "example.com/d=3+1" || got.Annotations["a"] != "b" || got.Nodes[0].ContainerPath != "/dev/y" || !got.Mounts[0].Readonly {
		t.Errorf("given %+v", got)
	}
	if got := p.heard(); got != "ready 3+1" {
		t.Errorf("the plugin was asked to %s", got)
	}
	b := podOf("b", 0, 2)
	if err := m.Prepare(t.Context(), b); err == nil || !strings.Contains(err.Error(), "requested 2, available 1") {
		t.Errorf("more than there are: %v", err)
	}
	stop()

	// Another life of the kubelet knows who has what, though not yet the plugin.
	m, err = New(dir, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if got := offer(m); got != "true 0 0" {
		t.Errorf("without its plugin: %s", got)
	}
	if err := m.Prepare(t.Context(), b); err == nil || !strings.Contains(err.Error(), "has gone") {
		t.Errorf("without its plugin: %v", err)
	}
	if got, err := m.Of(t.Context(), a, &a.Spec.Containers[0]); err != nil || got.Envs["DEVICES"] != "3+1" {
		t.Errorf("given %+v: %v", got, err)
	}
	stopPlugin()
	stop = run(t, m)
	defer func() { stop() }()
	componenttest.Eventually(t, "it listens", func() bool { _, err := os.Stat(filepath.Join(dir, "kubelet.sock")); return err == nil })
	register, stopPlugin = serve(t, dir, p)
	if err := register(); err != nil {
		t.Fatal(err)
	}
	p.lists <- healthy("1", "2", "3")
	componenttest.Eventually(t, "devices are offered", func() bool { return offer(m) == "true 3 3" })
	if err := m.Release(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.fails = true
	p.mu.Unlock()
	if err := m.Prepare(t.Context(), b); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a plugin that fails: %v", err)
	}
	p.mu.Lock()
	p.fails = false
	p.mu.Unlock()
	if err := m.Prepare(t.Context(), b); err != nil {
		t.Error(err)
	}
	stopPlugin()
	componenttest.Eventually(t, "nothing is on offer without the plugin", func() bool { return offer(m) == "true 0 3" })
	m.mu.Lock()
	gone := m.resources[name]
	m.mu.Unlock()
	m.forget(t.Context(), name, &pluginResource{}) // an earlier one, which does not matter
	if got := offer(m); got != "true 0 3" {
		t.Errorf("an earlier plugin has gone for good: %s", got)
	}
	m.forget(t.Context(), name, gone)
	if got := offer(m); got != "true 0 0" {
		t.Errorf("the plugin has gone for good: %s", got)
	}
}

// TestAbsence has a plugin come, go and not come back.
func TestAbsence(t *testing.T) {
	dir := t.TempDir()
	m, err := New(dir, func() {})
	if err != nil {
		t.Fatal(err)
	}
	m.absence = 0
	defer run(t, m)()
	componenttest.Eventually(t, "it listens", func() bool { _, err := os.Stat(filepath.Join(dir, "kubelet.sock")); return err == nil })
	p := &fakePlugin{lists: make(chan []*pluginapi.Device)}
	register, stopPlugin := serve(t, dir, p)
	if err := register(); err != nil {
		t.Fatal(err)
	}
	count := func() int64 { capacity, _ := m.Capacity(); n := capacity[name]; return n.Value() }
	p.lists <- healthy("1", "2")
	componenttest.Eventually(t, "devices are offered", func() bool { return count() == 2 })
	stopPlugin()
	componenttest.Eventually(t, "the devices have gone", func() bool { return count() == 0 })
}

func TestRegister(t *testing.T) {
	m, err := New(t.TempDir(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	for want, req := range map[string]*pluginapi.RegisterRequest{
		"API version":       {Version: "v1", ResourceName: name},
		`"cpu" is invalid`:  {Version: pluginapi.Version, ResourceName: "cpu"},
		"kubernetes.io/gpu": {Version: pluginapi.Version, ResourceName: "kubernetes.io/gpu"},
		"not the name of a": {Version: pluginapi.Version, ResourceName: name, Endpoint: "../x.sock"},
	} {
		if _, err := (registration{m: m, base: t.Context()}).Register(t.Context(), req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", req, err)
		}
	}
}

// TestManyAtOnce has pods that come at the same time ask for all devices there are, of a plugin that has preferences.
func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	m, err := New(dir, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer run(t, m)()
	componenttest.Eventually(t, "it listens", func() bool { _, err := os.Stat(filepath.Join(dir, "kubelet.sock")); return err == nil })
	p := &fakePlugin{lists: make(chan []*pluginapi.Device)}
	register, _ := serve(t, dir, p)
	if err := register(); err != nil {
		t.Fatal(err)
	}
	const many = 20
	var ids []string
	for i := range many {
		ids = append(ids, fmt.Sprint(i))
	}
	p.lists <- healthy(ids...)
	componenttest.Eventually(t, "devices are offered", func() bool { capacity, _ := m.Capacity(); n := capacity[name]; return n.Value() == many })
	var pods sync.WaitGroup
	for i := range many {
		pods.Go(func() {
			if err := m.Prepare(t.Context(), podOf(types.UID(fmt.Sprint(i)), 0, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	pods.Wait()
	given := map[string]bool{}
	for _, g := range m.given {
		given[g.devices[0]] = true
	}
	if len(given) != many {
		t.Errorf("%d devices were given to %d pods", len(given), many)
	}
	if uids, err := m.UIDs(); err != nil || len(uids) != many {
		t.Errorf("%d pods have devices: %v", len(uids), err)
	}
}
