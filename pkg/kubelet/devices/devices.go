// Package devices gives containers the devices that device plugins offer: it follows the plugins that register, offers what they
// have as extended resources of the node, chooses devices for containers that ask for them, and has the plugin say
// how a container gets at them.
//
// Which devices to give is decided by [choose], a pure function. Who has which is kept in a file, under the original's name and
// in its format, so that a restarted kubelet of either kind gives no device twice.
package devices

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/leme-k8s/leme/pkg/kubelet/devices/checkpoint"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// absence is how long a plugin may be away, to be updated, before its devices count as gone.
const absence = 5 * time.Minute

// A Manager knows the devices of the node and who has them.
type Manager struct {
	dir     string
	absence time.Duration
	// changed is called when the node has more or fewer devices.
	changed func()
	metrics managerMetrics

	taking sync.Mutex // from the look at what is free until it is given

	mu        sync.Mutex
	resources map[string]*pluginResource
	given     map[place]*grant
}

// pluginResource is what one plugin offers.
type pluginResource struct {
	endpoint string
	client   pluginapi.DevicePluginClient // nil once the plugin has gone
	options  *pluginapi.DevicePluginOptions
	devices  map[string]bool // whether it is healthy, by id
	numa     map[string]int64
	cancel   context.CancelFunc
}

// place is where devices are given to.
type place struct {
	pod                 types.UID
	container, resource string
}

// grant is what was given.
type grant struct {
	devices []string
	numa    checkpoint.DevicesPerNUMA
	answer  *pluginapi.ContainerAllocateResponse
}

// New returns a Manager of the plugins in a directory that knows what an earlier one has given. An error leaves it usable: what
// was given before is not known then.
func New(dir string, changed func()) (*Manager, error) {
	m := &Manager{dir: dir, absence: absence, changed: changed, metrics: newMetrics(), resources: map[string]*pluginResource{}, given: map[place]*grant{}}
	entries, known, err := checkpoint.Read(filepath.Join(dir, checkpoint.File))
	// Until its plugin is back there is nothing to give of a resource, but it is known that it takes a plugin.
	for name := range known {
		m.resources[name] = &pluginResource{cancel: func() {}}
	}
	for _, e := range entries {
		g := &grant{numa: e.DeviceIDs, answer: &pluginapi.ContainerAllocateResponse{}}
		for _, ids := range e.DeviceIDs {
			g.devices = append(g.devices, ids...)
		}
		slices.Sort(g.devices)
		if bad := unmarshal(e.AllocResp, g.answer); bad != nil {
			err = errors.Join(err, fmt.Errorf("what container %s of pod %s was given of %s: %w", e.ContainerName, e.PodUID, e.ResourceName, bad))
			continue
		}
		m.given[place{types.UID(e.PodUID), e.ContainerName, e.ResourceName}] = g
	}
	return m, err
}

// Capacity is what of extended resources the node has, and what of it is healthy. Of a plugin that has gone for good the node has none:
// that it once had some keeps others from counting it as a resource that needs no plugin.
func (m *Manager) Capacity() (capacity, allocatable v1.ResourceList) {
	m.mu.Lock()
	defer m.mu.Unlock()
	capacity, allocatable = v1.ResourceList{}, v1.ResourceList{}
	for name, r := range m.resources {
		var healthy int64
		for _, ok := range r.devices {
			if ok && r.client != nil {
				healthy++
			}
		}
		all := int64(len(r.devices))
		capacity[v1.ResourceName(name)] = *resource.NewQuantity(all, resource.DecimalSI)
		allocatable[v1.ResourceName(name)] = *resource.NewQuantity(healthy, resource.DecimalSI)
	}
	return capacity, allocatable
}

// wants lists how many devices a container of a pod asks plugins for, by resource.
func (m *Manager) wants(pod *v1.Pod, c *v1.Container) map[string]int {
	out := map[string]int{}
	for name, q := range c.Resources.Limits {
		if m.resources[string(name)] != nil && q.Value() > 0 && !runtime.FromClaim(pod, name) {
			out[string(name)] = int(q.Value())
		}
	}
	return out
}

// Prepare chooses devices for all containers of a pod that ask for some. Init containers leave theirs to those that come after.
func (m *Manager) Prepare(ctx context.Context, pod *v1.Pod) error {
	var reusable []place
	var errs []error
	runtime.EachContainer(pod, func(c *v1.Container, kind runtime.Kind) {
		m.mu.Lock()
		wants := m.wants(pod, c)
		m.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(wants)) {
			at := place{pod.UID, c.Name, name}
			if err := m.allocate(ctx, at, wants[name], reusable); err != nil {
				errs = append(errs, err)
			}
			if kind == runtime.Init {
				reusable = append(reusable, at)
			}
		}
	})
	return errors.Join(errs...)
}

// allocate gives a container devices of one resource, unless it has them.
func (m *Manager) allocate(ctx context.Context, at place, count int, reusable []place) error {
	g, client, err := m.take(ctx, at, count, reusable)
	if err != nil || g == nil {
		return err
	}
	began := time.Now()
	resp, err := client.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: g.devices}}})
	m.metrics.allocations.WithLabelValues(at.resource).Observe(time.Since(began).Seconds())
	if err == nil && len(resp.ContainerResponses) != 1 {
		err = fmt.Errorf("its plugin answers for %d containers, not 1", len(resp.ContainerResponses))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		delete(m.given, at)
		return fmt.Errorf("allocating %s: %w", at.resource, err)
	}
	g.answer = resp.ContainerResponses[0]
	return m.note()
}

// take chooses devices for a container, so that nobody else gets them, and returns whom to ask for them; no grant if it has some.
func (m *Manager) take(ctx context.Context, at place, count int, reusable []place) (*grant, pluginapi.DevicePluginClient, error) {
	m.taking.Lock()
	defer m.taking.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.given[at] != nil {
		return nil, nil, nil
	}
	r := m.resources[at.resource]
	client := r.client
	if client == nil {
		return nil, nil, fmt.Errorf("the device plugin of %s has gone", at.resource)
	}
	free, reuse := m.free(r, at, reusable)
	chosen, err := choose(count, reuse, free)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", at.resource, err)
	}
	if r.options.GetGetPreferredAllocationAvailable() && len(chosen) < len(free)+len(reuse) {
		m.mu.Unlock() // a plugin may be slow
		chosen = prefer(ctx, client, chosen, reuse, free)
		m.mu.Lock()
	}
	g := &grant{devices: chosen, numa: near(chosen, r.numa)}
	m.given[at] = g
	return g, client, nil
}

// prefer asks a plugin which devices it would choose in place of those that were. A preference is no more than that: without one, or with
// one that is not to be had, the choice stays.
func prefer(ctx context.Context, client pluginapi.DevicePluginClient, chosen, reuse, free []string) []string {
	const patience = 10 * time.Second // others wait
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	available := slices.Concat(reuse, free)
	resp, err := client.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{
		AvailableDeviceIDs: available, MustIncludeDeviceIDs: chosen[:min(len(chosen), len(reuse))], AllocationSize: int32(len(chosen)),
	}}})
	if err != nil || len(resp.ContainerResponses) != 1 {
		return chosen
	}
	ids := resp.ContainerResponses[0].DeviceIDs
	if len(ids) != len(chosen) || len(sets.New(ids...)) != len(ids) || !sets.New(available...).HasAll(ids...) {
		return chosen
	}
	return ids
}

// free lists the devices that may be given: those that nobody has, and those that init containers of the pod leave. The lock is held.
func (m *Manager) free(r *pluginResource, at place, reusable []place) (free, reuse []string) {
	taken := map[string]bool{}
	for other, g := range m.given {
		if other.resource != at.resource {
			continue
		}
		for _, id := range g.devices {
			taken[id] = true
		}
	}
	for _, p := range reusable {
		if g := m.given[p]; p.resource == at.resource && g != nil {
			for _, id := range g.devices {
				if r.devices[id] && !slices.Contains(reuse, id) {
					reuse = append(reuse, id)
				}
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.devices)) {
		if r.devices[id] && !taken[id] {
			free = append(free, id)
		}
	}
	return free, reuse
}

// choose picks devices: those to be used again first.
func choose(count int, reuse, free []string) ([]string, error) {
	all := slices.Concat(reuse, free)
	if len(all) < count {
		return nil, fmt.Errorf("requested number of devices unavailable: requested %d, available %d", count, len(all))
	}
	return all[:count], nil
}

// near sorts devices by the memory node that they are near to.
func near(ids []string, numa map[string]int64) checkpoint.DevicesPerNUMA {
	out := checkpoint.DevicesPerNUMA{}
	for _, id := range ids {
		node, ok := numa[id]
		if !ok {
			node = -1
		}
		out[node] = append(out[node], id)
	}
	return out
}

// Of returns how a container gets at its devices, after its plugins have made them ready for it if they want to.
func (m *Manager) Of(ctx context.Context, pod *v1.Pod, c *v1.Container) (runtime.Devices, error) {
	var out runtime.Devices
	m.mu.Lock()
	grants := map[string]*grant{}
	for at, g := range m.given {
		if at.pod == pod.UID && at.container == c.Name {
			grants[at.resource] = g
		}
	}
	m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		g := grants[name]
		m.mu.Lock()
		var client pluginapi.DevicePluginClient
		if r := m.resources[name]; r != nil && r.options.GetPreStartRequired() {
			client = r.client
		}
		m.mu.Unlock()
		if client != nil {
			if _, err := client.PreStartContainer(ctx, &pluginapi.PreStartContainerRequest{DevicesIds: g.devices}); err != nil {
				return out, fmt.Errorf("preparing devices of %s: %w", name, err)
			}
		}
		out.Add(translate(g.answer))
	}
	return out, nil
}

// translate says in the runtime's terms what a plugin says.
func translate(a *pluginapi.ContainerAllocateResponse) runtime.Devices {
	d := runtime.Devices{Envs: a.Envs, Annotations: a.Annotations}
	for _, c := range a.CdiDevices {
		d.CDI = append(d.CDI, c.Name)
	}
	for _, n := range a.Devices {
		d.Nodes = append(d.Nodes, &runtimeapi.Device{HostPath: n.HostPath, ContainerPath: n.ContainerPath, Permissions: n.Permissions})
	}
	for _, n := range a.Mounts {
		d.Mounts = append(d.Mounts, &runtimeapi.Mount{HostPath: n.HostPath, ContainerPath: n.ContainerPath, Readonly: n.ReadOnly})
	}
	return d
}

// UIDs lists the pods that have devices.
func (m *Manager) UIDs() ([]types.UID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []types.UID
	for at := range m.given {
		out = append(out, at.pod)
	}
	return out, nil
}

// Release takes back what a pod has.
func (m *Manager) Release(_ context.Context, uid types.UID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.given)
	maps.DeleteFunc(m.given, func(p place, _ *grant) bool { return p.pod == uid })
	if len(m.given) == before {
		return nil
	}
	return m.note()
}

// note writes down who has what. The lock is held.
func (m *Manager) note() error {
	var entries []checkpoint.PodDevicesEntry
	for p, g := range m.given {
		if g.answer == nil {
			continue // not yet
		}
		raw, err := marshal(g.answer)
		if err != nil {
			return err
		}
		entries = append(entries, checkpoint.PodDevicesEntry{
			PodUID: string(p.pod), ContainerName: p.container, ResourceName: p.resource, DeviceIDs: g.numa, AllocResp: raw,
		})
	}
	all := map[string][]string{}
	for name, r := range m.resources {
		all[name] = slices.Sorted(maps.Keys(r.devices))
	}
	return checkpoint.Write(filepath.Join(m.dir, checkpoint.File), entries, all)
}
