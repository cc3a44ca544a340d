package resources

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/cgroups"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

func list(kv ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		l[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return l
}

func container(name string, requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func podOf(cs ...corev1.Container) *corev1.Pod {
	p := &corev1.Pod{}
	p.UID = "1b2c-3d"
	p.Spec.Containers = cs
	return p
}

func TestForPod(t *testing.T) {
	full := list("cpu", "500m", "memory", "64Mi")
	shares := func(n uint64) cgroups.Resources {
		return cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true, CpuShares: n, CpuWeight: cgroups.ConvertCPUSharesToCgroupV2Value(n)}
	}
	guaranteed := shares(512)
	guaranteed.CpuQuota, guaranteed.CpuPeriod, guaranteed.Memory = 50000, 100000, 64<<20
	halfLimited := shares(614)
	pids := shares(2)
	limit := int64(100)
	pids.PidsLimit = &limit
	huge := guaranteed
	huge.HugetlbLimit = []*cgroups.HugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}
	noQuota := guaranteed
	noQuota.CpuQuota = -1
	podLevel := podOf(container("a", nil, nil))
	podLevel.Spec.Resources = &corev1.ResourceRequirements{Requests: full, Limits: full}
	hugePod := podOf(container("a", list("cpu", "500m", "memory", "64Mi", "hugepages-2Mi", "4Mi"), list("cpu", "500m", "memory", "64Mi", "hugepages-2Mi", "4Mi")))

	for _, tc := range []struct {
		name   string
		pod    *corev1.Pod
		policy Policy
		class  corev1.PodQOSClass
		want   cgroups.Resources
	}{
		{"best effort", podOf(container("a", nil, nil)), Policy{CPUQuota: true}, corev1.PodQOSBestEffort, shares(2)},
		{"pids", podOf(container("a", nil, nil)), Policy{PidsLimit: 100}, corev1.PodQOSBestEffort, pids},
		{"guaranteed", podOf(container("a", full, full)), Policy{CPUQuota: true}, corev1.PodQOSGuaranteed, guaranteed},
		{"quota off", podOf(container("a", full, full)), Policy{}, corev1.PodQOSGuaranteed, noQuota},
		{"one container without limits", podOf(container("a", full, full), container("b", list("cpu", "100m"), nil)),
			Policy{CPUQuota: true}, corev1.PodQOSBurstable, halfLimited},
		{"pod level", podLevel, Policy{CPUQuota: true}, corev1.PodQOSGuaranteed, guaranteed},
		{"huge pages", hugePod, Policy{CPUQuota: true}, corev1.PodQOSGuaranteed, huge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := kuberuntime.QOS(tc.pod); got != tc.class {
				t.Errorf("QOS = %s, want %s", got, tc.class)
			}
			if d := cmp.Diff(&tc.want, ForPod(tc.pod, tc.policy, true)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct{ root, driver, path, slice string }{
		{"/", DriverCgroupfs, "/burstable/podab-cd", "burstable-podab_cd.slice"},
		{"/kubelet/kubepods", DriverSystemd,
			"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podab_cd.slice",
			"kubelet-kubepods-burstable-podab_cd.slice"},
	} {
		n := podName(parseName(tc.root), corev1.PodQOSBurstable, "ab-cd")
		if got := n.path(tc.driver); got != tc.path {
			t.Errorf("path %s, want %s", got, tc.path)
		}
		if got := n.slice(); got != tc.slice {
			t.Errorf("slice %s, want %s", got, tc.slice)
		}
		if uid, ok := podUID(filepath.Base(n.path(tc.driver))); !ok || uid != "ab-cd" {
			t.Errorf("podUID(%s) = %q, %v", n.path(tc.driver), uid, ok)
		}
	}
	for _, dir := range []string{"burstable", "kubepods-burstable.slice", "pod"} {
		if uid, ok := podUID(dir); ok {
			t.Errorf("podUID(%s) = %q", dir, uid)
		}
	}
}

func TestDetect(t *testing.T) {
	const v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	const v1 = `30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:4 - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory
32 24 0:28 / /sys/fs/cgroup/systemd rw shared:4 - cgroup cgroup rw,xattr,name=systemd
33 24 0:29 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw
34 24 0:30 / /elsewhere/memory rw shared:4 - cgroup cgroup rw,memory
`
	for _, tc := range []struct {
		name, mounts string
		want         hierarchy
		fails        bool
	}{
		{"v2", v2, hierarchy{unified: true, mounts: map[string]string{"": "/sys/fs/cgroup"}}, false},
		{"hybrid", v1, hierarchy{mounts: map[string]string{
			"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory",
			"name=systemd": "/sys/fs/cgroup/systemd", "": "/sys/fs/cgroup/unified"}}, false},
		{"nothing", "20 1 0:5 / /proc rw - proc proc rw\n", hierarchy{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "mountinfo")
			if err := os.WriteFile(file, []byte(tc.mounts), 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := detect(file)
			if (err != nil) != tc.fails {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, h, cmp.AllowUnexported(hierarchy{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAllocatable(t *testing.T) {
	capacity := list("cpu", "4", "memory", "8Gi", "hugepages-2Mi", "1Gi", "pods", "110")
	r := Reserved{System: list("cpu", "500m", "memory", "1Gi"), Kube: list("cpu", "500m"), Eviction: list("memory", "100Mi")}
	if d := cmp.Diff(list("cpu", "3", "memory", "6044Mi", "hugepages-2Mi", "1Gi", "pods", "110"), Allocatable(capacity, r)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(list("cpu", "3", "memory", "7Gi", "hugepages-2Mi", "1Gi", "pods", "110"), PodLimits(capacity, r)); d != "" {
		t.Error(d)
	}
}

func TestReadMachine(t *testing.T) {
	root := t.TempDir()
	for file, content := range map[string]string{
		"proc/meminfo":                   "MemTotal:       16384 kB\nMemFree: 1 kB\nSwapTotal: 0 kB\nHugePages_Total: 3\n",
		"proc/sys/kernel/pid_max":        "32768\n",
		"proc/sys/kernel/osrelease":      "6.18.0\n",
		"proc/sys/kernel/random/boot_id": "boot\n",
		"sys/devices/system/cpu/online":  "0-2,5\n",
		"etc/machine-id":                 "machine\n",
		"etc/os-release":                 "NAME=x\nPRETTY_NAME=\"Debian 12\"\n",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "4\n",
	} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadMachine(root, root)
	if err != nil {
		t.Fatal(err)
	}
	if got.EphemeralStorage == 0 {
		t.Error("no ephemeral storage")
	}
	got.EphemeralStorage = 0
	want := Machine{CPUs: 4, Memory: 16 << 20, HugePages: map[int64]int64{2 << 20: 8 << 20}, PIDs: 32768,
		MachineID: "machine", SystemUUID: "machine", BootID: "boot", KernelVersion: "6.18.0", OSImage: "Debian 12"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(list("cpu", "4", "memory", "16Mi", "hugepages-2Mi", "8Mi", "ephemeral-storage", "0"), want.Capacity()); d != "" {
		t.Error(d)
	}
}

func TestParseResources(t *testing.T) {
	got, err := ParseResources("systemReserved", map[string]string{"cpu": "100m", "pid": "1000", "hugepages-2Mi": "2Mi"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(list("cpu", "100m", "pid", "1000", "hugepages-2Mi", "2Mi"), got); d != "" {
		t.Error(d)
	}
	for _, bad := range []map[string]string{{"gpu": "1"}, {"cpu": "x"}, {"cpu": "-1"}} {
		if _, err := ParseResources("systemReserved", bad); err == nil {
			t.Errorf("%v accepted", bad)
		}
	}
}

func TestGrown(t *testing.T) {
	now := values{shares: 512, quota: 50000, period: 100000, memory: 64 << 20}
	for name, test := range map[string]struct {
		now    values
		want   cgroups.Resources
		shares uint64
		quota  int64
		memory int64
	}{
		"less of everything":     {now, cgroups.Resources{CpuShares: 100, CpuQuota: 10000, CpuPeriod: 100000, Memory: 1 << 20}, 0, 0, 0},
		"more of everything":     {now, cgroups.Resources{CpuShares: 1000, CpuQuota: 90000, CpuPeriod: 100000, Memory: 1 << 30}, 1000, 90000, 1 << 30},
		"more CPU, less memory":  {now, cgroups.Resources{CpuShares: 1000, CpuQuota: 90000, CpuPeriod: 100000, Memory: 1 << 20}, 1000, 90000, 0},
		"the same, other period": {now, cgroups.Resources{CpuShares: 512, CpuQuota: 5000, CpuPeriod: 10000, Memory: 64 << 20}, 0, 0, 0},
		"the first limit":        {values{shares: 512}, cgroups.Resources{CpuShares: 512, CpuQuota: 5000, CpuPeriod: 10000, Memory: 64 << 20}, 0, 0, 0},
		"no limit is asked for":  {now, cgroups.Resources{CpuShares: 513}, 513, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := grown(test.now, &test.want)
			if got == nil {
				got = &cgroups.Resources{}
			}
			if got.CpuShares != test.shares || got.CpuQuota != test.quota || got.Memory != test.memory {
				t.Errorf("got %d shares, quota %d, %d bytes", got.CpuShares, got.CpuQuota, got.Memory)
			}
		})
	}
}

func TestSharesOf(t *testing.T) {
	for _, shares := range []uint64{2, 3, 20, 102, 1024, 5000, 262144} {
		weight := cgroups.ConvertCPUSharesToCgroupV2Value(shares)
		if got := sharesOf(weight); cgroups.ConvertCPUSharesToCgroupV2Value(got) != weight || got > shares {
			t.Errorf("%d shares have the weight %d, which is said to be of %d", shares, weight, got)
		}
	}
}
