package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Config is what a Runtime needs to know.
type Config struct {
	// RootDir is the kubelet's directory (/var/lib/kubelet), LogDir the one of pods' logs,
	// LogLinkDir that of links to them (ContainerLogsDir).
	RootDir    string
	LogDir     string
	LogLinkDir string

	DNS            DNS
	Limits         Limits
	Security       Security
	DefaultSysctls map[string]string
	MaxPods        int
	// Parallel bounds how many sandboxes and containers start at the same time.
	Parallel int
}

// Dependencies are what a Runtime asks.
type Dependencies struct {
	CRI    cri.RuntimeService
	Images cri.ImageManagerService
	// Objects are Secrets and ConfigMaps for the environment.
	Objects Objects
	// Services returns the services of a namespace and `default/kubernetes`.
	Services func(namespace string) []*v1.Service
	// HostIPs are the node's addresses, Allocatable what pods may use of it.
	HostIPs     func() []string
	Allocatable func() v1.ResourceList
	// RecursiveReadOnly tells whether a runtime handler can make a mount so.
	RecursiveReadOnly func(handler string) bool
	Recorder          record.EventRecorder
}

// A Runtime makes and ends sandboxes and containers.
type Runtime struct {
	Config
	Dependencies

	users  *users
	slots  chan struct{}
	mu     sync.Mutex
	warned map[string]bool
}

// New returns a Runtime.
func New(c Config, d Dependencies) *Runtime {
	r := &Runtime{Config: c, Dependencies: d, slots: make(chan struct{}, max(c.Parallel, 1)), warned: map[string]bool{}}
	r.users = &users{podDir: r.PodDir, maxPods: c.MaxPods}
	return r
}

// PodDir is a pod's directory below the kubelet's root.
func (r *Runtime) PodDir(uid types.UID) string { return filepath.Join(r.RootDir, "pods", string(uid)) }

// PodIPs are a pod's addresses: its sandbox's, or the node's.
func (r *Runtime) PodIPs(pod *v1.Pod, sandbox *Sandbox) []string {
	if pod.Spec.HostNetwork {
		return r.HostIPs()
	}
	if sandbox == nil {
		return nil
	}
	return sandbox.IPs
}

// slot waits for one of the places for calls that keep the machine busy.
func (r *Runtime) slot(ctx context.Context) (release func(), err error) {
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// RunSandbox makes a pod's sandbox.
func (r *Runtime) RunSandbox(ctx context.Context, pod *v1.Pod, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return "", NewError(ReasonSandbox, fmt.Errorf("making the pod's log directory: %w", err))
	}
	release, err := r.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	id, err := r.CRI.RunPodSandbox(ctx, config, handler)
	if err != nil {
		return "", NewError(ReasonSandbox, err)
	}
	return id, nil
}

// Create makes a container that has not started.
func (r *Runtime) Create(ctx context.Context, req ContainerRequest) (string, error) {
	config, err := r.containerConfig(ctx, req)
	if err != nil {
		return "", NewError(ReasonContainerConfig, err)
	}
	if err := os.MkdirAll(filepath.Join(req.Config.LogDirectory, req.Container.Name), 0o755); err != nil {
		return "", NewError(ReasonContainer, fmt.Errorf("making the container's log directory: %w", err))
	}
	release, err := r.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	id, err := r.CRI.CreateContainer(ctx, req.Sandbox.ID, config, req.Config)
	if err != nil {
		return "", NewError(ReasonContainer, err)
	}
	return id, nil
}

// Start starts a created container and links its log for log collectors.
func (r *Runtime) Start(ctx context.Context, pod *v1.Pod, c *v1.Container, id string, restartCount int) error {
	release, err := r.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := r.CRI.StartContainer(ctx, id); err != nil {
		return NewError(ReasonRun, err)
	}
	link := filepath.Join(r.LogLinkDir, logLink(pod, c.Name, id))
	target := filepath.Join(PodLogDir(r.LogDir, pod.Namespace, pod.Name, pod.UID), containerLogPath(c.Name, restartCount))
	// The link only serves log collectors that look for it; a read-only /var/log must not stop the pod.
	if err := os.Symlink(target, link); errors.Is(err, os.ErrNotExist) && os.MkdirAll(r.LogLinkDir, 0o755) == nil {
		_ = os.Symlink(target, link)
	}
	return nil
}

// NextRestartCount is the restart count of a container's next incarnation: one more than that of its
// newest, or of the last that is known to have ended (-1 if none), or what its logs tell.
func (r *Runtime) NextRestartCount(pod *v1.Pod, name string, newest *Container, restarted int32) int {
	if newest != nil {
		return newest.RestartCount + 1
	}
	if restarted >= 0 {
		return int(restarted) + 1
	}
	return nextLog(filepath.Join(PodLogDir(r.LogDir, pod.Namespace, pod.Name, pod.UID), name))
}

// Update changes the resources of a running container to those that it is to have.
func (r *Runtime) Update(ctx context.Context, pod *v1.Pod, c *v1.Container, id string) error {
	if err := r.CRI.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: r.Limits.Container(pod, c)}); err != nil {
		return fmt.Errorf("changing the resources of container %q: %w", c.Name, err)
	}
	return nil
}

// UpdateSandbox tells the runtime which size a pod has now. Few runtimes need to know.
func (r *Runtime) UpdateSandbox(ctx context.Context, pod *v1.Pod, id string) error {
	req := &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: id, Resources: r.Limits.Pod(pod)}
	if pod.Spec.Overhead != nil {
		req.Overhead = r.Limits.cgroup(nil, pod.Spec.Overhead)
	}
	_, err := r.CRI.UpdatePodSandboxResources(ctx, req)
	// containerd 2.2 says so in words only.
	if code := grpcstatus.Code(err); code == codes.Unimplemented || code == codes.Unknown && err != nil && strings.Contains(err.Error(), "not implemented") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("telling the runtime of the pod's resources: %w", err)
	}
	return nil
}

// MemoryUsage is how much memory a container uses.
func (r *Runtime) MemoryUsage(ctx context.Context, id string) (uint64, error) {
	s, err := r.CRI.ContainerStats(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("reading the memory usage of container %s: %w", id, err)
	}
	if s.GetMemory().GetUsageBytes() == nil {
		return 0, fmt.Errorf("the memory usage of container %s is not known", id)
	}
	return s.Memory.UsageBytes.Value, nil
}

// Stop ends a container: it gets grace seconds to do so itself.
func (r *Runtime) Stop(ctx context.Context, id string, grace int64) error {
	err := r.CRI.StopContainer(ctx, id, grace)
	if err != nil && !IsNotFound(err) {
		return fmt.Errorf("stopping container %s: %w", id, err)
	}
	return nil
}

// StopSandbox ends a sandbox and gives back its network.
func (r *Runtime) StopSandbox(ctx context.Context, id string) error {
	if err := r.CRI.StopPodSandbox(ctx, id); err != nil && !IsNotFound(err) {
		return fmt.Errorf("stopping sandbox %s: %w", id, err)
	}
	return nil
}

// RemoveContainer removes an exited container with its logs.
func (r *Runtime) RemoveContainer(ctx context.Context, s *State, c *Container) error {
	if err := r.CRI.RemoveContainer(ctx, c.ID); err != nil && !IsNotFound(err) {
		return fmt.Errorf("removing container %s: %w", c.ID, err)
	}
	removeLogs(c.LogPath)
	r.removeLinks(c.ID)
	return nil
}

// removeLogs removes a container's log and what rotation made of it.
func removeLogs(path string) {
	if path == "" {
		return
	}
	rotated, _ := filepath.Glob(path + ".*")
	for _, p := range append(rotated, path) {
		_ = os.Remove(p)
	}
}

func (r *Runtime) removeLinks(id string) {
	links, _ := filepath.Glob(filepath.Join(r.LogLinkDir, "*-"+id+".log"))
	for _, l := range links {
		_ = os.Remove(l)
	}
}

// RemovePod removes what the runtime still has of a pod of which nothing runs, and its logs.
func (r *Runtime) RemovePod(ctx context.Context, s *State) error {
	for i := range s.Containers {
		if err := r.CRI.RemoveContainer(ctx, s.Containers[i].ID); err != nil && !IsNotFound(err) {
			return fmt.Errorf("removing container %s: %w", s.Containers[i].ID, err)
		}
		r.removeLinks(s.Containers[i].ID)
	}
	for _, b := range s.Sandboxes {
		if err := r.RemoveSandbox(ctx, b.ID); err != nil {
			return err
		}
	}
	r.users.release(s.UID)
	if s.Name == "" || s.UID == "" || strings.Contains(string(s.UID), "/") {
		return nil // never had logs
	}
	if err := os.RemoveAll(PodLogDir(r.LogDir, s.Namespace, s.Name, s.UID)); err != nil {
		return fmt.Errorf("removing the pod's logs: %w", err)
	}
	return nil
}

// RemoveSandbox removes a stopped sandbox.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	if err := r.CRI.RemovePodSandbox(ctx, id); err != nil && !IsNotFound(err) {
		return fmt.Errorf("removing sandbox %s: %w", id, err)
	}
	return nil
}

// Exec runs a command in a container and returns what it wrote.
func (r *Runtime) Exec(ctx context.Context, id string, command []string, timeout time.Duration) (string, error) {
	stdout, stderr, err := r.CRI.ExecSync(ctx, id, command, timeout)
	return string(stdout) + string(stderr), err
}

// warnOnce sends an event that would be the same on each attempt.
func (r *Runtime) warnOnce(pod *v1.Pod, reason, message string) {
	key := string(pod.UID) + reason + message
	r.mu.Lock()
	again := r.warned[key]
	r.warned[key] = true
	r.mu.Unlock()
	if !again {
		r.Recorder.Event(pod, v1.EventTypeWarning, reason, message)
	}
}
