package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// A machine is what of this machine a cluster changes: lines for each of its mounts,
// interfaces, routes, tables, cgroups, processes and files outside its data directory.
type machine map[string][]string

// lookAt sees what is there, but for what is the shared cluster's; of processes, those
// of c alone.
func lookAt(t *testing.T, c *cluster) machine {
	t.Helper()
	m := machine{
		"mounts":     fileLines(t, "/proc/self/mounts"),
		"processes":  c.processes(t),
		"nft tables": commandLines(t, "nft", "list", "tables"),
		"files": below(t, "/var/lib/cni", "/run/netns", "/var/run/netns", "/var/log/pods", "/var/log/containers",
			"/etc/cni", "/run/containerd", "/var/lib/containerd", "/var/lib/kubelet", "/run/flannel"),
	}
	for _, pattern := range []string{"/sys/fs/cgroup/leme*", "/sys/fs/cgroup/*/leme*", "/sys/fs/cgroup/kubepods*", "/sys/fs/cgroup/*/kubepods*"} {
		found, err := filepath.Glob(pattern)
		check(t, err)
		m["cgroups"] = append(m["cgroups"], found...)
	}
	links, err := netlink.LinkList()
	check(t, err)
	for _, l := range links {
		m["links"] = append(m["links"], l.Attrs().Name)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		check(t, err)
		for _, r := range routes {
			if r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() {
				continue // comes and goes with its link, a moment later
			}
			m["routes"] = append(m["routes"], fmt.Sprintf("%v dev %d type %d table %d", r.Dst, r.LinkIndex, r.Type, r.Table))
		}
	}
	for _, lines := range m {
		slices.Sort(lines)
	}
	for what, lines := range m {
		m[what] = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, shared.dataDir) })
	}
	return m
}

// wantAsBefore fails unless the machine is again, or very soon, as it was: the kernel
// takes the links of a network namespace away a moment after its last process.
func (m machine) wantAsBefore(t *testing.T, c *cluster) {
	t.Helper()
	var more []string
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		more = nil
		for what, lines := range lookAt(t, c) {
			for _, line := range lines {
				if !slices.Contains(m[what], line) {
					more = append(more, what+": "+line)
				}
			}
		}
		if len(more) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind:\n%s", strings.Join(more, "\n"))
			return
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fileLines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	return slices.Collect(strings.Lines(string(data)))
}

func commandLines(t *testing.T, name string, args ...string) []string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	check(t, err)
	return slices.Collect(strings.Lines(string(out)))
}

// processes are those that bear the cluster's mark, with the program's name.
func (c *cluster) processes(t *testing.T) []string {
	t.Helper()
	var out []string
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	check(t, err)
	for _, f := range files {
		environment, _ := os.ReadFile(f) // a process that has ended has none
		for _, v := range strings.Split(string(environment), "\x00") {
			if v == "LEME_CLUSTER_PROCESS="+c.dataDir {
				program, _ := os.Readlink(filepath.Join(filepath.Dir(f), "exe"))
				out = append(out, fmt.Sprintf("%s, process %s", program, filepath.Base(filepath.Dir(f))))
			}
		}
	}
	return out
}

// below are all paths in and below directories, those that exist.
func below(t *testing.T, dirs ...string) []string {
	t.Helper()
	var out []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				out = append(out, path)
			}
			return nil
		})
		check(t, err)
	}
	return out
}
