package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

// Options are what `leme up` is told.
type Options struct {
	// Config is the file's content, with flags over it, defaulted and valid; or nil,
	// for a cluster that keeps its own.
	Config *v1alpha1.Cluster
	// DataDir is the cluster's data directory.
	DataDir string
	// With names binaries to run components from, this time.
	With map[string]string
	// Components can run inside this process.
	Components Components
	// Foreground runs the cluster in this process instead of a background one.
	Foreground bool
	// Timeout is how long to wait for the cluster to answer.
	Timeout time.Duration
	// Out is where progress is shown.
	Out *Reporter
}

// leastFree is the space that a cluster needs to start.
const leastFree = 512 << 20

// Up starts the cluster of a data directory, or makes one there, and returns when
// it answers; in the foreground, when it has ended. If it cannot start, what Up has
// started and made is taken away again.
func Up(ctx context.Context, o Options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("`leme up` makes network interfaces, mounts and cgroups: run it as root, for example with sudo")
	}
	d := dataDir(o.DataDir)
	fresh, made, err := checkDataDir(d)
	if err != nil {
		_ = os.RemoveAll(made) // the error is the reason for whatever this cannot do
		return err
	}
	l, pid, err := tryLock(d)
	if err != nil {
		return err
	}
	if l == nil {
		if kept, err := KeptConfig(o.DataDir); err == nil && o.Config != nil && o.Config.Nodes != 0 && o.Config.Nodes != kept.Nodes {
			return fmt.Errorf("the cluster in %s runs, with %d nodes and not %d: `leme node add` and `leme node remove` change that", d, kept.Nodes, o.Config.Nodes)
		}
		o.Out.Printf("The cluster in %s is running already (process %d).", d, pid)
		if err := follow(ctx, d, o, nil); !errors.Is(err, errHolderGone) {
			return err
		}
		return Up(ctx, o) // it was about to end
	}
	defer l.release()
	held, err := podHolders(d)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil || o.Foreground && ctx.Err() != nil {
			return
		}
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		// Even if the user has interrupted: this is what the interrupt asks for.
		if undoErr := undo(context.WithoutCancel(ctx), d, fresh, made, held); undoErr != nil {
			err = fmt.Errorf("%w; and undoing it failed: %w", err, undoErr)
		}
	}()

	var turn io.Closer = io.NopCloser(nil)
	if fresh {
		if turn, err = takeTurn(ctx); err != nil {
			return err
		}
		defer turn.Close()
	}
	s, err := prepareState(ctx, d, fresh, o)
	if err != nil {
		return err
	}
	if err := endLeftovers(ctx, d); err != nil {
		return err
	}
	if err := forgetOtherBoot(d); err != nil {
		return err
	}
	if err := checkPorts(ctx, s); err != nil {
		return err
	}
	if o.Foreground {
		if err := l.hold(os.Getpid()); err != nil {
			return err
		}
		following, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			if err := follow(following, d, o, nil); err != nil && following.Err() == nil {
				o.Out.Printf("%v", err)
			}
			turn.Close() // it runs for long
		}()
		return run(ctx, d, o.Components, o.With)
	}
	process, err := startBackground(d, l, o)
	if err != nil {
		return err
	}
	if err := follow(ctx, d, o, process); err != nil {
		process.end()
		return err
	}
	return nil
}

// checkDataDir returns whether the directory is without a cluster, and an error if
// it cannot take one; and the directory that it has made, with what is in it, or "".
func checkDataDir(d dataDir) (fresh bool, made string, err error) {
	entries, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, "", fmt.Errorf("data directory: %w", err)
	}
	if _, err := os.Stat(d.stateFile()); errors.Is(err, fs.ErrNotExist) {
		fresh = true
		for _, e := range entries {
			if e.Name() != "run" { // of a start that came to nothing
				return false, "", fmt.Errorf("data directory %s is not empty and holds no cluster of leme: name another one with --data-dir", d)
			}
		}
	}
	made = firstMissing(d.run(""))
	if err := os.MkdirAll(d.run(""), 0o755); err != nil {
		return false, made, fmt.Errorf("data directory %s cannot be written to: %w", d, unwrapPath(err))
	}
	f, err := os.CreateTemp(d.run(""), "check-*")
	if err == nil {
		_, err = f.Write(make([]byte, 4096))
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return false, made, fmt.Errorf("data directory %s cannot be written to: %w", d, unwrapPath(err))
	}
	var st unix.Statfs_t
	if err := unix.Statfs(string(d), &st); err != nil {
		return false, made, fmt.Errorf("data directory %s: %w", d, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < leastFree {
		return false, made, fmt.Errorf("the file system of %s has only %d MiB free, a cluster needs %d MiB: make room, or name another directory with --data-dir", d, free>>20, leastFree>>20)
	}
	return fresh, made, nil
}

// firstMissing is the first directory of a path that does not exist, or "".
func firstMissing(path string) string {
	missing := ""
	for ; ; path = filepath.Dir(path) {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return missing
		}
		missing = path
	}
}

// unwrapPath leaves out the path of an error that names one already.
func unwrapPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// prepareState loads or makes the cluster's state, checks that it can be run, and saves it.
func prepareState(ctx context.Context, d dataDir, fresh bool, o Options) (*State, error) {
	var s *State
	var err error
	if fresh {
		ranges, err := usedRanges()
		if err != nil {
			return nil, err
		}
		tables, err := usedTables(ctx)
		if err != nil {
			return nil, err
		}
		if s, err = newState(*o.Config, host{portFree: portFree, inUse: ranges, tables: tables}); err != nil {
			return nil, err
		}
	} else {
		if s, err = loadState(d); err != nil {
			return nil, err
		}
		if o.Config != nil {
			if err := s.update(*o.Config); err != nil {
				return nil, err
			}
		}
	}
	if s.Config.RuntimeDir == "" {
		if s.Config.RuntimeDir, err = besideProgram("runtime"); err != nil {
			return nil, err
		}
	}
	if s.Config.ImagesDir == "" {
		if s.Config.ImagesDir, err = besideProgram("images"); err != nil {
			return nil, err
		}
	}
	if s.NodeCIDR == "" { // made before there were further nodes
		ranges, err := usedRanges()
		if err != nil {
			return nil, err
		}
		if err := s.chooseNodeCIDR(s.Config.Networking.NodeCIDR, ranges); err != nil {
			return nil, err
		}
	}
	s.Config.Nodes = 1 + len(s.Nodes)
	if err := checkRuntime(s.Config.RuntimeDir, len(s.Nodes) > 0); err != nil {
		return nil, err
	}
	if err := checkImages(s.Config.ImagesDir); err != nil {
		return nil, err
	}
	for _, node := range append([]string{s.Config.Node.Name}, s.nodeNames()...) {
		for _, name := range v1alpha1.Components {
			if err := checkProgram(o.Components, name, s.binary(node, name, o.With)); err != nil {
				return nil, err
			}
		}
	}
	return s, s.save()
}

// checkProgram is an error if a component cannot run from a binary, or inside leme if
// that is "".
func checkProgram(components Components, name, binary string) error {
	if binary == "" && components[name] == nil {
		return fmt.Errorf("%s is not part of this leme: name a binary with --with %s=PATH", name, name)
	}
	if binary == "" {
		return nil
	}
	if _, err := exec.LookPath(binary); err != nil {
		return fmt.Errorf("binary of %s: %w", name, err)
	}
	return nil
}

func checkImages(dir string) error {
	r, err := openRegistry(dir)
	if err != nil {
		return err
	}
	defer r.close()
	for _, image := range []string{pauseImage, corednsImage} {
		if !r.has(image) {
			return fmt.Errorf("image %s is missing from %s: `make images` builds it, and --images-dir names another place", image, dir)
		}
	}
	return nil
}

// lastOfProcess is how long a process that is ending may still hold a port after it
// can no longer be recognized: the kernel takes its memory first.
const lastOfProcess = time.Second

// checkPorts names the first port of the cluster that somebody else has, and keeps.
func checkPorts(ctx context.Context, s *State) error {
	waiting, cancel := context.WithTimeout(ctx, lastOfProcess)
	defer cancel()
	for _, p := range s.Ports.all() {
		if p.number == &s.Ports.Etcd && len(s.Config.Etcd.Servers) > 0 {
			continue
		}
		if err := poll(waiting, func() (bool, error) { return portFree(*p.number), nil }); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("port %d, which the cluster has for %s, is in use by another program: end that program", *p.number, p.use)
		}
	}
	return nil
}

// A process is the background process, while its parent watches.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startBackground starts the process that runs the cluster. It takes over the lock.
func startBackground(d dataDir, l *lock, o Options) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.path("log"), 0o700); err != nil {
		return nil, err
	}
	log, err := openLog(d.log("leme"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{"run", "--data-dir", string(d)}
	for name, binary := range o.With {
		args = append(args, "--with", name+"="+binary)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{l.file}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "KUBECONFIG=") }), d.environment())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.done) }() // how it ended is in its log
	return p, l.hold(cmd.Process.Pid)
}

// inheritedLock is the lock's file descriptor in the background process.
const inheritedLock = 3

// RunBackground is the background process of Up. It keeps the lock for as long as it lives.
func RunBackground(ctx context.Context, dir string, components Components, with map[string]string) error {
	d := dataDir(dir)
	l := &lock{file: os.NewFile(inheritedLock, d.lockFile())}
	if err := unix.Flock(inheritedLock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("this command is started by `leme up` alone: %w", err)
	}
	unix.CloseOnExec(inheritedLock)
	defer l.release()
	if err := os.RemoveAll(d.failureFile()); err != nil {
		return err
	}
	err := run(ctx, d, components, with)
	if err != nil {
		klog.FromContext(ctx).Error(err, "The cluster has ended")
		err = errors.Join(err, writeFile(d.failureFile(), []byte(err.Error()), 0o600))
	}
	return err
}

// end ends the process, in order if it can.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// errHolderGone is why a process that runs the cluster cannot be followed any more.
var errHolderGone = errors.New("the process of the cluster has ended")

// follow shows the progress of a start until the cluster answers. process is nil if
// another one has started it.
func follow(ctx context.Context, d dataDir, o Options, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("the cluster did not answer within %s", o.Timeout))
	defer cancel()
	var ended chan struct{}
	if p != nil {
		ended = p.done
	}
	shown := map[string]bool{}
	var last *Status
	for {
		s, err := fetchStatus(ctx, d)
		if err == nil {
			last = s
			for _, step := range s.Steps {
				if step.Done && !shown[step.Name] {
					shown[step.Name] = true
					o.Out.Step(step.Name, step.Took)
				}
			}
			o.Out.Waiting(s)
			if s.Failed != "" {
				return errors.New(s.Failed)
			}
			if s.Ready {
				o.Out.Done()
				return announce(d, s, o.Out)
			}
		} else if p == nil && noneAnswers(err) {
			if l, _, err := tryLock(d); err == nil && l != nil {
				l.release()
				return errHolderGone
			}
		}
		select {
		case <-ended:
			if reason, err := os.ReadFile(d.failureFile()); err == nil {
				return errors.New(string(reason))
			}
			return fmt.Errorf("the process of the cluster has ended, see %s", d.log("leme"))
		case <-ctx.Done():
			o.Out.Done()
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return errors.New("interrupted")
			}
			return fmt.Errorf("%w%s", context.Cause(ctx), whatIsMissing(last))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// whatIsMissing says what a start still waits for, and the errors of what fails.
func whatIsMissing(s *Status) string {
	if s == nil {
		return ""
	}
	var out []string
	for _, step := range s.Steps {
		if !step.Done {
			out = append(out, "waits for "+step.Name)
		}
	}
	for _, svc := range s.Services {
		if !svc.Running || svc.Restarts > 0 {
			out = append(out, svc.Name+": "+svc.Error)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, "; ") + ")"
}

// announce gives the user the context of the cluster.
func announce(d dataDir, s *Status, out *Reporter) error {
	path, err := mergeKubeconfig(d)
	if err != nil {
		return err
	}
	out.Printf("Cluster %s answers at %s after %s; it is the current context of %s.", s.Name, s.Server, lastStep(s).Round(time.Millisecond), path)
	return nil
}

func lastStep(s *Status) time.Duration {
	var last time.Duration
	for _, step := range s.Steps {
		last = max(last, step.Took)
	}
	return last
}

// undo takes away what a failed start has made: everything of a new cluster, and of an
// old one what did not run before: held says which nodes held pods.
func undo(ctx context.Context, d dataDir, fresh bool, made string, held map[string]bool) error {
	if fresh {
		if err := remove(ctx, d, io.Discard); err != nil {
			return err
		}
		return os.RemoveAll(made)
	}
	if err := endLeftovers(ctx, d); err != nil {
		return err
	}
	s, err := loadState(d)
	if err != nil {
		return err
	}
	for _, f := range s.Nodes {
		if held[f.Name] {
			continue
		}
		if err := killNode(ctx, s, f); err != nil {
			return err
		}
	}
	if held[thisMachine] {
		return nil
	}
	if err := endPods(ctx, d, s, podEnd{}); err != nil {
		return err
	}
	return endProcesses(ctx, d, func(p clusterProcess) bool { return p.pod && p.node == thisMachine })
}

// thisMachine is, as the node of a process, the cluster's first one.
const thisMachine = ""

// podHolders are the nodes that hold pods.
func podHolders(d dataDir) (map[string]bool, error) {
	processes, err := clusterProcesses(d)
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	for _, p := range processes {
		if p.shim {
			held[p.node] = true
		}
	}
	return held, nil
}
