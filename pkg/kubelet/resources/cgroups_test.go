package resources

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

// ownRoot makes a cgroup for one test in every hierarchy of this machine.
func ownRoot(t *testing.T) string {
	t.Helper()
	h, err := detect("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	root := fmt.Sprintf("/leme-test-%d", os.Getpid())
	dirs := h.dirs(root)
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatalf("tests of cgroups run as root: %v", err)
		}
	}
	t.Cleanup(func() {
		for _, d := range dirs {
			for _, sub := range []string{"kubepods/burstable", "kubepods/besteffort", "kubepods", ""} {
				if err := os.Remove(filepath.Join(d, sub)); err != nil && !os.IsNotExist(err) {
					t.Error(err)
				}
			}
		}
	})
	return root
}

func TestCgroups(t *testing.T) {
	root := ownRoot(t)
	cfg := Config{Root: root, PerQOS: true, Policy: Policy{CPUQuota: true, PidsLimit: 100}}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	registry := metrictest.New(c)
	if err := c.Start(list("cpu", "2", "memory", "1Gi")); err != nil {
		t.Fatal(err)
	}
	value := func(controller, cgroup, v1File, v2File string) string {
		t.Helper()
		file := v1File
		if c.h.unified {
			file = v2File
		}
		b, err := os.ReadFile(filepath.Join(c.h.dir(controller, root+"/kubepods"+cgroup), file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if got := value("memory", "", "memory.limit_in_bytes", "memory.max"); got != "1073741824" {
		t.Errorf("all pods may use %s bytes", got)
	}

	guaranteed := podOf(container("a", list("cpu", "500m", "memory", "64Mi"), list("cpu", "500m", "memory", "64Mi")))
	guaranteed.UID = "guaranteed"
	burstable := podOf(container("a", list("cpu", "250m"), nil))
	burstable.UID = "burst-able"
	idle := podOf(container("a", nil, nil))
	idle.UID = "idle"
	for pod, parent := range map[*corev1.Pod]string{
		guaranteed: "/kubepods/podguaranteed", burstable: "/kubepods/burstable/podburst-able", idle: "/kubepods/besteffort/podidle",
	} {
		for range 2 {
			got, err := c.Ensure(t.Context(), pod)
			if err != nil {
				t.Fatal(err)
			}
			if got != root+parent {
				t.Errorf("parent %s, want %s", got, root+parent)
			}
		}
	}
	registry.Expect(t, map[string]float64{`kubelet_cgroup_manager_duration_seconds{operation_type="create"}`: 3, "kubelet_cgroup_version": float64(c.Version())})
	if got := value("memory", "/podguaranteed", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("memory limit %s", got)
	}
	if got := value("pids", "/podguaranteed", "pids.max", "pids.max"); got != "100" {
		t.Errorf("pids limit %s", got)
	}
	if !c.h.unified {
		for cgroup, want := range map[string]string{"/podguaranteed": "512", "/burstable": "256", "/burstable/podburst-able": "256", "/besteffort": "2"} {
			if got := value("cpu", cgroup, "cpu.shares", ""); got != want {
				t.Errorf("%s has %s shares, want %s", cgroup, got, want)
			}
		}
		if got := value("cpu", "/podguaranteed", "cpu.cfs_quota_us", ""); got != "50000" {
			t.Errorf("quota %s", got)
		}
		if c.h.mounts["cpuset"] != "" && value("cpuset", "/besteffort/podidle", "cpuset.cpus", "") == "" {
			t.Error("no CPUs to run on")
		}
	}

	// A resize changes values in place.
	burstable.Spec.Containers[0].Resources.Requests = list("cpu", "1")
	if _, err := c.Ensure(t.Context(), burstable); err != nil {
		t.Fatal(err)
	}
	if !c.h.unified {
		if got := value("cpu", "/burstable", "cpu.shares", ""); got != "1024" {
			t.Errorf("burstable has %s shares after a resize", got)
		}
	}

	// What a pod has more of is given before its containers change, what it has less of is taken afterwards.
	guaranteed.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list("cpu", "800m", "memory", "32Mi"), Limits: list("cpu", "800m", "memory", "32Mi")}
	for _, step := range []struct {
		change      func() error
		cpu, memory string
	}{
		{func() error { return c.Grow(t.Context(), guaranteed) }, "800m", "64Mi"},
		{func() error { _, err := c.Ensure(t.Context(), guaranteed); return err }, "800m", "32Mi"},
	} {
		if err := step.change(); err != nil {
			t.Fatal(err)
		}
		got, err := c.Actual(guaranteed)
		if err != nil {
			t.Fatal(err)
		}
		if cpu, memory := got.Limits.Cpu().String(), got.Limits.Memory().String(); cpu != step.cpu || memory != step.memory || got.Requests.Cpu().String() != step.cpu {
			t.Errorf("the cgroup enforces %v, want %s and %s", got, step.cpu, step.memory)
		}
	}
	if err := c.Shrinkable(t.Context(), guaranteed); err != nil {
		t.Errorf("nothing is to shrink: %v", err)
	}
	if got, err := c.Actual(idle); err != nil || len(got.Limits)+len(got.Requests) != 0 {
		t.Errorf("a pod that asks for nothing: %v %v", got, err)
	}
	unknown := podOf(container("a", nil, nil))
	unknown.UID = "unknown"
	if err := c.Grow(t.Context(), unknown); err != nil {
		t.Errorf("a pod without a cgroup: %v", err)
	}

	// Another life of the kubelet finds the pods and removes one with a process in a container's cgroup.
	c, err = New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(nil); err != nil {
		t.Fatal(err)
	}
	uids, err := c.UIDs()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(uids), "[burst-able guaranteed idle]"; got != want {
		t.Errorf("UIDs %s, want %s", got, want)
	}
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(c.h.dir("memory", root+"/kubepods/besteffort/podidle"), "container")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), fmt.Append(nil, sleeper.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- sleeper.Wait() }()
	for _, uid := range []types.UID{"burst-able", "guaranteed", "idle", "never-was"} {
		if err := c.Remove(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-gone; err == nil {
		t.Error("the process ended by itself")
	}
	if uids, err := c.UIDs(); err != nil || len(uids) != 0 {
		t.Errorf("left behind: %v, %v", uids, err)
	}
}

func TestNewRefuses(t *testing.T) {
	for field, cfg := range map[string]Config{
		"cgroupDriver":  {Driver: "other"},
		"cgroupRoot":    {Root: "/leme-test-missing", PerQOS: true},
		"cgroupsPerQOS": {Root: "/some"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func BenchmarkEnsure(b *testing.B) {
	c, err := New(Config{Root: "/", PerQOS: true})
	if err != nil {
		b.Fatal(err)
	}
	c.root = name{fmt.Sprintf("leme-bench-%d", os.Getpid())}
	if err := c.Start(nil); err != nil {
		b.Fatal(err)
	}
	pod := podOf(container("a", list("cpu", "100m"), nil))
	for b.Loop() {
		if _, err := c.Ensure(b.Context(), pod); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := c.Remove(b.Context(), pod.UID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	for _, n := range []name{c.root.child("burstable"), c.root.child("besteffort"), c.root} {
		if err := c.remove(b.Context(), n); err != nil {
			b.Fatal(err)
		}
	}
}

// What the whole node uses is in the root of the hierarchies, which has fewer files than other cgroups.
func TestStatsOfRoot(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Stats("/")
	if err != nil {
		t.Fatal(err)
	}
	if s.MemoryStats.Usage.Usage == 0 || s.CpuStats.CpuUsage.TotalUsage == 0 {
		t.Errorf("the node uses %d bytes and %d ns", s.MemoryStats.Usage.Usage, s.CpuStats.CpuUsage.TotalUsage)
	}
}
