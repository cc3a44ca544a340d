package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/component"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
	// settled is how long a service runs before its failures are forgotten.
	settled = 30 * time.Second
)

// ServiceStatus is how a part of the cluster fares.
type ServiceStatus struct {
	Name     string    `json:"name"`
	Running  bool      `json:"running"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts,omitempty"`
	// Error is what ended it last.
	Error string `json:"error,omitempty"`
	// Binary is the program that it runs from, if not inside leme.
	Binary string `json:"binary,omitempty"`
}

// A supervisor keeps services running: one that ends is started again, later and
// later while it keeps failing.
type supervisor struct {
	clock clock.WithTicker

	mu       sync.Mutex
	statuses []*ServiceStatus
}

// A service runs until ctx is cancelled; that it returns before is a failure.
type service struct {
	name, binary string
	run          func(ctx context.Context) error
}

// A group is services that end together.
type group struct {
	supervisor *supervisor
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup
}

// A task is a service that is kept running.
type task struct {
	group  *group
	status *ServiceStatus
	cancel context.CancelFunc
	done   chan struct{}
}

func (s *supervisor) group(ctx context.Context) *group {
	g := &group{supervisor: s}
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return g
}

// start keeps the service running until it is stopped or the group ends.
func (g *group) start(svc service) *task {
	t := &task{group: g, status: g.supervisor.add(svc)}
	t.run(svc)
	return t
}

func (t *task) run(svc service) {
	ctx, cancel := context.WithCancel(t.group.ctx)
	done := make(chan struct{})
	t.cancel, t.done = cancel, done
	t.group.wg.Go(func() {
		defer close(done)
		t.group.supervisor.keep(ctx, svc, t.status)
	})
}

// stop ends the service for good, and forgets it once it has ended.
func (t *task) stop(timeout time.Duration) error {
	if err := t.end(timeout); err != nil {
		return err
	}
	t.group.supervisor.remove(t.status)
	return nil
}

// replace ends the service and keeps another one running in its place.
func (t *task) replace(svc service, timeout time.Duration) error {
	if err := t.end(timeout); err != nil {
		return err
	}
	t.group.supervisor.update(func() { *t.status = ServiceStatus{Name: svc.name, Binary: svc.binary} })
	t.run(svc)
	return nil
}

// current is how the service fares.
func (t *task) current() ServiceStatus {
	t.group.supervisor.mu.Lock()
	defer t.group.supervisor.mu.Unlock()
	return *t.status
}

func (t *task) end(timeout time.Duration) error {
	t.cancel()
	select {
	case <-t.done:
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("%s did not end within %s", t.status.Name, timeout)
	}
}

// stop ends the services and waits for them, for a while.
func (g *group) stop(timeout time.Duration) error {
	g.cancel()
	done := make(chan struct{})
	go func() { g.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("services did not end within %s", timeout)
	}
}

func (s *supervisor) add(svc service) *ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := &ServiceStatus{Name: svc.name, Binary: svc.binary}
	s.statuses = append(s.statuses, status)
	return status
}

func (s *supervisor) remove(status *ServiceStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses = slices.DeleteFunc(s.statuses, func(other *ServiceStatus) bool { return other == status })
}

// list returns copies, in the order in which the services were started.
func (s *supervisor) list() []ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ServiceStatus
	for _, status := range s.statuses {
		out = append(out, *status)
	}
	return out
}

func (s *supervisor) keep(ctx context.Context, svc service, status *ServiceStatus) {
	log := klog.FromContext(ctx)
	backoff := firstBackoff
	for {
		began := s.clock.Now()
		s.update(func() { status.Running, status.Since = true, began })
		err := svc.run(ctx)
		if ctx.Err() != nil {
			s.update(func() { status.Running, status.Since = false, s.clock.Now() })
			return
		}
		if err == nil {
			err = errors.New("ended without being told to")
		}
		if s.clock.Since(began) > settled {
			backoff = firstBackoff
		}
		log.Error(err, "Service failed", "service", svc.name, "restartIn", backoff)
		s.update(func() {
			status.Running, status.Since, status.Error = false, s.clock.Now(), err.Error()
			status.Restarts++
		})
		select {
		case <-ctx.Done():
			return
		case <-s.clock.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

func (s *supervisor) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// inProcess runs a component inside this process, its log in a file of its own.
func inProcess(d dataDir, name string, options func() component.Options, args []string) service {
	return service{name: name, run: func(ctx context.Context) error {
		file := &lumberjack.Logger{Filename: d.log(name), MaxSize: 10, MaxBackups: 1}
		defer file.Close()
		ctx = klog.NewContext(ctx, textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(file))))
		runner, err := component.New(ctx, name, options(), args)
		if err != nil {
			return err
		}
		return runner.Run(ctx)
	}}
}

// fromBinary runs a program as a child that does not outlive this process.
func fromBinary(d dataDir, name, binary string, args, environment []string) service {
	return service{name: name, binary: binary, run: func(ctx context.Context) error {
		log, err := openLog(d.log(name))
		if err != nil {
			return err
		}
		defer log.Close()
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(os.Environ(), environment...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 10 * time.Second
		// The kernel sends the signal when the thread that started the child ends,
		// so that thread must stay until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w: %s", binary, err, lastWords(d.log(name)))
		}
		return nil
	}}
}

// environment marks every process of the cluster that is not in a container, for
// finding what a crash left behind.
func (d dataDir) environment() string { return "LEME_CLUSTER_PROCESS=" + string(d) }

// lastWords are the end of a log, where a program that has failed says why, and where
// there is more.
func lastWords(path string) string {
	data, _, err := readFrom(path, 0)
	line := strings.TrimSpace(lastLines(string(data), 1))
	if err != nil || line == "" {
		return "see " + path
	}
	return line + " (see " + path + ")"
}

// openLog opens a log file to append to; one that has grown large is set aside.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > 10<<20 {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
