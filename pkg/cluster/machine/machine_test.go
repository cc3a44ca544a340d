package machine

import (
	"slices"
	"testing"

	"github.com/leme-k8s/leme/pkg/cluster/machine/boot"
)

func TestParseMounts(t *testing.T) {
	in := "22 1 254:0 / / rw - ext4 /dev/vda rw\n" +
		"40 22 0:35 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu\n" +
		`41 22 0:36 / /var/lib/a\040b rw - tmpfs tmpfs rw` + "\n"
	want := []Mount{{"/", "ext4", "rw"}, {"/sys/fs/cgroup/cpu", "cgroup", "rw,cpu"}, {"/var/lib/a b", "tmpfs", "rw"}}
	if got := parseMounts(in); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCgroupMounts(t *testing.T) {
	in := []Mount{
		{"/", "ext4", "rw"},
		{"/sys/fs/cgroup", "tmpfs", "ro,mode=755"},
		{"/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"},
		{"/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,release_agent=/lib/systemd/agent,name=systemd"},
		{"/sys/fs/cgroup/unified", "cgroup2", "rw,nsdelegate"},
	}
	want := []boot.Cgroup{
		{Path: "/sys/fs/cgroup/cpu,cpuacct", Type: "cgroup", Options: "cpu,cpuacct"},
		{Path: "/sys/fs/cgroup/systemd", Type: "cgroup", Options: "name=systemd"},
		{Path: "/sys/fs/cgroup/unified", Type: "cgroup2"},
	}
	if got := cgroupMounts(in); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
