// Package boot is what happens inside a new machine before anything runs there: its
// first process, leme-init, mounts the machine's own file system and enters it.
//
// It is apart from package machine because leme-init lives as long as its machine,
// and should cost next to nothing.
package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Spec describes the machine to its first process.
type Spec struct {
	// Hostname is the machine's.
	Hostname string `json:"hostname"`
	// Root is the directory that becomes the root of the machine's file system.
	Root string `json:"root"`
	// Binds are the host's files that the machine sees.
	Binds []Bind `json:"binds,omitempty"`
	// Memory are directories whose content lasts until the machine ends.
	Memory []string `json:"memory,omitempty"`
	// Cgroups are the hierarchies that the machine mounts, where the host has them.
	Cgroups []Cgroup `json:"cgroups,omitempty"`
}

// A Bind is a file or directory of the host, which the machine can read.
type Bind struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// A Cgroup is a mounted cgroup hierarchy.
type Cgroup struct {
	Path    string `json:"path"`
	Type    string `json:"type"` // cgroup or cgroup2
	Options string `json:"options,omitempty"`
}

// cgroupRoot is where hierarchies are mounted: one there, or several below.
const cgroupRoot = "/sys/fs/cgroup"

// Services is the cgroup, in each hierarchy of the machine, of the processes that are
// in no pod. The root must have none, for a v2 hierarchy to hand controllers down.
const Services = "services"

// Boot makes the calling process's mount namespace the machine's, and its cgroup the
// root of the machine's cgroups. The calling thread must be the process's first.
func Boot(s Spec) error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func(Spec) error
	}{
		{"root", mountRoot}, {"devices", mountDevices}, {"kernel file systems", mountKernel},
		{"cgroups", mountCgroups}, {"files of the host", mountBinds}, {"memory", mountMemory}, {"entering the root", enterRoot},
	} {
		if err := step.do(s); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := JoinServices(s.Cgroups); err != nil {
		return err
	}
	for _, c := range s.Cgroups {
		if c.Type == "cgroup2" {
			if err := DelegateControllers(c.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// DelegateControllers hands all controllers of a v2 cgroup down to its children. No
// process may be in it, unless it is the host's root.
func DelegateControllers(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("controller %s: %w", c, err)
		}
	}
	return nil
}

// mount mounts at a path of the machine, which it makes.
func mount(source, target, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return &fs.PathError{Op: "mount " + source, Path: target, Err: err}
	}
	return nil
}

func mountRoot(s Spec) error {
	// What is mounted from here on stays here.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return mount(s.Root, s.Root, "", unix.MS_BIND, "")
}

func mountDevices(s Spec) error {
	dev := filepath.Join(s.Root, "dev")
	return errors.Join(
		mount("/dev", dev, "", unix.MS_BIND, ""),
		mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"),
		mount("shm", dev+"/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"),
		mount("mqueue", dev+"/mqueue", "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
	)
}

func mountKernel(s Spec) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return errors.Join(
		mount("proc", filepath.Join(s.Root, "proc"), "proc", flags, ""),
		mount("sysfs", filepath.Join(s.Root, "sys"), "sysfs", flags, ""),
	)
}

func mountCgroups(s Spec) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if len(s.Cgroups) != 1 || s.Cgroups[0].Path != cgroupRoot {
		if err := mount("cgroup", filepath.Join(s.Root, cgroupRoot), "tmpfs", flags, "mode=755"); err != nil {
			return err
		}
	}
	for _, c := range s.Cgroups {
		if err := mount(c.Type, filepath.Join(s.Root, c.Path), c.Type, flags, c.Options); err != nil {
			return err
		}
	}
	// Controllers that share a hierarchy have links to it by their own names.
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type() == fs.ModeSymlink {
			path := filepath.Join(cgroupRoot, e.Name())
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if err := os.Symlink(to, filepath.Join(s.Root, path)); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountBinds shows the machine files of the host. A symbolic link is copied.
func mountBinds(s Spec) error {
	for _, b := range s.Binds {
		target := filepath.Join(s.Root, b.Target)
		info, err := os.Lstat(b.Source)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not every host has a /lib64
		}
		if err != nil {
			return err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			to, err := os.Readlink(b.Source)
			if err != nil {
				return err
			}
			if have, err := os.Readlink(target); err == nil && have == to {
				continue
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.RemoveAll(target), os.Symlink(to, target)); err != nil {
				return err
			}
			continue
		}
		if err := bind(b.Source, target, info.IsDir()); err != nil {
			return err
		}
	}
	return nil
}

func bind(source, target string, directory bool) error {
	if !directory {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	} else if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return &fs.PathError{Op: "bind " + source, Path: target, Err: err}
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return &fs.PathError{Op: "remount read-only", Path: target, Err: err}
	}
	return nil
}

func mountMemory(s Spec) error {
	for _, m := range s.Memory {
		if err := mount("tmpfs", filepath.Join(s.Root, m), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return err
		}
	}
	return nil
}

func enterRoot(s Spec) error {
	if err := unix.Chdir(s.Root); err != nil {
		return err
	}
	// The old root comes to lie on top of the new one, and is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root %s: %w", s.Root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	// Pods may ask for mounts that others see.
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// JoinServices moves the calling process into the cgroup of the machine's services.
func JoinServices(cgroups []Cgroup) error {
	for _, c := range cgroups {
		dir := filepath.Join(c.Path, Services)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := inheritCpuset(c, dir); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("entering the cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// inheritCpuset fills what a v1 cpuset leaves empty, and no process could enter.
func inheritCpuset(c Cgroup, dir string) error {
	if c.Type != "cgroup" || !strings.Contains(","+c.Options+",", ",cpuset,") {
		return nil
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(c.Path, f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f), value, 0); err != nil {
			return err
		}
	}
	return nil
}
