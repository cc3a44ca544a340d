package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/logs"
	"github.com/leme-k8s/leme/pkg/kubelet/objects"
	"github.com/leme-k8s/leme/pkg/kubelet/probes"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
	"github.com/leme-k8s/leme/pkg/kubelet/status"
)

// Config is how a node runs its pods.
type Config struct {
	NodeName string
	// StaticPodPath is a file, or a directory of files, of pods that need no API server; empty for none.
	StaticPodPath string
	// Limits bound the back-off of containers that keep ending.
	Limits BackoffLimits
	// UnsafeSysctls are the patterns of those that pods may set although they reach beyond them.
	UnsafeSysctls []string
	// RuntimeName is the first part of container ids: containerd, cri-o.
	RuntimeName string
}

// Dependencies are the rooms that a Manager works with.
type Dependencies struct {
	// Client is nil on a node without an API server.
	Client   kubernetes.Interface
	Runtime  *runtime.Runtime
	Observer *runtime.Observer
	Probes   *probes.Manager
	Status   *status.Writer
	Objects  *objects.Cache
	Volumes  Volumes
	Cgroups  Cgroups
	Images   Images
	// Node returns the node as pods are admitted to it.
	Node func(ctx context.Context) (*v1.Node, error)
	// Handler names the runtime handler of a pod's RuntimeClass.
	Handler  func(ctx context.Context, pod *v1.Pod) (string, error)
	Recorder record.EventRecorder
	// Pressure refuses pods that a node under pressure does not take; nil takes all. Its error may have a Reason.
	Pressure func(pod *v1.Pod) error
	// Ready is closed once pods of the API can be started: what they see of the cluster is known.
	Ready <-chan struct{}
}

// A Manager runs the pods of a node.
type Manager struct {
	Config
	Dependencies

	running sync.WaitGroup
	again   chan struct{}   // asks the watcher to look at everything
	base    context.Context // of status writes and probes, which outlive a worker's step

	admitting sync.Mutex // from the look at the pods that are there until the new one is

	mu      sync.Mutex
	workers map[types.UID]*worker
	mirrors map[types.NamespacedName]*v1.Pod // by static pod's name
	synced  map[string]bool                  // sources that have told all they know
	swept   bool
}

// The sources of pods.
const (
	sourceAPI  = "api"
	sourceFile = "file"
)

// NewManager returns a Manager that runs nothing yet. Some of the rooms that it depends on are
// told of it, so its Dependencies are set afterwards, before Run.
func NewManager(c Config) *Manager {
	return &Manager{
		Config: c, again: make(chan struct{}, 1), workers: map[types.UID]*worker{},
		mirrors: map[types.NamespacedName]*v1.Pod{}, synced: map[string]bool{},
	}
}

// Run runs pods until ctx is cancelled. Containers outlive it.
func (m *Manager) Run(ctx context.Context) error {
	m.base = ctx
	if m.StaticPodPath != "" {
		m.running.Go(func() { m.watchFiles(ctx) })
	} else {
		m.synced[sourceFile] = true
	}
	if m.Client != nil {
		m.running.Go(func() { m.watchAPI(ctx) })
	} else {
		m.synced[sourceAPI] = true
	}
	watcher := &runtime.Watcher{
		CRI: m.Runtime.CRI, Observer: m.Observer, Relist: 30 * time.Second, Again: m.again,
		Changed: m.Wake,
		Listed:  func(states map[types.UID]*runtime.State, err error) { m.listed(ctx, states, err) },
	}
	m.running.Go(func() { watcher.Run(ctx) })
	<-ctx.Done()
	m.running.Wait()
	return nil
}

// ctx is the context of what goes on when a worker's step has ended.
func (m *Manager) ctx(fallback context.Context) context.Context {
	if m.base != nil {
		return m.base
	}
	return fallback
}

// Wake has a pod looked at anew.
func (m *Manager) Wake(uid types.UID) {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w != nil {
		w.poke()
	}
}

// Refresh has a pod's volumes brought up to date: an object that it refers to has changed.
func (m *Manager) Refresh(uid types.UID) {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w != nil {
		w.mu.Lock()
		w.stale, w.renewed = true, true
		w.mu.Unlock()
		w.poke()
	}
}

// set makes a pod desired, in its newest version.
func (m *Manager) set(ctx context.Context, pod *v1.Pod) {
	if runtime.IsMirror(pod) {
		m.setMirror(ctx, pod)
		return
	}
	m.mu.Lock()
	w := m.workers[pod.UID]
	m.mu.Unlock()
	if w != nil {
		w.update(pod)
		if w.ended() == nil {
			m.Objects.SetPod(m.ctx(ctx), pod)
		}
		return
	}
	m.admitting.Lock()
	defer m.admitting.Unlock()
	w = newWorker(m, pod)
	switch {
	case pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed:
		w.end = &End{
			Grace: Grace(pod), Since: time.Now(), Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: pod.Status.Message,
			Rejected: len(pod.Status.ContainerStatuses) == 0,
		}
	case pod.DeletionTimestamp != nil:
		w.end = &End{Grace: max(Grace(pod), 1), Since: time.Now()}
	default:
		if rejected := m.admit(ctx, pod); rejected != nil {
			m.Recorder.Event(pod, v1.EventTypeWarning, rejected.Reason, rejected.Message)
			w.end = &End{Phase: v1.PodFailed, Reason: rejected.Reason, Message: "Pod was rejected: " + rejected.Message, Since: time.Now(), Rejected: true}
		} else {
			m.Objects.SetPod(m.ctx(ctx), pod)
		}
	}
	m.begin(ctx, w)
}

func (m *Manager) begin(ctx context.Context, w *worker) {
	m.mu.Lock()
	m.workers[w.uid] = w
	m.mu.Unlock()
	m.running.Go(func() { w.run(ctx) })
}

// unset ends a pod that its source has no more.
func (m *Manager) unset(pod *v1.Pod) {
	if runtime.IsMirror(pod) {
		m.unsetMirror(pod)
		return
	}
	m.mu.Lock()
	w := m.workers[pod.UID]
	m.mu.Unlock()
	if w != nil {
		w.update(pod)
		w.remove()
	}
}

// forget drops a worker whose pod has no trace left.
func (m *Manager) forget(w *worker) {
	m.mu.Lock()
	delete(m.workers, w.uid)
	m.mu.Unlock()
	m.Probes.Forget(w.uid)
	m.Objects.ForgetPod(w.uid)
	m.Images.Forget(w.uid)
}

// all returns the workers in a snapshot.
func (m *Manager) all() []*worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.workers))
}

// sourced notes that a source has told all it knows.
func (m *Manager) sourced(source string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.synced[source] {
		return
	}
	m.synced[source] = true
	select {
	case m.again <- struct{}{}: // now it shows what nobody wants
	default:
	}
}

func (m *Manager) allSynced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced[sourceAPI] && m.synced[sourceFile]
}

// listed compares everything that the runtime has with what the workers have last seen.
func (m *Manager) listed(ctx context.Context, states map[types.UID]*runtime.State, err error) {
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot list what the runtime has")
		return
	}
	known := map[types.UID]bool{}
	for _, w := range m.all() {
		known[w.uid] = true
		w.mu.Lock()
		same := sameState(w.state, states[w.uid])
		w.mu.Unlock()
		if !same {
			w.poke()
		}
	}
	if !m.allSynced() {
		return
	}
	for uid, state := range states {
		if !known[uid] {
			m.orphan(ctx, state)
		}
	}
	m.sweep(ctx)
}

func sameState(a, b *runtime.State) bool {
	if a == nil || b == nil {
		return (a == nil || len(a.Containers)+len(a.Sandboxes) == 0) && (b == nil || len(b.Containers)+len(b.Sandboxes) == 0)
	}
	return slices.EqualFunc(a.Sandboxes, b.Sandboxes, func(x, y runtime.Sandbox) bool { return x.ID == y.ID && x.Ready == y.Ready }) &&
		slices.EqualFunc(a.Containers, b.Containers, func(x, y runtime.Container) bool { return x.ID == y.ID && x.State == y.State })
}

// orphan ends a pod that runs although nobody wants it: it was deleted while no kubelet ran.
func (m *Manager) orphan(ctx context.Context, state *runtime.State) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: state.UID, Namespace: state.Namespace, Name: state.Name}}
	klog.FromContext(ctx).Info("Ending a pod that is not desired", "pod", klog.KObj(pod), "uid", pod.UID)
	w := newWorker(m, pod)
	w.end, w.removed = &End{Grace: 1, Since: time.Now()}, true
	m.begin(ctx, w)
}

// sweep removes directories, cgroups and logs of pods that left nothing in the runtime: once, when all sources
// are known; what pods leave later their workers remove.
func (m *Manager) sweep(ctx context.Context) {
	m.mu.Lock()
	swept := m.swept
	m.swept = true
	m.mu.Unlock()
	if swept {
		return
	}
	logger := klog.FromContext(ctx)
	gone := map[types.UID]bool{}
	for _, list := range []func() ([]types.UID, error){m.Volumes.UIDs, m.Cgroups.UIDs} {
		uids, err := list()
		if err != nil {
			logger.Error(err, "Cannot list what earlier pods have left")
		}
		for _, uid := range uids {
			gone[uid] = true
		}
	}
	for _, w := range m.all() {
		delete(gone, w.uid)
	}
	for uid := range gone {
		if err := m.Volumes.Unmount(ctx, uid); err != nil {
			logger.Error(err, "Cannot remove the volumes of an earlier pod", "uid", uid)
			continue
		}
		if err := m.Cgroups.Remove(ctx, uid); err != nil {
			logger.Error(err, "Cannot remove the cgroup of an earlier pod", "uid", uid)
		}
	}
	if err := logs.Clean(m.Runtime.LogDir, runtime.ContainerLogsDir, m.known); err != nil {
		logger.Error(err, "Cannot remove the logs of earlier pods")
	}
}

func (m *Manager) known(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.workers[uid] != nil
}

// RemoveDead removes all containers of pods that have ended, with their logs: the disk is worth more.
func (m *Manager) RemoveDead(ctx context.Context) error {
	var errs []error
	for _, w := range m.all() {
		w.mu.Lock()
		state, over := w.state, w.over
		w.mu.Unlock()
		if !over {
			continue
		}
		for i := range state.Containers {
			errs = append(errs, m.Runtime.RemoveContainer(ctx, state, &state.Containers[i]))
		}
		w.poke()
	}
	return errors.Join(errs...)
}

// apiPod is the pod's object in the API: of a static pod, its mirror; nil if there is none.
func (m *Manager) apiPod(pod *v1.Pod) *v1.Pod {
	if !runtime.IsStatic(pod) {
		if pod.ResourceVersion == "" {
			return nil // an orphan
		}
		return pod
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mirrors[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
}

// Pods returns the desired pods with their latest statuses.
func (m *Manager) Pods() []*v1.Pod {
	var out []*v1.Pod
	for _, w := range m.all() {
		if pod := w.desired(); pod != nil {
			out = append(out, pod)
		}
	}
	return out
}

// Pod returns a desired pod with its latest status.
func (m *Manager) Pod(uid types.UID) (*v1.Pod, bool) {
	m.mu.Lock()
	w := m.workers[uid]
	if w == nil {
		// Clients know a static pod by its mirror.
		for name, mirror := range m.mirrors {
			if mirror.UID == uid {
				m.mu.Unlock()
				return m.PodByName(name.Namespace, name.Name)
			}
		}
	}
	m.mu.Unlock()
	if w == nil {
		return nil, false
	}
	pod := w.desired()
	return pod, pod != nil
}

// PodByName returns a desired pod with its latest status. Of several pods of a name, one that has not ended.
func (m *Manager) PodByName(namespace, name string) (*v1.Pod, bool) {
	var found *v1.Pod
	for _, w := range m.all() {
		pod := w.desired()
		if pod == nil || pod.Namespace != namespace || pod.Name != name {
			continue
		}
		if found == nil || pod.DeletionTimestamp == nil {
			found = pod
		}
	}
	return found, found != nil
}

func (w *worker) desired() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.removed && w.pod.ResourceVersion == "" && !runtime.IsStatic(w.pod) {
		return nil
	}
	return withStatus(w.pod, w.status.DeepCopy())
}

func (w *worker) ended() *End {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end
}

func (m *Manager) observed(uid types.UID) *runtime.State {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// ContainerID returns CRI's id of a pod's newest container of a name.
func (m *Manager) ContainerID(uid types.UID, container string) (string, bool) {
	c := m.observed(uid).Newest(container)
	if c == nil {
		return "", false
	}
	return c.ID, true
}

// SandboxID returns CRI's id of a pod's newest sandbox.
func (m *Manager) SandboxID(uid types.UID) (string, bool) {
	state := m.observed(uid)
	if state == nil || len(state.Sandboxes) == 0 {
		return "", false
	}
	return state.Sandboxes[0].ID, true
}

// ContainerLog returns the path of a container's log, or of the one before, and the container's id.
func (m *Manager) ContainerLog(uid types.UID, container string, previous bool) (path, id string, err error) {
	state := m.observed(uid)
	c := state.Newest(container)
	if c != nil && c.State == runtime.Created {
		if last := state.Previous(container); last != nil {
			c = last
		}
	}
	// A container that has ended and waits to be started anew is itself the previous one.
	if previous && c != nil && !(c.State == runtime.Exited && m.restarting(uid, container)) {
		if c = state.Previous(container); c == nil {
			return "", "", fmt.Errorf("previous terminated container %q in pod %q not found", container, m.podName(uid))
		}
	}
	if c == nil {
		return "", "", fmt.Errorf("container %q in pod %q is waiting to start: %s", container, m.podName(uid), m.waiting(uid, container))
	}
	if c.LogPath != "" {
		return c.LogPath, c.ID, nil
	}
	return filepath.Join(runtime.PodLogDir(m.Runtime.LogDir, state.Namespace, state.Name, uid), container, strconv.Itoa(c.RestartCount)+".log"), c.ID, nil
}

func (m *Manager) podName(uid types.UID) string {
	if pod, ok := m.Pod(uid); ok {
		return pod.Name
	}
	return string(uid)
}

// restarting reports whether a container has ended and is to be started again.
func (m *Manager) restarting(uid types.UID, container string) bool {
	pod, ok := m.Pod(uid)
	if !ok {
		return false
	}
	st := containerStatus(&pod.Status, container)
	return st != nil && st.State.Waiting != nil
}

// waiting says what a container without a log is waiting for.
func (m *Manager) waiting(uid types.UID, container string) string {
	pod, ok := m.Pod(uid)
	if !ok {
		return "pod not found"
	}
	st := containerStatus(&pod.Status, container)
	if st == nil || st.State.Waiting == nil {
		return "ContainerCreating"
	}
	switch r := st.State.Waiting.Reason; r {
	case "ErrImagePull":
		return "image can't be pulled"
	case "ImagePullBackOff":
		return "trying and failing to pull image"
	default:
		return r
	}
}

// Eviction says why the node ends a pod.
type Eviction struct {
	Reason, Message string
	// Grace replaces the pod's own grace period.
	Grace *int64
	// Conditions are set in the pod's status, DisruptionTarget among them.
	Conditions []v1.PodCondition
}

// Evict ends a pod as failed. It returns false if there is no such pod, or it has ended already.
func (m *Manager) Evict(uid types.UID, e Eviction) bool {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w == nil || w.ended() != nil {
		return false
	}
	w.mu.Lock()
	grace := Grace(w.pod)
	w.mu.Unlock()
	if e.Grace != nil {
		grace = *e.Grace
	}
	w.finish(End{Grace: grace, Since: time.Now(), Phase: v1.PodFailed, Reason: e.Reason, Message: e.Message}, e.Conditions)
	return true
}
