package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leme-k8s/leme/pkg/cluster/machine/boot"
)

// A Mount is one of this mount namespace.
type Mount struct {
	Path, FSType string
	// Options are those of the file system, not of the mount.
	Options string
}

// Mounts are the mounts of this mount namespace, in the order in which they were made.
func Mounts() ([]Mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(data)), nil
}

func parseMounts(data string) []Mount {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var out []Mount
	lines := bufio.NewScanner(strings.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) > 4 && len(kind) > 2 {
			out = append(out, Mount{Path: unescape.Replace(fields[4]), FSType: kind[0], Options: kind[2]})
		}
	}
	return out
}

// hierarchies are the cgroup hierarchies of v1 and the one of v2, where they are mounted.
func hierarchies() ([]boot.Cgroup, error) {
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	return cgroupMounts(mounts), nil
}

func cgroupMounts(mounts []Mount) []boot.Cgroup {
	var out []boot.Cgroup
	for _, m := range mounts {
		if m.FSType != "cgroup" && m.FSType != "cgroup2" {
			continue
		}
		c := boot.Cgroup{Path: m.Path, Type: m.FSType}
		if m.FSType == "cgroup" { // what names the hierarchy
			options := strings.Split(m.Options, ",")
			c.Options = strings.Join(slices.DeleteFunc(options, func(o string) bool {
				return o == "rw" || o == "ro" || o == "xattr" || o == "clone_children" || strings.HasPrefix(o, "release_agent=")
			}), ",")
		}
		out = append(out, c)
	}
	return out
}

// CreateCgroup makes a cgroup in every hierarchy, for other cgroups to be below: it
// hands down to them all that the host's root can.
func CreateCgroup(name string) error {
	if err := makeCgroup(name); err != nil {
		return err
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if h.Type != "cgroup2" {
			continue
		}
		if err := boot.DelegateControllers(filepath.Join(h.Path, name)); err != nil {
			return err
		}
	}
	return nil
}

// makeCgroup makes a cgroup in every hierarchy, for a process to enter.
func makeCgroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := filepath.Join(h.Path, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if h.Type == "cgroup2" {
			err = boot.DelegateControllers(h.Path)
		} else {
			err = inheritCpuset(h.Path, dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// joinCgroup moves a process into a cgroup, in every hierarchy.
func joinCgroup(name string, pid int) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		file := filepath.Join(h.Path, name, "cgroup.procs")
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// inheritCpuset fills what a v1 cpuset leaves empty, and no process could enter.
func inheritCpuset(parent, dir string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, f))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not the cpuset hierarchy
		}
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(have)) != "" {
			continue
		}
		value, err := os.ReadFile(filepath.Join(parent, f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// RemoveCgroups kills what is in the cgroup or below it, and removes it from every hierarchy.
func RemoveCgroups(ctx context.Context, name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, h := range all {
		root := filepath.Join(h.Path, name)
		if err := removeCgroup(ctx, root, deadline); err != nil {
			return fmt.Errorf("removing the cgroup %s: %w", root, err)
		}
	}
	return nil
}

// removeCgroup tries until what it has killed is gone.
func removeCgroup(ctx context.Context, root string, deadline time.Time) error {
	for {
		err := tryRemoveCgroup(root)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func tryRemoveCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := tryRemoveCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	processes, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	for _, line := range strings.Fields(string(processes)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}
