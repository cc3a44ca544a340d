package resources

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// values are the limits of a pod's cgroup, as the kernel has them.
type values struct {
	shares        uint64
	quota, period int64 // µs; a quota of 0 is no limit
	memory        int64 // 0 is no limit
}

// Grow raises the limits of a pod's cgroup that are lower than the pod's, and lowers none: with it its
// containers can be given what they have more of, and what they have less of taken, before Ensure closes up.
func (c *Cgroups) Grow(_ context.Context, pod *corev1.Pod) error {
	if !c.cfg.PerQOS {
		return nil
	}
	n := podName(c.root, kuberuntime.QOS(pod), pod.UID)
	now, err := c.read(n)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there are no containers in it either
	}
	if err != nil {
		return fmt.Errorf("reading the pod's cgroup: %w", err)
	}
	more := grown(now, ForPod(pod, c.cfg.Policy, c.hugetlb()))
	if more == nil {
		return nil
	}
	c.mu.Lock()
	if p, ok := c.pods[pod.UID]; ok {
		p.resources = nil // not any more
		c.pods[pod.UID] = p
	}
	c.mu.Unlock()
	m, err := c.manager(n, more)
	if err == nil {
		err = m.Set(more)
	}
	if err != nil {
		return fmt.Errorf("raising the limits of the pod's cgroup: %w", err)
	}
	return nil
}

// grown are those of the wanted values that are more than there is; nil if none is.
func grown(now values, want *cgroups.Resources) *cgroups.Resources {
	r := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	changed := false
	if want.CpuShares > now.shares {
		setShares(r, want.CpuShares)
		changed = true
	}
	if now.quota > 0 && want.CpuQuota > 0 && want.CpuQuota*now.period > now.quota*int64(want.CpuPeriod) {
		r.CpuQuota, r.CpuPeriod = want.CpuQuota, want.CpuPeriod
		changed = true
	}
	if now.memory > 0 && want.Memory > now.memory {
		r.Memory = want.Memory
		changed = true
	}
	if !changed {
		return nil
	}
	return r
}

// Actual is what a pod's cgroup enforces, as far as it does. The CPU that is asked for reads as it was set, where
// the kernel's coarser weight allows.
func (c *Cgroups) Actual(pod *corev1.Pod) (corev1.ResourceRequirements, error) {
	actual := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	if !c.cfg.PerQOS {
		return actual, nil
	}
	v, err := c.read(podName(c.root, kuberuntime.QOS(pod), pod.UID))
	if err != nil {
		return actual, fmt.Errorf("reading the pod's cgroup: %w", err)
	}
	asked := ForPod(pod, c.cfg.Policy, false).CpuShares
	if c.h.unified && cgroups.ConvertCPUSharesToCgroupV2Value(asked) == cgroups.ConvertCPUSharesToCgroupV2Value(v.shares) {
		v.shares = asked
	}
	if milli := (int64(v.shares)*1000 + sharesPerCPU - 1) / sharesPerCPU; milli > minShares {
		actual.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
	}
	if v.quota > 0 && v.period > 0 {
		actual.Limits[corev1.ResourceCPU] = *resource.NewMilliQuantity(v.quota*1000/v.period, resource.DecimalSI)
	}
	if v.memory > 0 {
		actual.Limits[corev1.ResourceMemory] = *resource.NewQuantity(v.memory, resource.BinarySI)
	}
	return actual, nil
}

// Shrinkable tells why a pod's memory limit cannot be lowered to what the pod asks for: its processes use more.
func (c *Cgroups) Shrinkable(_ context.Context, pod *corev1.Pod) error {
	if !c.cfg.PerQOS {
		return nil
	}
	now, err := c.read(podName(c.root, kuberuntime.QOS(pod), pod.UID))
	if err != nil {
		return fmt.Errorf("reading the pod's cgroup: %w", err)
	}
	limit := ForPod(pod, c.cfg.Policy, false).Memory
	if limit <= 0 || now.memory > 0 && now.memory <= limit {
		return nil
	}
	s, err := c.PodStats(pod)
	if err != nil {
		return fmt.Errorf("reading the memory usage of the pod: %w", err)
	}
	if used := s.MemoryStats.Usage.Usage; used >= uint64(limit) {
		return fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", limit, used)
	}
	return nil
}

// read asks the kernel for the values of a cgroup.
func (c *Cgroups) read(n name) (values, error) {
	path := n.path(c.cfg.Driver)
	var errs []error
	number := func(controller, file string, field int) int64 {
		raw, err := os.ReadFile(filepath.Join(c.h.dir(controller, path), file))
		if err != nil {
			errs = append(errs, err)
			return 0
		}
		fields := strings.Fields(string(raw))
		if field >= len(fields) {
			errs = append(errs, fmt.Errorf("%s says nothing", file))
			return 0
		}
		if fields[field] == "max" {
			return 0
		}
		v, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
		}
		return max(v, 0)
	}
	var v values
	if c.h.unified {
		v = values{
			shares: sharesOf(uint64(number("cpu", "cpu.weight", 0))),
			quota:  number("cpu", "cpu.max", 0), period: number("cpu", "cpu.max", 1), memory: number("memory", "memory.max", 0),
		}
	} else {
		v = values{
			shares: uint64(number("cpu", "cpu.shares", 0)), quota: number("cpu", "cpu.cfs_quota_us", 0),
			period: number("cpu", "cpu.cfs_period_us", 0), memory: number("memory", "memory.limit_in_bytes", 0),
		}
	}
	const unlimited = 1 << 62 // the kernel's largest multiple of a page is no limit either
	if v.memory >= unlimited {
		v.memory = 0
	}
	return v, errors.Join(errs...)
}

// sharesOf are the fewest shares that have a weight.
func sharesOf(weight uint64) uint64 {
	low, high := uint64(minShares), uint64(maxShares)
	for low < high {
		middle := (low + high) / 2
		if cgroups.ConvertCPUSharesToCgroupV2Value(middle) < weight {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}
