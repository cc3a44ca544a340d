package resources

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Config says where pods' cgroups are and how they are made.
type Config struct {
	// Root is the cgroup under which kubepods is made (cgroupRoot); empty is "/".
	Root string
	// Driver is DriverCgroupfs or DriverSystemd; empty is DriverCgroupfs.
	Driver string
	// PerQOS makes the hierarchy. Without it containers lie directly in Root.
	PerQOS bool
	Policy Policy
}

// Cgroups owns kubepods and everything below it.
type Cgroups struct {
	cfg  Config
	h    hierarchy
	root name
	// duration is how long it takes to make cgroups, and so on.
	duration *metrics.HistogramVec

	mu sync.Mutex
	// pods has what has been applied, so that a repeated Ensure costs a look at a
	// directory, and the CPU requests that add up to burstable's share.
	pods            map[types.UID]podCgroup
	burstableShares uint64
}

type podCgroup struct {
	name      name
	resources *cgroups.Resources
	// milliCPU counts for the burstable cgroup.
	milliCPU int64
}

// New finds the machine's cgroup mounts and checks the configuration against them.
// It makes nothing.
func New(cfg Config) (*Cgroups, error) {
	if cfg.Driver == "" {
		cfg.Driver = DriverCgroupfs
	}
	if cfg.Driver != DriverCgroupfs && cfg.Driver != DriverSystemd {
		return nil, fmt.Errorf("cgroupDriver: %q is neither %q nor %q", cfg.Driver, DriverCgroupfs, DriverSystemd)
	}
	if !cfg.PerQOS && cfg.Root != "" && cfg.Root != "/" {
		return nil, errors.New("cgroupsPerQOS: must be true when cgroupRoot is given")
	}
	h, err := detect("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	c := &Cgroups{cfg: cfg, h: h, root: parseName(cfg.Root), duration: newDuration(), pods: map[types.UID]podCgroup{}}
	if cfg.PerQOS {
		if root := c.root.path(cfg.Driver); !h.exists(root) {
			return nil, fmt.Errorf("cgroupRoot: the cgroup %q does not exist in %v", root, h.dirs(root))
		}
		c.root = c.root.child("kubepods")
	}
	return c, nil
}

// Version is the version of the machine's cgroups: 1 or 2.
func (c *Cgroups) Version() int {
	if c.h.unified {
		return 2
	}
	return 1
}

// Start makes kubepods and its QoS cgroups. limits is what all pods together may
// have; a nil list leaves them the whole machine.
func (c *Cgroups) Start(limits corev1.ResourceList) error {
	if !c.cfg.PerQOS {
		return nil
	}
	if err := c.apply(c.root, c.nodeResources(limits)); err != nil {
		return fmt.Errorf("making the cgroup of all pods: %w", err)
	}
	lowest := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	setShares(lowest, minShares)
	for _, qos := range []string{"burstable", "besteffort"} {
		n := c.root.child(qos)
		r := lowest
		// Running pods keep their share until they have been counted again.
		if qos == "burstable" && c.h.exists(n.path(c.cfg.Driver)) {
			r = &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
		}
		if err := c.apply(n, r); err != nil {
			return fmt.Errorf("making the cgroup of %s pods: %w", qos, err)
		}
	}
	return nil
}

// Enforce applies limits to a cgroup that exists already and is not the kubelet's
// own: the one of system daemons or of Kubernetes' (systemReservedCgroup, kubeReservedCgroup).
func (c *Cgroups) Enforce(cgroup string, limits corev1.ResourceList) error {
	n := parseName(cgroup)
	if !c.h.exists(n.path(c.cfg.Driver)) {
		return fmt.Errorf("the cgroup %q does not exist", cgroup)
	}
	m, err := c.manager(n, c.nodeResources(limits))
	if err != nil {
		return err
	}
	return m.Set(c.nodeResources(limits))
}

func (c *Cgroups) nodeResources(limits corev1.ResourceList) *cgroups.Resources {
	r := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	for n, q := range limits {
		switch n {
		case corev1.ResourceCPU:
			setShares(r, Shares(q.MilliValue()))
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case ResourcePIDs:
			v := q.Value()
			r.PidsLimit = &v
		default:
			if size, ok := hugePageSize(n); ok && c.hugetlb() {
				r.HugetlbLimit = append(r.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: size, Limit: uint64(q.Value())})
			}
		}
	}
	return r
}

func (c *Cgroups) hugetlb() bool {
	if !c.h.unified {
		return c.h.mounts["hugetlb"] != ""
	}
	_, err := os.Stat(filepath.Join(c.h.mounts[""], c.root.path(c.cfg.Driver), "hugetlb.2MB.max"))
	return err == nil
}

// parent is the pod's cgroup as CRI wants it for a sandbox: a path, or the name of
// a systemd slice.
func (c *Cgroups) parent(pod *corev1.Pod) string {
	if !c.cfg.PerQOS {
		return c.cfg.Root
	}
	n := podName(c.root, kuberuntime.QOS(pod), pod.UID)
	if c.cfg.Driver == DriverSystemd {
		return n.slice()
	}
	return n.path(c.cfg.Driver)
}

// Ensure makes a pod's cgroup, or brings its values up to date, and returns its
// name as CRI's cgroup parent. It is cheap to repeat.
func (c *Cgroups) Ensure(_ context.Context, pod *corev1.Pod) (parent string, err error) {
	if c.cfg.PerQOS {
		err = c.ensure(pod)
	}
	return c.parent(pod), err
}

func (c *Cgroups) ensure(pod *corev1.Pod) error {
	qos := kuberuntime.QOS(pod)
	want := podCgroup{name: podName(c.root, qos, pod.UID), resources: ForPod(pod, c.cfg.Policy, c.hugetlb())}
	if qos == corev1.PodQOSBurstable {
		want.milliCPU = int64(want.resources.CpuShares) * 1000 / sharesPerCPU
	}
	c.mu.Lock()
	have, known := c.pods[pod.UID]
	c.mu.Unlock()
	if known && reflect.DeepEqual(have, want) && c.h.exists(want.name.path(c.cfg.Driver)) {
		return nil
	}
	operation := create
	if known {
		operation = update
	}
	defer c.timed(operation, time.Now())
	if err := c.apply(want.name, want.resources); err != nil {
		return fmt.Errorf("making the pod's cgroup: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods[pod.UID] = want
	return c.weighBurstable()
}

// weighBurstable gives the burstable cgroup the sum of its pods' requests. The lock is held.
func (c *Cgroups) weighBurstable() error {
	var milliCPU int64
	for _, p := range c.pods {
		milliCPU += p.milliCPU
	}
	shares := Shares(milliCPU)
	if shares == c.burstableShares {
		return nil
	}
	r := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	setShares(r, shares)
	m, err := c.manager(c.root.child("burstable"), r)
	if err == nil {
		err = m.Set(r)
	}
	if err != nil {
		return fmt.Errorf("setting the share of burstable pods: %w", err)
	}
	c.burstableShares = shares
	return nil
}

// Remove kills what is left in a pod's cgroup and removes it. A pod without one
// is no error.
func (c *Cgroups) Remove(ctx context.Context, uid types.UID) error {
	if !c.cfg.PerQOS {
		return nil
	}
	defer c.timed(destroy, time.Now())
	c.mu.Lock()
	known, ok := c.pods[uid]
	c.mu.Unlock()
	names := []name{known.name}
	if !ok {
		names = names[:0]
		for _, qos := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
			names = append(names, podName(c.root, qos, uid))
		}
	}
	for _, n := range names {
		if err := c.remove(ctx, n); err != nil {
			return fmt.Errorf("removing the cgroup of pod %s: %w", uid, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, uid)
	return c.weighBurstable()
}

// UIDs lists the pods that have a cgroup, also those of an earlier life of the kubelet.
func (c *Cgroups) UIDs() ([]types.UID, error) {
	if !c.cfg.PerQOS {
		return nil, nil
	}
	found := map[types.UID]bool{}
	for _, n := range []name{c.root, c.root.child("burstable"), c.root.child("besteffort")} {
		for _, dir := range c.h.dirs(n.path(c.cfg.Driver)) {
			entries, err := os.ReadDir(dir)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("listing pods' cgroups: %w", err)
			}
			for _, e := range entries {
				if uid, ok := podUID(e.Name()); ok && e.IsDir() {
					found[types.UID(uid)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// PodDir is the directory in which a controller ("memory", "cpuacct", "pids")
// keeps a pod's files; on version 2 it is the same for all of them.
func (c *Cgroups) PodDir(pod *corev1.Pod, controller string) string {
	return c.h.dir(controller, podName(c.root, kuberuntime.QOS(pod), pod.UID).path(c.cfg.Driver))
}

// PodStats reads the usage of all processes of a pod.
func (c *Cgroups) PodStats(pod *corev1.Pod) (*cgroups.Stats, error) {
	return c.stats(podName(c.root, kuberuntime.QOS(pod), pod.UID))
}

// AllPodsStats reads the usage of all pods together.
func (c *Cgroups) AllPodsStats() (*cgroups.Stats, error) { return c.stats(c.root) }

// Stats reads the usage of any cgroup, named by its path.
func (c *Cgroups) Stats(cgroup string) (*cgroups.Stats, error) {
	m, err := manager.NewWithPaths(&cgroups.Cgroup{Path: cgroup, Resources: &cgroups.Resources{}}, c.paths(cgroup))
	if err != nil {
		return nil, err
	}
	return measure(m, cgroup == "/")
}

func (c *Cgroups) stats(n name) (*cgroups.Stats, error) {
	m, err := c.manager(n, &cgroups.Resources{})
	if err != nil {
		return nil, err
	}
	return measure(m, len(n) == 0)
}

func measure(m cgroups.Manager, root bool) (*cgroups.Stats, error) {
	which := cgroups.CPU | cgroups.Memory
	if !root { // a hierarchy's root counts no processes
		which |= cgroups.Pids
	}
	return m.Stats(&cgroups.StatsOptions{Controllers: which})
}

func (c *Cgroups) manager(n name, r *cgroups.Resources) (cgroups.Manager, error) {
	cg := &cgroups.Cgroup{Resources: r}
	path := n.path(c.cfg.Driver)
	if c.cfg.Driver == DriverSystemd {
		cg.Systemd = true
		cg.Name = n.slice()
		cg.Parent = n[:len(n)-1].slice()
	} else {
		cg.Path = path
	}
	return manager.NewWithPaths(cg, c.paths(path))
}

// paths are where a cgroup is, by controller.
func (c *Cgroups) paths(cgroup string) map[string]string {
	paths := c.h.paths(cgroup)
	if c.h.unified {
		return map[string]string{"": paths[""]}
	}
	return paths
}

func (c *Cgroups) apply(n name, r *cgroups.Resources) error {
	m, err := c.manager(n, r)
	if err != nil {
		return err
	}
	if err := m.Apply(-1); err != nil { // -1: no process is moved into it
		return err
	}
	return m.Set(r)
}

func (c *Cgroups) remove(ctx context.Context, n name) error {
	dirs := c.h.dirs(n.path(c.cfg.Driver))
	for _, dir := range dirs {
		pids, err := cgroups.GetAllPids(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, pid := range pids {
			klog.FromContext(ctx).V(2).Info("Killing a process left in a pod's cgroup", "cgroup", dir, "pid", pid)
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
	}
	if c.cfg.Driver == DriverSystemd {
		m, err := c.manager(n, &cgroups.Resources{})
		if err != nil {
			return err
		}
		if err := m.Destroy(); err != nil {
			return err
		}
	}
	// A runtime makes its containers' cgroups in every hierarchy there is, also in
	// those that have no values for a pod.
	for _, dir := range dirs {
		if err := cgroups.RemovePath(dir); err != nil {
			return err
		}
	}
	return nil
}
