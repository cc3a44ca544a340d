package stats

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/prometheus/common/expfmt"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/leme-k8s/leme/pkg/kubelet/resources"
)

// machine runs one pod of one container.
type machine struct {
	cri.RuntimeService
	cri.ImageManagerService
	cpu     uint64
	dir     string
	metrics bool
}

func (m *machine) Close(context.Context) error { return nil }

func (m *machine) Pods() []*corev1.Pod {
	started := metav1.NewTime(time.Unix(1000, 0))
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid"}}
	p.Status.StartTime = &started
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}}}
	return []*corev1.Pod{p}
}

func (m *machine) Stats(string) (*cgroups.Stats, error) {
	s := cgroups.NewStats()
	s.CpuStats.CpuUsage.TotalUsage = m.cpu
	s.MemoryStats.Usage.Usage = 1000
	s.MemoryStats.Stats = map[string]uint64{"total_inactive_file": 300, "total_rss": 500}
	return s, nil
}

func (m *machine) AllPodsStats() (*cgroups.Stats, error) { return m.Stats("") }

func number(v uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: v} }

func (m *machine) ListPodSandboxStats(context.Context, *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	cpu := &runtimeapi.CpuUsage{Timestamp: 5e9, UsageCoreNanoSeconds: number(2e9)}
	memory := &runtimeapi.MemoryUsage{Timestamp: 5e9, WorkingSetBytes: number(4096)}
	return []*runtimeapi.PodSandboxStats{{
		Attributes: &runtimeapi.PodSandboxAttributes{Id: "box", Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "ns", Uid: "uid"}},
		Linux: &runtimeapi.LinuxPodSandboxStats{Cpu: cpu, Memory: memory, Process: &runtimeapi.ProcessUsage{ProcessCount: number(3)},
			Network: &runtimeapi.NetworkUsage{Timestamp: 5e9, DefaultInterface: &runtimeapi.NetworkInterfaceUsage{Name: "eth0", RxBytes: number(7)}},
			Containers: []*runtimeapi.ContainerStats{{Attributes: &runtimeapi.ContainerAttributes{Id: "id", Labels: map[string]string{"io.kubernetes.container.name": "main"}},
				Cpu: cpu, Memory: memory, WritableLayer: &runtimeapi.FilesystemUsage{UsedBytes: number(100), InodesUsed: number(2)}}}},
	}}, nil
}

func (m *machine) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: m.dir}, UsedBytes: number(12345)}}}, nil
}

func (m *machine) ListMetricDescriptors(context.Context) ([]*runtimeapi.MetricDescriptor, error) {
	if !m.metrics {
		return nil, status.Error(codes.Unimplemented, "unknown method")
	}
	return []*runtimeapi.MetricDescriptor{{Name: "container_processes", Help: "Processes.", LabelKeys: []string{"pod", "container"}}}, nil
}

func (m *machine) ListPodSandboxMetrics(context.Context) ([]*runtimeapi.PodSandboxMetrics, error) {
	return []*runtimeapi.PodSandboxMetrics{{ContainerMetrics: []*runtimeapi.ContainerMetrics{{Metrics: []*runtimeapi.Metric{
		{Name: "container_processes", MetricType: runtimeapi.MetricType_GAUGE, LabelValues: []string{"pod", "main"}, Value: number(3)},
		{Name: "undescribed", Value: number(1)}}}}}}, nil
}

func provider(t *testing.T) (*Provider, *machine) {
	t.Helper()
	m := &machine{dir: t.TempDir(), cpu: 1e9}
	return New(Config{NodeName: "node", RootDir: m.dir, PodLogsDir: filepath.Join(m.dir, "logs"), Machine: resources.Machine{CPUs: 2, Memory: 2000},
		BootTime: time.Unix(500, 0), VolumePeriod: time.Minute, RuntimeCgroup: "/system.slice/containerd.service", Pods: m, Cgroups: m, Runtime: m, Images: m}), m
}

func TestSummary(t *testing.T) {
	p, m := provider(t)
	for file, size := range map[string]int{"pods/uid/volumes/kubernetes.io~empty-dir/cache/f": 100_000, "logs/ns_pod_uid/main/0.log": 50_000} {
		file = filepath.Join(m.dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := p.Summary(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Node; n.NodeName != "node" || *n.CPU.UsageCoreNanoSeconds != 1e9 || n.CPU.UsageNanoCores != nil ||
		*n.Memory.WorkingSetBytes != 700 || *n.Memory.AvailableBytes != 1300 || *n.Memory.RSSBytes != 500 || *n.Fs.CapacityBytes == 0 ||
		*n.Runtime.ImageFs.UsedBytes != 12345 || *n.Rlimit.NumOfRunningProcesses == 0 || len(n.SystemContainers) != 3 {
		t.Errorf("node: %+v", n)
	}
	if len(s.Pods) != 1 || len(s.Pods[0].Containers) != 1 {
		t.Fatalf("pods: %+v", s.Pods)
	}
	pod := s.Pods[0]
	c := pod.Containers[0]
	if pod.PodRef.Name != "pod" || pod.StartTime.Unix() != 1000 || *pod.ProcessStats.ProcessCount != 3 || *pod.Network.RxBytes != 7 || len(pod.Network.Interfaces) != 1 {
		t.Errorf("pod: %+v", pod)
	}
	if c.Name != "main" || c.StartTime.Unix() != 1000 || *c.Memory.WorkingSetBytes != 4096 || *c.Rootfs.UsedBytes != 100 || *c.Logs.UsedBytes < 50_000 {
		t.Errorf("container: %+v", c)
	}
	if len(pod.VolumeStats) != 1 || pod.VolumeStats[0].Name != "cache" || *pod.VolumeStats[0].UsedBytes < 100_000 {
		t.Errorf("volumes: %+v", pod.VolumeStats)
	}
	if *pod.EphemeralStorage.UsedBytes < 150_100 {
		t.Errorf("the pod takes %d bytes of the disk", *pod.EphemeralStorage.UsedBytes)
	}
	small, err := p.Summary(t.Context(), true)
	if err != nil || small.Node.Fs != nil || small.Pods[0].EphemeralStorage != nil {
		t.Errorf("too much for %v: %+v", err, small)
	}
}

func TestRate(t *testing.T) {
	p, _ := provider(t)
	start := time.Now()
	if c := p.rate("x", 1e9, start); c.UsageNanoCores != nil {
		t.Error("a rate from one sample")
	}
	if c := p.rate("x", 2e9, start.Add(2*time.Second)); *c.UsageNanoCores != 5e8 {
		t.Errorf("rate %d", *c.UsageNanoCores)
	}
	if c := p.rate("x", 3e9, start.Add(2*time.Second+time.Millisecond)); *c.UsageNanoCores != 5e8 {
		t.Errorf("rate over too short a time %d", *c.UsageNanoCores)
	}
}

func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	alone, err := DiskUsage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	mounted := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", mounted, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mounted, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(mounted, "big"), make([]byte, 1_000_000), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := DiskUsage(dir)
	if err != nil || got.Inodes != alone.Inodes || got.Bytes != alone.Bytes {
		t.Errorf("%+v, %v; without the link and the mount %+v", got, err, alone)
	}
	if _, err := DiskUsage(filepath.Join(dir, "none")); err == nil {
		t.Error("nothing can be measured")
	}
}

func text(t *testing.T, g metrics.Gatherer) string {
	t.Helper()
	fams, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range fams {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestMetrics(t *testing.T) {
	p, m := provider(t)
	got := text(t, p.Resource(t.Context()))
	for _, want := range []string{
		"# TYPE container_cpu_usage_seconds_total counter\n",
		`container_cpu_usage_seconds_total{container="main",namespace="ns",pod="pod"} 2 5000` + "\n",
		`container_memory_working_set_bytes{container="main",namespace="ns",pod="pod"} 4096 5000` + "\n",
		`container_start_time_seconds{container="main",namespace="ns",pod="pod"} 1000` + "\n",
		`pod_cpu_usage_seconds_total{namespace="ns",pod="pod"} 2 5000` + "\n",
		"node_cpu_usage_seconds_total 1 ", "node_memory_working_set_bytes 700 ", "resource_scrape_error 0\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	got = text(t, p.Containers(t.Context()))
	for _, want := range []string{"machine_cpu_cores 2\n", `container_memory_working_set_bytes{container="main",id="id",namespace="ns",pod="pod"} 4096 5000`,
		`container_network_receive_bytes_total{container="",id="box",interface="eth0",namespace="ns",pod="pod"} 7 5000`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	m.metrics = true
	got = text(t, p.Containers(t.Context()))
	if !strings.Contains(got, `container_processes{container="main",pod="pod"} 3`+"\n") || strings.Contains(got, "undescribed") {
		t.Errorf("from the runtime:\n%s", got)
	}
}

func TestNetwork(t *testing.T) {
	dev := "Inter-|   Receive  |  Transmit\n face |bytes    packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 1 2 0 0 0 0 0 30 1 4 0 0 0 0 0\n"
	n := parseNetwork(dev, defaultInterface("Iface\tDestination\nveth\t0A000000\neth0\t00000000\n"), time.Now())
	if len(n.Interfaces) != 1 || n.Name != "eth0" || *n.RxBytes != 10 || *n.RxErrors != 2 || *n.TxBytes != 30 || *n.TxErrors != 4 {
		t.Errorf("%+v", n)
	}
}
