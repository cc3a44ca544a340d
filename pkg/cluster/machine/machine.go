// Package machine makes machines within this one: each a set of Linux namespaces with
// a network, a file system, processes and cgroups of its own, for a further node of a
// cluster. There is no image, no daemon and no other program to it than leme-init.
//
//	host ── Link (veth, routed) ── machine: leme-init (process 1)
//	                                          └ whatever is run in it
//
// A machine sees the host's programs, read-only, and nothing else of its files; its own
// are below one directory of the host and outlive it. It lives until it is killed,
// whatever becomes of who started it: who comes later finds it by the mark in its
// first process's environment.
package machine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/leme-k8s/leme/pkg/cluster/machine/boot"
)

// A Spec is what a machine is made from.
type Spec struct {
	// Mark is an environment variable of the first process, NAME=value, that no other
	// machine's has.
	Mark string
	// Environment is what else is in its environment.
	Environment []string
	// Init is the program leme-init.
	Init string
	// Root is the directory that holds the machine's files.
	Root string
	// Hostname is the machine's.
	Hostname string
	// Cgroup is the name of the machine's cgroup.
	Cgroup string
	// Link joins it to the host.
	Link Link
	// Binds are further files of the host that the machine sees.
	Binds []boot.Bind
	// Memory are directories that are empty when the machine starts.
	Memory []string
}

// programs are what a machine sees of the host's files, where they exist: what is
// needed to run programs, and nothing that they write.
var programs = []string{
	"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/nix",
	"/etc/alternatives", "/etc/ca-certificates", "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf",
	"/etc/os-release", "/etc/pki", "/etc/protocols", "/etc/services", "/etc/ssl",
}

// namespaces are those that a machine has of its own. Its cgroup namespace it makes
// itself, once it is in its cgroup.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// A Machine is one that runs.
type Machine struct {
	pid   int
	pidfd *os.File
}

// Start makes a machine. On an error nothing is left of it but files.
func Start(ctx context.Context, s Spec) (m *Machine, err error) {
	if err := prepareRoot(s); err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	if err := makeCgroup(s.Cgroup); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	cmd := exec.Command(s.Init)
	cmd.Env = append(s.Environment, s.Mark)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	defer func() {
		if err != nil {
			_ = cmd.Process.Kill() // it may have ended
			err = errors.Join(err, RemoveCgroups(context.WithoutCancel(ctx), s.Cgroup))
		}
		go func() { _ = cmd.Wait() }() // that it ended is seen elsewhere
	}()
	if m, err = open(cmd.Process.Pid); err != nil {
		return nil, err
	}
	if err := joinCgroup(s.Cgroup, m.pid); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	if err := m.connect(s.Link); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	cgroups, err := hierarchies()
	if err != nil {
		return nil, err
	}
	spec := boot.Spec{Hostname: s.Hostname, Root: s.Root, Binds: s.Binds, Memory: append([]string{"/run"}, s.Memory...), Cgroups: cgroups}
	for _, p := range programs {
		spec.Binds = append(spec.Binds, boot.Bind{Source: p, Target: p})
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	if _, err := stdin.Write(data); err != nil {
		return nil, fmt.Errorf("leme-init: %w", err)
	}
	if err := stdin.Close(); err != nil {
		return nil, err
	}
	answer, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("leme-init ended: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer != "" {
		return nil, errors.New(answer)
	}
	return m, nil
}

// prepareRoot makes the machine's own files that are there from the start.
func prepareRoot(s Spec) error {
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{{".", 0o755}, {"etc", 0o755}, {"home", 0o755}, {"mnt", 0o755}, {"opt", 0o755}, {"root", 0o700}, {"srv", 0o755}, {"tmp", 0o777 | fs.ModeSticky},
		{"var", 0o755}, {"var/cache", 0o755}, {"var/lib", 0o755}, {"var/log", 0o755}, {"var/tmp", 0o777 | fs.ModeSticky}} {
		path := filepath.Join(s.Root, dir.path)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, dir.mode); err != nil {
			return err
		}
	}
	run := filepath.Join(s.Root, "var/run")
	if err := os.Symlink("../run", run); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for name, content := range map[string]string{
		"hostname": s.Hostname + "\n",
		"hosts":    fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost\n%s %s\n", s.Link.Address, s.Hostname),
		"passwd":   "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"group":    "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
	} {
		path := filepath.Join(s.Root, "etc", name)
		if have, err := os.ReadFile(path); err == nil && string(have) == content {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Find returns the machine with this mark, or nil if none runs.
func Find(mark string) (*Machine, error) {
	pids, err := find(func(environment []string) bool {
		for _, v := range environment {
			if v == mark {
				return true
			}
		}
		return false
	})
	if err != nil || len(pids) == 0 {
		return nil, err
	}
	return open(pids[0])
}

// find returns the processes with such an environment.
func find(chosen func(environment []string) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that ends meanwhile cannot be read, and need not be.
		data, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		var environment []string
		for v := range bytes.SplitSeq(data, []byte{0}) {
			environment = append(environment, string(v))
		}
		if chosen(environment) {
			out = append(out, pid)
		}
	}
	return out, nil
}

func open(pid int) (*Machine, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return &Machine{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// connect makes the link in the machine's network namespace.
func (m *Machine) connect(l Link) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return l.connect(int(ns.Fd()))
}

func netnsHandle(fd int) netns.NsHandle { return netns.NsHandle(fd) }

// Close lets go of the machine, which goes on.
func (m *Machine) Close() error { return m.pidfd.Close() }

// Path is where the host finds a file of the machine's, in the directories that last
// as long as the machine too.
func (m *Machine) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(m.pid), "root", path)
}

// Kill ends the machine and everything in it at once, as a power cut would, and waits
// until it is gone.
func (m *Machine) Kill(ctx context.Context) error {
	err := unix.PidfdSendSignal(int(m.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("killing process %d: %w", m.pid, err)
	}
	for !m.ended() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for process %d to end: %w", m.pid, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// ended reports whether the first process, the last one to end, has done so.
func (m *Machine) ended() bool {
	poll := []unix.PollFd{{Fd: int32(m.pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

// within runs a function on a thread that is in some of the machine's namespaces. What
// it starts, or opens, is in them too.
func (m *Machine) within(namespaces int, do func() error) error {
	done := make(chan error)
	go func() {
		// The thread is never let go of, so that it ends with the goroutine.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil { // or all threads would have the machine's root
				return fmt.Errorf("own root: %w", err)
			}
			if err := unix.Setns(int(m.pidfd.Fd()), namespaces); err != nil {
				return fmt.Errorf("entering the machine: %w", err)
			}
			return do()
		}()
	}()
	return <-done
}

// Start starts a command in the machine. Its program is the host's; everything else that
// it names is the machine's.
func (m *Machine) Start(cmd *exec.Cmd) error {
	program, err := os.Open(cmd.Path)
	if err != nil {
		return err
	}
	defer program.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, program)
	cmd.Path = fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles))
	cmd.Dir = "/"
	return m.within(namespaces|unix.CLONE_NEWCGROUP, cmd.Start)
}

// Listen listens on an address of the machine.
func (m *Machine) Listen(address string) (l net.Listener, err error) {
	err = m.within(unix.CLONE_NEWNET, func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// JoinServices moves the calling process, which was started in a machine, from the
// cgroup of who started it to the machine's.
func JoinServices() error {
	cgroups, err := hierarchies()
	if err != nil {
		return err
	}
	return boot.JoinServices(cgroups)
}
