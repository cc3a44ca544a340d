package eviction

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/kubelet/pods"
)

// Pods are the node's pods, which it can end.
type Pods interface {
	Pods() []*corev1.Pod
	Pod(uid types.UID) (*corev1.Pod, bool)
	Evict(uid types.UID, e pods.Eviction) bool
}

// Stats measures pods.
type Stats interface {
	Summary(ctx context.Context, onlyCPUAndMemory bool) (*api.Summary, error)
}

// Config is what the node must keep, and by what means.
type Config struct {
	Thresholds []Threshold
	// Transition is how long a condition stays after its cause has gone.
	Transition time.Duration
	// MaxGrace caps a pod's grace period, in seconds, where a soft threshold ends it.
	MaxGrace int64
	// Observe measures the node. What it cannot measure is left out.
	Observe func(ctx context.Context) map[Signal]Observation
	// FreeDisk removes what nobody needs from the disk: dead containers, unused images.
	FreeDisk func(ctx context.Context) error

	Pods     Pods
	Stats    Stats
	Recorder record.EventRecorder
	Clock    clock.WithTicker
}

// Period is how often the node is looked at. It costs a few small files.
const Period = 10 * time.Second

// patience is how long the node waits for an evicted pod to be gone before it takes another.
const patience = 30 * time.Second

// Manager watches over the node.
type Manager struct {
	cfg     Config
	changed chan struct{}
	metrics managerMetrics

	mu       sync.Mutex
	state    State
	decision Decision
	since    map[corev1.NodeConditionType]time.Time // of the condition's last change

	// evicting is the pod whose end the node waits for.
	evicting      types.UID
	evictingSince time.Time
}

// New returns a Manager that has seen nothing.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, changed: make(chan struct{}, 1), metrics: newMetrics(), since: map[corev1.NodeConditionType]time.Time{}}
}

// Run watches until ctx is done.
func (m *Manager) Run(ctx context.Context) {
	ticker := m.cfg.Clock.NewTicker(Period)
	defer ticker.Stop()
	for {
		m.Look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// Look measures, decides and acts once. It is not safe for concurrent use.
func (m *Manager) Look(ctx context.Context) {
	began := m.cfg.Clock.Now()
	seen, d := m.decide(ctx)
	if m.waiting() {
		return
	}
	if m.enforceLimits(ctx) || len(d.Act) == 0 {
		return
	}
	t := d.Act[0]
	logger := klog.FromContext(ctx)
	logger.Info("The node runs short", "signal", t.Signal, "available", seen[t.Signal].Available)
	if about[t.Signal].condition == corev1.NodeDiskPressure {
		if err := m.cfg.FreeDisk(ctx); err != nil {
			logger.Error(err, "Freeing disk failed")
		}
		began = m.cfg.Clock.Now()
		if seen, d = m.decide(ctx); len(d.Act) == 0 {
			return
		}
		t = d.Act[0]
	}
	all, err := m.candidates(ctx, t.Signal == MemoryAvailable || t.Signal == PIDAvailable)
	if err != nil {
		logger.Error(err, "Measuring pods failed")
		return
	}
	for _, c := range Rank(t.Signal, all) {
		if m.evict(ctx, c.Pod, message(t, seen[t.Signal], c), m.grace(t, c.Pod)) {
			m.metrics.evicted(t.Signal, m.cfg.Clock.Since(began))
			return
		}
	}
	logger.Info("The node runs short, and no pod can be ended for it", "signal", t.Signal)
}

// decide measures the node and takes over what follows.
func (m *Manager) decide(ctx context.Context) (map[Signal]Observation, Decision) {
	seen := m.cfg.Observe(ctx)
	now := m.cfg.Clock.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	var d Decision
	m.state, d = Decide(m.cfg.Thresholds, m.state, seen, now, m.cfg.Transition)
	for _, c := range conditions {
		if d.Pressure[c.kind] != m.decision.Pressure[c.kind] {
			m.since[c.kind] = now
			select {
			case m.changed <- struct{}{}:
			default:
			}
		}
	}
	m.decision = d
	return seen, d
}

// waiting says whether a pod that was evicted is still going.
func (m *Manager) waiting() bool {
	if m.evicting == "" {
		return false
	}
	pod, ok := m.cfg.Pods.Pod(m.evicting)
	gone := !ok || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
	if gone || m.cfg.Clock.Since(m.evictingSince) > patience {
		m.evicting = ""
		return false
	}
	return true
}

// enforceLimits ends pods that use more of the disk than they said they would. It
// costs nothing while no pod has such a limit.
func (m *Manager) enforceLimits(ctx context.Context) (evicted bool) {
	limited := false
	for _, p := range m.cfg.Pods.Pods() {
		limited = limited || limitsDisk(p)
	}
	if !limited {
		return false
	}
	began := m.cfg.Clock.Now()
	all, err := m.candidates(ctx, false)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Measuring pods failed")
		return false
	}
	for _, c := range all {
		if signal, why := exceeded(c); why != "" && !critical(c.Pod) && m.evict(ctx, c.Pod, why, soon) {
			evicted = true
			m.metrics.evicted(signal, m.cfg.Clock.Since(began))
		}
	}
	return evicted
}

func (m *Manager) candidates(ctx context.Context, onlyCPUAndMemory bool) ([]Candidate, error) {
	s, err := m.cfg.Stats.Summary(ctx, onlyCPUAndMemory)
	if err != nil {
		return nil, err
	}
	byUID := map[string]*api.PodStats{}
	for i := range s.Pods {
		byUID[s.Pods[i].PodRef.UID] = &s.Pods[i]
	}
	var out []Candidate
	for _, p := range m.cfg.Pods.Pods() {
		out = append(out, Candidate{Pod: p, Stats: byUID[string(p.UID)]})
	}
	return out, nil
}

// soon is the grace period, in seconds, of a pod that the node cannot wait for.
const soon = 1

func (m *Manager) grace(t Threshold, pod *corev1.Pod) int64 {
	if !t.Soft {
		return soon
	}
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		return min(m.cfg.MaxGrace, *own)
	}
	return m.cfg.MaxGrace
}

func (m *Manager) evict(ctx context.Context, pod *corev1.Pod, message string, grace int64) bool {
	e := pods.Eviction{Reason: "Evicted", Message: message, Grace: &grace, Conditions: []corev1.PodCondition{{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: message,
		LastTransitionTime: metav1.NewTime(m.cfg.Clock.Now()),
	}}}
	if !m.cfg.Pods.Evict(pod.UID, e) {
		return false
	}
	klog.FromContext(ctx).Info("Evicted a pod", "pod", klog.KObj(pod), "because", message)
	m.cfg.Recorder.Event(pod, corev1.EventTypeWarning, "Evicted", message)
	m.evicting, m.evictingSince = pod.UID, m.cfg.Clock.Now()
	return true
}

// conditions are the three that a Node always has, with their words for well and ill.
var conditions = []struct {
	kind                                     corev1.NodeConditionType
	well, wellMessage, illReason, illMessage string
}{
	{corev1.NodeMemoryPressure, "KubeletHasSufficientMemory", "kubelet has sufficient memory available",
		"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"},
	{corev1.NodeDiskPressure, "KubeletHasNoDiskPressure", "kubelet has no disk pressure",
		"KubeletHasDiskPressure", "kubelet has disk pressure"},
	{corev1.NodePIDPressure, "KubeletHasSufficientPID", "kubelet has sufficient PID available",
		"KubeletHasInsufficientPID", "kubelet has insufficient PID available"},
}

// Conditions reports the pressure that the node is under. A condition that has not
// changed since the start has no time of change.
func (m *Manager) Conditions() []corev1.NodeCondition {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]corev1.NodeCondition, 0, len(conditions))
	for _, c := range conditions {
		n := corev1.NodeCondition{Type: c.kind, Status: corev1.ConditionFalse, Reason: c.well, Message: c.wellMessage}
		if m.decision.Pressure[c.kind] {
			n.Status, n.Reason, n.Message = corev1.ConditionTrue, c.illReason, c.illMessage
		}
		if t, ok := m.since[c.kind]; ok {
			n.LastTransitionTime = metav1.NewTime(t)
		}
		out = append(out, n)
	}
	return out
}

// Changed is signalled when a condition has changed.
func (m *Manager) Changed() <-chan struct{} { return m.changed }

// Admit says whether a new pod may start, and if not, why.
func (m *Manager) Admit(pod *corev1.Pod) error {
	m.mu.Lock()
	d := m.decision
	m.mu.Unlock()
	if ok, reason, message := d.Admit(pod); !ok {
		return &Refusal{reason: reason, message: message}
	}
	return nil
}

// A Refusal says why a pod may not start on a node under pressure.
type Refusal struct{ reason, message string }

func (r *Refusal) Error() string { return r.message }

// Reason is the reason in the pod's status.
func (r *Refusal) Reason() string { return r.reason }
