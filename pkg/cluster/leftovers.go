package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leme-k8s/leme/pkg/cluster/machine"
)

// A clusterProcess is a process of the cluster that is not in a container.
type clusterProcess struct {
	pid  int
	shim bool   // holds containers
	pod  bool   // is the shim of a pod; others' containers are not Kubernetes' to end
	node string // is in a further node
	init bool   // is the first process of one: it ends with everything in it
}

// clusterProcesses finds them by the mark in their environment. This process is not
// among them.
func clusterProcesses(d dataDir) ([]clusterProcess, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	mark := d.environment()
	var out []clusterProcess
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process that ends meanwhile cannot be read, and need not be.
		environment, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		variables := strings.Split(string(environment), "\x00")
		if !slices.Contains(variables, mark) {
			continue
		}
		program, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		p := clusterProcess{pid: pid, shim: strings.HasPrefix(filepath.Base(program), "containerd-shim")}
		for _, v := range variables {
			name, value, _ := strings.Cut(v, "=")
			switch name {
			case nodeVariable:
				p.node = value
			case initVariable:
				p.init = true
			}
		}
		if p.shim {
			line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
			p.pod = d.isPod(shimID(string(line)))
		}
		out = append(out, p)
	}
	return out, nil
}

// shimID is the id of the container or pod that a shim was started for.
func shimID(commandLine string) string {
	args := strings.Split(commandLine, "\x00")
	if i := slices.Index(args, "-id"); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// isPod reports whether containerd has a pod of this id.
func (d dataDir) isPod(id string) bool {
	if id == "" {
		return false
	}
	_, err := os.Stat(d.path("containerd", "io.containerd.grpc.v1.cri", "sandboxes", id))
	return err == nil
}

// endLeftovers ends what a cluster that crashed, or was not started completely, has
// left running, but for what holds the pods: shims, and further nodes.
func endLeftovers(ctx context.Context, d dataDir) error {
	return endProcesses(ctx, d, func(p clusterProcess) bool { return !p.shim && !p.init })
}

// endProcesses asks the chosen processes to end, and makes those that do not.
func endProcesses(ctx context.Context, d dataDir, chosen func(clusterProcess) bool) error {
	const patience = 5 * time.Second
	deadline := time.Now().Add(patience)
	told := map[int]bool{}
	for {
		processes, err := clusterProcesses(d)
		if err != nil {
			return err
		}
		processes = slices.DeleteFunc(processes, func(p clusterProcess) bool { return !chosen(p) })
		if len(processes) == 0 {
			return nil
		}
		late := time.Now().After(deadline)
		for _, p := range processes {
			switch {
			case late:
				_ = unix.Kill(p.pid, unix.SIGKILL)
			case !told[p.pid]:
				told[p.pid] = true
				_ = unix.Kill(p.pid, unix.SIGTERM)
			}
		}
		if time.Now().After(deadline.Add(patience)) {
			return fmt.Errorf("process %d does not end", processes[0].pid)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// forgetOtherBoot clears the runtime's record of containers if the machine has been
// started again since: none of them runs any more, and their process ids are others' now.
func forgetOtherBoot(d dataDir) error {
	now, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	then, err := os.ReadFile(d.run("boot-id"))
	if err == nil && bytes.Equal(now, then) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := unmountBelow(d.run("s")); err != nil {
		return err
	}
	if err := os.RemoveAll(d.run("s")); err != nil {
		return err
	}
	return writeFile(d.run("boot-id"), now, 0o600)
}

// unmountBelow unmounts everything below a directory, the last mounted first. It is
// an error if anything remains: what is below a mount may be the user's.
func unmountBelow(dir string) error {
	for range 3 { // mounts can lie on top of each other
		mounts, err := machine.Mounts()
		if err != nil {
			return err
		}
		mounts = slices.DeleteFunc(mounts, func(m machine.Mount) bool { return !strings.HasPrefix(m.Path, dir+"/") })
		if len(mounts) == 0 {
			return nil
		}
		for _, m := range slices.Backward(mounts) {
			if err := unix.Unmount(m.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
				return fmt.Errorf("unmounting %s: %w", m.Path, err)
			}
		}
	}
	return fmt.Errorf("there are still mounts below %s", dir)
}
