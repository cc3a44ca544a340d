package resources

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"

	mount "k8s.io/mount-utils"
)

// The two ways of naming and making cgroups: directly in the file system, or as
// slices that systemd owns.
const (
	DriverCgroupfs = "cgroupfs"
	DriverSystemd  = "systemd"
)

// A hierarchy is where the machine's cgroup file systems are mounted.
type hierarchy struct {
	unified bool
	// mounts has the mount point of each version 1 controller, "name=systemd"
	// included, or under "" that of version 2. Version 1 with a version 2 mount
	// beside it ("hybrid") has both.
	mounts map[string]string
}

// detect reads the cgroup mounts from a mountinfo file.
func detect(mountinfo string) (hierarchy, error) {
	infos, err := mount.ParseMountInfo(mountinfo)
	if err != nil {
		return hierarchy{}, fmt.Errorf("finding cgroup mounts: %w", err)
	}
	h := hierarchy{mounts: map[string]string{}}
	// A later mount lies on top of an earlier one, and a mount elsewhere than
	// under /sys/fs/cgroup is somebody's private view.
	for _, m := range infos {
		if m.MountPoint != "/sys/fs/cgroup" && !strings.HasPrefix(m.MountPoint, "/sys/fs/cgroup/") {
			continue
		}
		switch m.FsType {
		case "cgroup2":
			h.mounts[""] = m.MountPoint
		case "cgroup":
			for _, option := range m.SuperOptions {
				if strings.HasPrefix(option, cgroups.CgroupNamePrefix) || controllers[option] {
					h.mounts[option] = m.MountPoint
				}
			}
		}
	}
	switch {
	case len(h.mounts) == 0:
		return hierarchy{}, fmt.Errorf("no cgroup file system is mounted under /sys/fs/cgroup")
	case len(h.mounts) == 1 && h.mounts[""] == "/sys/fs/cgroup":
		h.unified = true
	default:
		for _, c := range []string{"cpu", "memory"} {
			if h.mounts[c] == "" {
				return hierarchy{}, fmt.Errorf("the cgroup controller %q is not mounted under /sys/fs/cgroup", c)
			}
		}
	}
	return h, nil
}

// controllers are the names that mean a controller among a version 1 mount's options.
var controllers = map[string]bool{
	"cpu": true, "cpuacct": true, "cpuset": true, "memory": true, "devices": true, "freezer": true, "blkio": true,
	"pids": true, "hugetlb": true, "net_cls": true, "net_prio": true, "perf_event": true, "rdma": true, "misc": true,
}

// paths returns the directory of a cgroup for each controller, keyed as the
// cgroups library wants it.
func (h hierarchy) paths(cgroup string) map[string]string {
	p := make(map[string]string, len(h.mounts))
	for controller, m := range h.mounts {
		p[controller] = filepath.Join(m, cgroup)
	}
	return p
}

// dirs returns the distinct directories of a cgroup, controllers mounted together counted once.
func (h hierarchy) dirs(cgroup string) []string {
	var dirs []string
	for _, m := range h.mounts {
		if d := filepath.Join(m, cgroup); !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// exists says whether a cgroup is there for every controller.
func (h hierarchy) exists(cgroup string) bool {
	for _, d := range h.dirs(cgroup) {
		if _, err := os.Stat(d); err != nil {
			return false
		}
	}
	return true
}

// dir returns the directory in which a controller ("memory", "cpu") keeps the files of a cgroup.
func (h hierarchy) dir(controller, cgroup string) string {
	if h.unified {
		return filepath.Join(h.mounts[""], cgroup)
	}
	return filepath.Join(h.mounts[controller], cgroup)
}

// A name is a cgroup as its path of components, without a driver's spelling.
type name []string

func parseName(root string) name {
	return strings.FieldsFunc(root, func(r rune) bool { return r == '/' })
}

func (n name) child(components ...string) name {
	return append(slices.Clone(n), components...)
}

// path spells the cgroup's path for a driver, with a leading slash.
func (n name) path(driver string) string {
	if driver != DriverSystemd {
		return "/" + strings.Join(n, "/")
	}
	var b strings.Builder
	for i := range n {
		b.WriteString("/")
		b.WriteString(n[:i+1].slice())
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// slice is the name of the systemd unit: the components joined by dashes, their own dashes written as underscores.
func (n name) slice() string {
	if len(n) == 0 {
		return "-.slice"
	}
	escaped := make([]string, len(n))
	for i, c := range n {
		escaped[i] = strings.ReplaceAll(strings.TrimSuffix(c, ".slice"), "-", "_")
	}
	return strings.Join(escaped, "-") + ".slice"
}

// podUID tells which pod a directory below a QoS cgroup belongs to, in either driver's spelling.
func podUID(dir string) (string, bool) {
	if s, ok := strings.CutSuffix(dir, ".slice"); ok {
		i := strings.LastIndex(s, "-pod")
		if i < 0 {
			return "", false
		}
		return strings.ReplaceAll(s[i+len("-pod"):], "_", "-"), true
	}
	uid, ok := strings.CutPrefix(dir, "pod")
	return uid, ok && uid != ""
}
