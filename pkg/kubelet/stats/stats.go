// Package stats measures the node and its pods: for /stats/summary, for the metrics
// of /metrics/resource and /metrics/cadvisor, and for eviction.
//
// Pods and containers are measured by the runtime (CRI), the node by its cgroup root
// and its file systems. Nothing is measured unless somebody asks.
package stats

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/leme-k8s/leme/pkg/kubelet/resources"
	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Pods are the node's pods.
type Pods interface {
	Pods() []*corev1.Pod
}

// Cgroups reads the usage of cgroups.
type Cgroups interface {
	AllPodsStats() (*cgroups.Stats, error)
	Stats(cgroup string) (*cgroups.Stats, error)
}

// Config is what there is to measure.
type Config struct {
	NodeName string
	// RootDir and PodLogsDir hold what pods write besides their containers' layers.
	RootDir, PodLogsDir string
	Machine             resources.Machine
	// BootTime is since when the node has been counting.
	BootTime time.Time
	// RuntimeCgroup is that of the container runtime; empty if nobody has said.
	RuntimeCgroup string
	// VolumePeriod is for how long the size of a volume is good enough.
	VolumePeriod time.Duration
	// VolumeOf names the volume of a pod that is a PersistentVolume; nil if nobody knows.
	VolumeOf func(uid types.UID, pv string) (volume string, ok bool)

	Pods    Pods
	Cgroups Cgroups
	Runtime cri.RuntimeService
	Images  cri.ImageManagerService
}

// Provider measures.
type Provider struct {
	cfg Config

	mu      sync.Mutex
	lastCPU map[string]cpuSample
	volumes map[types.UID]volumeSample
}

type cpuSample struct {
	at    time.Time
	total uint64
	rate  uint64
}

// New returns a Provider.
func New(cfg Config) *Provider {
	return &Provider{cfg: cfg, lastCPU: map[string]cpuSample{}, volumes: map[types.UID]volumeSample{}}
}

// Summary measures everything, or only what costs little.
func (p *Provider) Summary(ctx context.Context, onlyCPUAndMemory bool) (*api.Summary, error) {
	node, err := p.node()
	if err != nil {
		return nil, err
	}
	var rootFs, imageFs *api.FsStats
	if !onlyCPUAndMemory {
		if rootFs, err = FileSystem(p.cfg.RootDir); err != nil {
			return nil, err
		}
		if imageFs, err = p.imageFs(ctx); err != nil {
			return nil, err
		}
		node.Fs = rootFs
		node.Runtime = &api.RuntimeStats{ImageFs: imageFs, ContainerFs: imageFs}
		node.Rlimit = processes()
		node.Network = p.network(ctx)
	}
	sandboxes, err := p.cfg.Runtime.ListPodSandboxStats(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("measuring pods: %w", err)
	}
	known := map[types.UID]*corev1.Pod{}
	for _, pod := range p.cfg.Pods.Pods() {
		known[pod.UID] = pod
	}
	s := &api.Summary{Node: *node, Pods: []api.PodStats{}}
	for _, sb := range sandboxes {
		pod := p.pod(sb, known[types.UID(sb.GetAttributes().GetMetadata().GetUid())])
		if !onlyCPUAndMemory {
			p.storage(&pod, known[types.UID(pod.PodRef.UID)], rootFs, imageFs)
		}
		s.Pods = append(s.Pods, pod)
	}
	p.forget(known)
	return s, nil
}

// forget drops what is remembered of pods that are gone.
func (p *Provider) forget(known map[types.UID]*corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid := range p.volumes {
		if known[uid] == nil {
			delete(p.volumes, uid)
		}
	}
}

// node measures CPU and memory of the node, of all pods, and of the kubelet.
func (p *Provider) node() (*api.NodeStats, error) {
	now := time.Now()
	root, err := p.cfg.Cgroups.Stats("/")
	if err != nil {
		return nil, fmt.Errorf("measuring the node: %w", err)
	}
	n := &api.NodeStats{NodeName: p.cfg.NodeName, StartTime: metav1.NewTime(p.cfg.BootTime)}
	n.CPU, n.Memory = p.cpu("/", root, now), memory(root, p.cfg.Machine.Memory, now)
	if all, err := p.cfg.Cgroups.AllPodsStats(); err == nil {
		n.SystemContainers = append(n.SystemContainers, api.ContainerStats{Name: api.SystemContainerPods, StartTime: n.StartTime,
			CPU: p.cpu("pods", all, now), Memory: memory(all, limit(all), now)})
	}
	if cgroup := p.cfg.RuntimeCgroup; cgroup != "" {
		if s, err := p.cfg.Cgroups.Stats(cgroup); err == nil {
			n.SystemContainers = append(n.SystemContainers, api.ContainerStats{Name: api.SystemContainerRuntime, StartTime: n.StartTime,
				CPU: p.cpu("runtime", s, now), Memory: memory(s, limit(s), now)})
		}
	}
	n.SystemContainers = append(n.SystemContainers, p.self(now))
	if p.cfg.Machine.Swap > 0 {
		if mem, err := resources.MemInfo("/"); err == nil {
			free := mem["SwapFree"]
			used := p.cfg.Machine.Swap - min(free, p.cfg.Machine.Swap)
			n.Swap = &api.SwapStats{Time: metav1.NewTime(now), SwapAvailableBytes: &free, SwapUsageBytes: &used}
		}
	}
	return n, nil
}

// self measures the process that the kubelet is in.
func (p *Provider) self(now time.Time) api.ContainerStats {
	c := api.ContainerStats{Name: api.SystemContainerKubelet, StartTime: metav1.NewTime(p.cfg.BootTime)}
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err == nil {
		c.CPU = p.rate("kubelet", uint64(ru.Utime.Nano()+ru.Stime.Nano()), now)
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			if pages, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				rss := pages * uint64(os.Getpagesize())
				c.Memory = &api.MemoryStats{Time: metav1.NewTime(now), UsageBytes: &rss, WorkingSetBytes: &rss, RSSBytes: &rss}
			}
		}
	}
	return c
}

// cpu reads a cgroup's CPU time, and its rate since it was last asked for.
func (p *Provider) cpu(key string, s *cgroups.Stats, now time.Time) *api.CPUStats {
	return p.rate(key, s.CpuStats.CpuUsage.TotalUsage, now)
}

// shortest is the least time over which a rate means something.
const shortest = time.Second

func (p *Provider) rate(key string, total uint64, now time.Time) *api.CPUStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &api.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: &total}
	last, ok := p.lastCPU[key]
	elapsed := now.Sub(last.at)
	switch {
	case !ok || total < last.total:
		p.lastCPU[key] = cpuSample{at: now, total: total}
		return c
	case elapsed < shortest:
		if last.rate != 0 {
			c.UsageNanoCores = &last.rate
		}
		return c
	}
	rate := uint64(float64(total-last.total) / elapsed.Seconds())
	p.lastCPU[key] = cpuSample{at: now, total: total, rate: rate}
	c.UsageNanoCores = &rate
	return c
}

func limit(s *cgroups.Stats) uint64 { return s.MemoryStats.Usage.Limit }

func memory(s *cgroups.Stats, limit uint64, now time.Time) *api.MemoryStats {
	usage, working := Memory(s)
	m := &api.MemoryStats{Time: metav1.NewTime(now), UsageBytes: &usage, WorkingSetBytes: &working}
	if limit > 0 && limit < 1<<62 { // the kernel's "no limit" is near the largest number
		available := limit - min(working, limit)
		m.AvailableBytes = &available
	}
	stat := s.MemoryStats.Stats
	for _, k := range []string{"total_rss", "anon"} {
		if v, ok := stat[k]; ok {
			m.RSSBytes = &v
			break
		}
	}
	for to, keys := range map[**uint64][]string{&m.PageFaults: {"total_pgfault", "pgfault"}, &m.MajorPageFaults: {"total_pgmajfault", "pgmajfault"}} {
		for _, k := range keys {
			if v, ok := stat[k]; ok {
				*to = &v
				break
			}
		}
	}
	return m
}

// Memory reads what a cgroup uses, and what of it the kernel cannot take back by
// dropping file caches that nobody has touched lately.
func Memory(s *cgroups.Stats) (usage, workingSet uint64) {
	usage = s.MemoryStats.Usage.Usage
	inactive, ok := s.MemoryStats.Stats["total_inactive_file"]
	if !ok {
		inactive = s.MemoryStats.Stats["inactive_file"]
	}
	return usage, usage - min(inactive, usage)
}

// pod translates what the runtime says of a pod.
func (p *Provider) pod(sb *runtimeapi.PodSandboxStats, pod *corev1.Pod) api.PodStats {
	meta := sb.GetAttributes().GetMetadata()
	out := api.PodStats{PodRef: api.PodReference{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()}, Containers: []api.ContainerStats{}}
	if pod != nil && pod.Status.StartTime != nil {
		out.StartTime = *pod.Status.StartTime
	}
	linux := sb.GetLinux()
	out.CPU, out.Memory = criCPU(linux.GetCpu()), criMemory(linux.GetMemory())
	out.Network = criNetwork(linux.GetNetwork())
	if n := linux.GetProcess().GetProcessCount(); n != nil {
		out.ProcessStats = &api.ProcessStats{ProcessCount: &n.Value}
	}
	for _, c := range linux.GetContainers() {
		name := c.GetAttributes().GetLabels()[kubelettypes.KubernetesContainerNameLabel]
		if name == "" {
			name = c.GetAttributes().GetMetadata().GetName()
		}
		s := api.ContainerStats{Name: name, StartTime: started(pod, name), CPU: criCPU(c.GetCpu()), Memory: criMemory(c.GetMemory()), Swap: criSwap(c.GetSwap())}
		if l := c.GetWritableLayer(); l != nil {
			s.Rootfs = &api.FsStats{Time: stamp(l.GetTimestamp()), UsedBytes: value(l.GetUsedBytes()), InodesUsed: value(l.GetInodesUsed())}
		}
		out.Containers = append(out.Containers, s)
	}
	return out
}

func started(pod *corev1.Pod, container string) metav1.Time {
	if pod == nil {
		return metav1.Time{}
	}
	for _, ss := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range ss {
			if ss[i].Name == container && ss[i].State.Running != nil {
				return ss[i].State.Running.StartedAt
			}
		}
	}
	return metav1.Time{}
}

// storage adds up what a pod takes of the node's disk.
func (p *Provider) storage(out *api.PodStats, pod *corev1.Pod, rootFs, imageFs *api.FsStats) {
	var used, inodes uint64
	for i := range out.Containers {
		c := &out.Containers[i]
		if c.Rootfs != nil {
			c.Rootfs.AvailableBytes, c.Rootfs.CapacityBytes = imageFs.AvailableBytes, imageFs.CapacityBytes
			c.Rootfs.InodesFree, c.Rootfs.Inodes = imageFs.InodesFree, imageFs.Inodes
			used += deref(c.Rootfs.UsedBytes)
			inodes += deref(c.Rootfs.InodesUsed)
		}
		dir := filepath.Join(kuberuntime.PodLogDir(p.cfg.PodLogsDir, out.PodRef.Namespace, out.PodRef.Name, types.UID(out.PodRef.UID)), c.Name)
		if u, err := DiskUsage(dir); err == nil {
			c.Logs = onFs(rootFs, u)
			used += u.Bytes
			inodes += u.Inodes
		}
	}
	for _, v := range p.podVolumes(types.UID(out.PodRef.UID), pod) {
		out.VolumeStats = append(out.VolumeStats, v.VolumeStats)
		if v.onDisk {
			used += deref(v.UsedBytes)
			inodes += deref(v.InodesUsed)
		}
	}
	out.EphemeralStorage = onFs(rootFs, Usage{Bytes: used, Inodes: inodes})
}

// onFs is what something uses of a file system.
func onFs(fs *api.FsStats, u Usage) *api.FsStats {
	return &api.FsStats{Time: fs.Time, AvailableBytes: fs.AvailableBytes, CapacityBytes: fs.CapacityBytes, InodesFree: fs.InodesFree, Inodes: fs.Inodes,
		UsedBytes: &u.Bytes, InodesUsed: &u.Inodes}
}

func (p *Provider) imageFs(ctx context.Context) (*api.FsStats, error) {
	info, err := p.cfg.Images.ImageFsInfo(ctx)
	if err != nil {
		return nil, fmt.Errorf("measuring images: %w", err)
	}
	if len(info.GetImageFilesystems()) == 0 {
		return nil, fmt.Errorf("measuring images: the container runtime names no file system")
	}
	images := info.GetImageFilesystems()[0]
	fs, err := FileSystem(images.GetFsId().GetMountpoint())
	if err != nil {
		return nil, err
	}
	fs.UsedBytes, fs.InodesUsed = value(images.GetUsedBytes()), value(images.GetInodesUsed())
	return fs, nil
}

func criCPU(c *runtimeapi.CpuUsage) *api.CPUStats {
	if c == nil {
		return nil
	}
	return &api.CPUStats{Time: stamp(c.Timestamp), UsageNanoCores: value(c.UsageNanoCores), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds)}
}

func criMemory(m *runtimeapi.MemoryUsage) *api.MemoryStats {
	if m == nil {
		return nil
	}
	return &api.MemoryStats{Time: stamp(m.Timestamp), AvailableBytes: value(m.AvailableBytes), UsageBytes: value(m.UsageBytes), WorkingSetBytes: value(m.WorkingSetBytes),
		RSSBytes: value(m.RssBytes), PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults)}
}

func criSwap(s *runtimeapi.SwapUsage) *api.SwapStats {
	if s == nil {
		return nil
	}
	return &api.SwapStats{Time: stamp(s.Timestamp), SwapAvailableBytes: value(s.SwapAvailableBytes), SwapUsageBytes: value(s.SwapUsageBytes)}
}

func criNetwork(n *runtimeapi.NetworkUsage) *api.NetworkStats {
	if n == nil {
		return nil
	}
	one := func(i *runtimeapi.NetworkInterfaceUsage) api.InterfaceStats {
		return api.InterfaceStats{Name: i.GetName(), RxBytes: value(i.GetRxBytes()), RxErrors: value(i.GetRxErrors()), TxBytes: value(i.GetTxBytes()), TxErrors: value(i.GetTxErrors())}
	}
	out := &api.NetworkStats{Time: stamp(n.Timestamp), InterfaceStats: one(n.DefaultInterface)}
	for _, i := range n.Interfaces {
		out.Interfaces = append(out.Interfaces, one(i))
	}
	if n.DefaultInterface != nil && len(out.Interfaces) == 0 {
		out.Interfaces = append(out.Interfaces, out.InterfaceStats)
	}
	return out
}

func stamp(ns int64) metav1.Time { return metav1.NewTime(time.Unix(0, ns)) }

func value(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func deref(v *uint64) uint64 {
	if v == nil {
		return 0
	}
	return *v
}

// processes counts the machine's processes against what there may be.
func processes() *api.RlimitStats {
	most, running, err := Processes()
	if err != nil {
		return nil
	}
	return &api.RlimitStats{Time: metav1.Now(), MaxPID: &most, NumOfRunningProcesses: &running}
}

// Processes reads how many processes and threads the machine may have, and has.
func Processes() (most, running int64, err error) {
	for _, f := range []string{"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"} {
		b, err := os.ReadFile(f)
		if err != nil {
			return 0, 0, fmt.Errorf("counting processes: %w", err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("counting processes: %s: %w", f, err)
		}
		if most == 0 || n < most {
			most = n
		}
	}
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, 0, fmt.Errorf("counting processes: %w", err)
	}
	// 0.00 0.00 0.00 runnable/all last
	if f := strings.Fields(string(b)); len(f) > 3 {
		if _, all, ok := strings.Cut(f[3], "/"); ok {
			running, err = strconv.ParseInt(all, 10, 64)
		}
	}
	return most, running, err
}

// network counts what has passed the node's interfaces.
func (p *Provider) network(ctx context.Context) *api.NetworkStats {
	b, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Measuring the network failed", "err", err)
		return nil
	}
	routes, err := os.ReadFile("/proc/net/route")
	if err != nil {
		routes = nil // no IPv4
	}
	return parseNetwork(string(b), defaultInterface(string(routes)), time.Now())
}

func defaultInterface(routes string) string {
	for line := range strings.SplitSeq(routes, "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "00000000" {
			return f[0]
		}
	}
	return ""
}

func parseNetwork(dev, first string, now time.Time) *api.NetworkStats {
	out := &api.NetworkStats{Time: metav1.NewTime(now)}
	for line := range strings.SplitSeq(dev, "\n") {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(f) < 11 || name == "lo" {
			continue
		}
		i := api.InterfaceStats{Name: name}
		for to, column := range map[**uint64]int{&i.RxBytes: 0, &i.RxErrors: 2, &i.TxBytes: 8, &i.TxErrors: 10} {
			if v, err := strconv.ParseUint(f[column], 10, 64); err == nil {
				*to = &v
			}
		}
		out.Interfaces = append(out.Interfaces, i)
		if name == first {
			out.InterfaceStats = i
		}
	}
	return out
}
