package pods

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
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
	// Allocated is what the node has promised to its pods, Actuated what was applied of it.
	Allocated, Actuated *allocation.Store
	Images              Images
	Devices             []Devices
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

	metrics *podMetrics
	running sync.WaitGroup
	again   chan struct{} // asks the watcher to look at everything
	resizes chan struct{} // asks for a look at the resizes that wait
	swept   bool          // what earlier pods have left was looked for; the watcher's own

	admitting sync.Mutex // from the look at the pods that are there until the new one is

	mu      sync.Mutex
	base    context.Context // of status writes and probes, which outlive a worker's step
	workers map[types.UID]*worker
	mirrors map[types.NamespacedName]*v1.Pod // by static pod's name
	synced  map[string]bool                  // sources that have told all they know
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
		Config: c, metrics: newMetrics(), again: make(chan struct{}, 1), resizes: make(chan struct{}, 1), workers: map[types.UID]*worker{},
		mirrors: map[types.NamespacedName]*v1.Pod{}, synced: map[string]bool{},
	}
}

// Run runs pods until ctx is cancelled. Containers outlive it.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	m.base = ctx
	m.synced[sourceFile], m.synced[sourceAPI] = m.StaticPodPath == "", m.Client == nil
	m.mu.Unlock()
	if m.StaticPodPath != "" {
		m.running.Go(func() { m.watchFiles(ctx) })
	}
	if m.Client != nil {
		m.running.Go(func() { m.watchAPI(ctx) })
	}
	watcher := &runtime.Watcher{
		CRI: m.Runtime.CRI, Observer: m.Observer, Relist: 30 * time.Second, Again: m.again,
		Changed: m.Wake, Metrics: m.metrics.watcher,
		Listed: func(states map[types.UID]*runtime.State, err error) { m.listed(ctx, states, err) },
	}
	m.running.Go(func() { watcher.Run(ctx) })
	m.running.Go(func() { m.retryResizes(ctx) })
	<-ctx.Done()
	m.running.Wait()
	return nil
}

// checkTimeout is for how long a health check waits.
const checkTimeout = 5 * time.Second

// Check is the health check that the original calls syncloop: pods can be told of. It waits for as long as the request does, or a
// few seconds.
func (m *Manager) Check(r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	err := wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(context.Context) (bool, error) {
		if !m.mu.TryLock() {
			return false, nil
		}
		m.mu.Unlock()
		return true, nil
	})
	if err != nil {
		return errors.New("the manager of pods does not answer")
	}
	return nil
}

// ctx is the context of what goes on when a worker's step has ended.
func (m *Manager) ctx(fallback context.Context) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
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
	back := w != nil && w.comesBack(pod)
	m.mu.Unlock()
	if back {
		return
	}
	if w != nil {
		w.heard(pod)
		m.renew(ctx, w, pod)
		if w.ended() == nil {
			m.Objects.SetPod(m.ctx(ctx), pod)
		}
		return
	}
	m.admitting.Lock()
	defer m.admitting.Unlock()
	w = newWorker(m, pod)
	m.metrics.containersPerPod.Observe(float64(len(pod.Spec.Containers)))
	switch {
	case pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed:
		w.end = &End{
			Grace: Grace(pod), Since: time.Now(), Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: pod.Status.Message,
			Rejected: len(pod.Status.ContainerStatuses) == 0,
		}
	case pod.DeletionTimestamp != nil:
		w.end = &End{Grace: max(Grace(pod), 1), Since: time.Now()}
	default:
		given := m.allocated(pod)
		if rejected := m.admit(ctx, given); rejected != nil {
			m.Recorder.Event(pod, v1.EventTypeWarning, rejected.Reason, rejected.Message)
			m.metrics.rejections.WithLabelValues(rejectionReason(rejected.Reason)).Inc()
			w.end = &End{Phase: v1.PodFailed, Reason: rejected.Reason, Message: "Pod was rejected: " + rejected.Message, Since: time.Now(), Rejected: true}
		} else {
			m.allocate(ctx, given)
			m.Objects.SetPod(m.ctx(ctx), pod)
		}
		if given != pod {
			m.pokeResizes()
		} else {
			w.resizing.pending = nil
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
		m.Status.Forget(pod.UID)
	}
}

// forget drops a worker whose pod has no trace left.
func (m *Manager) forget(ctx context.Context, w *worker) {
	m.mu.Lock()
	delete(m.workers, w.uid)
	w.mu.Lock()
	next := w.next
	w.mu.Unlock()
	m.mu.Unlock()
	m.Probes.Forget(w.uid)
	m.Objects.ForgetPod(w.uid)
	m.Images.Forget(w.uid)
	for _, store := range []*allocation.Store{m.Allocated, m.Actuated} {
		if err := store.Remove(w.uid); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot forget the size of a pod that is gone", "uid", w.uid)
		}
	}
	if next != nil {
		m.metrics.restarted.WithLabelValues(staticLabel(next)).Inc()
		m.set(ctx, next)
	}
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
	m.pokeResizes()
}

func (m *Manager) allSynced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced[sourceAPI] && m.synced[sourceFile]
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
