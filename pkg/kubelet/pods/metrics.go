package pods

import (
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// podMetrics are what is counted and timed of the node's pods.
type podMetrics struct {
	watcher *runtime.WatcherMetrics

	workerDuration               *metrics.HistogramVec
	workerStart                  *metrics.Histogram
	start, startTotal, startSLI  *metrics.Histogram
	containersPerPod             *metrics.Histogram
	rejections                   *metrics.CounterVec
	restarted                    *metrics.CounterVec
	orphans                      *metrics.Counter
	cleaned, uncleaned           *metrics.Gauge
	started, startErrors         *metrics.Counter
	userStarted, userStartErrors *metrics.Counter
	containers, containerErrors  *metrics.CounterVec
	imagesWanted                 *metrics.Counter
	imagesMounted, imagesFailed  *metrics.Counter
	fallbacks, cutSleeps         *metrics.Counter
}

// startBuckets are for what takes a pod from half a second to an hour.
var startBuckets = []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}

func newMetrics() *podMetrics {
	beta := func(name, help string) *metrics.Counter {
		return metrics.NewCounter(&metrics.CounterOpts{Name: name, Help: help, StabilityLevel: metrics.BETA})
	}
	return &podMetrics{
		watcher: runtime.NewWatcherMetrics(),
		workerDuration: metric.HistogramVec("kubelet_pod_worker_duration_seconds", "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
			metrics.DefBuckets, "operation_type"),
		workerStart: metric.Histogram("kubelet_pod_worker_start_duration_seconds", "Duration in seconds from kubelet seeing a pod to starting a worker.", metrics.DefBuckets),
		start:       metric.Histogram("kubelet_pod_start_duration_seconds", "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run", startBuckets),
		startTotal: metric.Histogram("kubelet_pod_start_total_duration_seconds",
			"Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", startBuckets),
		startSLI: metric.Histogram("kubelet_pod_start_sli_duration_seconds",
			"Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", startBuckets),
		containersPerPod: metric.Histogram("kubelet_containers_per_pod_count", "The number of containers per pod.", metrics.ExponentialBuckets(1, 2, 5)),
		rejections:       metric.CounterVec("kubelet_admission_rejections_total", "Cumulative number pod admission rejections by the Kubelet.", "reason"),
		restarted: metric.CounterVec("kubelet_restarted_pods_total",
			"Number of pods that have been restarted because they were deleted and recreated with the same UID while the kubelet was watching them (common for static pods, extremely uncommon for API pods)", "static"),
		orphans: metric.Counter("kubelet_orphaned_runtime_pods_total",
			"Number of pods that have been detected in the container runtime without being already known to the pod worker. This typically indicates the kubelet was restarted while a pod was force deleted in the API or in the local configuration, which is unusual."),
		cleaned:         metric.Gauge("kubelet_orphan_pod_cleaned_volumes", "The total number of orphaned Pods whose volumes were cleaned in the last periodic sweep."),
		uncleaned:       metric.Gauge("kubelet_orphan_pod_cleaned_volumes_errors", "The number of orphaned Pods whose volumes failed to be cleaned in the last periodic sweep."),
		started:         metric.Counter("kubelet_started_pods_total", "Cumulative number of pods started"),
		startErrors:     metric.Counter("kubelet_started_pods_errors_total", "Cumulative number of errors when starting pods"),
		userStarted:     metric.Counter("kubelet_started_user_namespaced_pods_total", "Cumulative number of pods with user namespaces started. This metric will only be collected on Linux."),
		userStartErrors: metric.Counter("kubelet_started_user_namespaced_pods_errors_total", "Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux."),
		containers:      metric.CounterVec("kubelet_started_containers_total", "Cumulative number of containers started", "container_type"),
		containerErrors: metric.CounterVec("kubelet_started_containers_errors_total", "Cumulative number of errors when starting containers", "container_type", "code"),
		imagesWanted:    beta("kubelet_image_volume_requested_total", "Number of requested image volumes."),
		imagesMounted:   beta("kubelet_image_volume_mounted_succeed_total", "Number of successful image volume mounts."),
		imagesFailed:    beta("kubelet_image_volume_mounted_errors_total", "Number of failed image volume mounts."),
		fallbacks:       metric.Counter("kubelet_lifecycle_handler_http_fallbacks_total", "The number of times lifecycle handlers successfully fell back to http from https."),
		cutSleeps:       metric.Counter("kubelet_sleep_action_terminated_early_total", "The number of times lifecycle sleep handler got terminated before it finishes"),
	}
}

// RegisterMetrics implements metric.Room.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) {
	own := m.metrics
	own.watcher.RegisterMetrics(r)
	r.MustRegister(own.workerDuration, own.workerStart, own.start, own.startTotal, own.startSLI, own.containersPerPod, own.rejections, own.restarted, own.orphans,
		own.cleaned, own.uncleaned, own.started, own.startErrors, own.userStarted, own.userStartErrors, own.containers, own.containerErrors,
		own.imagesWanted, own.imagesMounted, own.imagesFailed, own.fallbacks, own.cutSleeps)
	for _, static := range []string{"", "true"} {
		own.restarted.WithLabelValues(static).Add(0)
	}
	r.CustomMustRegister(metric.OnDemand(m.count,
		metric.Family{Name: "kubelet_running_pods", Help: "Number of pods that have a running pod sandbox"},
		metric.Family{Name: "kubelet_running_containers", Help: "Number of containers currently running", Labels: []string{"container_state"}},
		metric.Family{Name: "kubelet_desired_pods", Help: "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.", Labels: []string{"static"}},
		metric.Family{Name: "kubelet_active_pods", Help: "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.", Labels: []string{"static"}},
		metric.Family{Name: "kubelet_mirror_pods", Help: "The number of mirror pods the kubelet will try to create (one per admitted static pod)"},
		metric.Family{Name: "kubelet_working_pods", Labels: []string{"lifecycle", "config", "static"},
			Help: "Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible."},
		metric.Family{Name: "kubelet_managed_ephemeral_containers", Help: "Current number of ephemeral containers in pods managed by this kubelet."},
		metric.Family{Name: "kubelet_pod_in_progress_resizes", Help: "Number of in-progress resizes for pods."},
		metric.Family{Name: "kubelet_pod_pending_resizes", Labels: []string{"reason", "priority_bucket"},
			Help: "Number of pending resizes for pods. Label 'priority_bucket' classifies the pod priority (system-critical: >=2000000000, high: 100000..1999999999, medium: 1..99999, normal: 0/default, low: -999..-1, very-low: <=-1000, unknown: nil pod). Label 'reason' describes the state (deferred, infeasible)."},
	))
}

// count looks at all pods and says how many there are of each kind.
func (m *Manager) count(emit metric.Emit) {
	type key struct{ name, a, b, c string }
	n := map[key]float64{}
	for _, name := range []string{"kubelet_running_pods", "kubelet_mirror_pods", "kubelet_managed_ephemeral_containers", "kubelet_pod_in_progress_resizes"} {
		n[key{name: name}] = 0
	}
	for _, static := range []string{"", "true"} {
		n[key{name: "kubelet_desired_pods", a: static}], n[key{name: "kubelet_active_pods", a: static}] = 0, 0
	}
	for _, lifecycle := range []string{"sync", "terminating", "terminated"} {
		for _, static := range []string{"", "true"} {
			n[key{"kubelet_working_pods", lifecycle, "desired", static}], n[key{"kubelet_working_pods", lifecycle, "orphan", static}] = 0, 0
		}
		n[key{"kubelet_working_pods", lifecycle, "runtime_only", "unknown"}] = 0
	}
	for _, w := range m.all() {
		w.mu.Lock()
		s := w.standing()
		pod, state, resizing := w.pod, w.state, w.resizing
		rejected := w.end != nil && w.end.Rejected
		w.mu.Unlock()
		if slices.ContainsFunc(state.Sandboxes, func(b runtime.Sandbox) bool { return b.Ready }) {
			n[key{name: "kubelet_running_pods"}]++
		}
		for _, c := range state.Containers {
			n[key{name: "kubelet_running_containers", a: string(c.State)}]++
		}
		n[key{"kubelet_working_pods", s.lifecycle, s.config, s.static}]++
		if s.config != "desired" {
			continue
		}
		n[key{name: "kubelet_desired_pods", a: s.static}]++
		if s.lifecycle == "sync" {
			n[key{name: "kubelet_active_pods", a: s.static}]++
		}
		if s.static == "true" && m.Client != nil && !rejected {
			n[key{name: "kubelet_mirror_pods"}]++
		}
		n[key{name: "kubelet_managed_ephemeral_containers"}] += float64(len(pod.Spec.EphemeralContainers))
		if resizing.progress != nil {
			n[key{name: "kubelet_pod_in_progress_resizes"}]++
		}
		if p := resizing.pending; p != nil {
			n[key{name: "kubelet_pod_pending_resizes", a: strings.ToLower(p.Reason), b: priorityBucket(pod)}]++
		}
	}
	labels := map[string]int{"kubelet_running_containers": 1, "kubelet_desired_pods": 1, "kubelet_active_pods": 1, "kubelet_working_pods": 3, "kubelet_pod_pending_resizes": 2}
	for k, v := range n {
		emit(k.name, v, []string{k.a, k.b, k.c}[:labels[k.name]]...)
	}
}

// standing is where a pod is in its life, who wants it, and whether it is static.
type standing struct{ lifecycle, config, static string }

// standing says so of the worker's pod. The lock is held.
func (w *worker) standing() standing {
	s := standing{lifecycle: "sync", config: "desired"}
	switch {
	case w.over:
		s.lifecycle = "terminated"
	case w.end != nil:
		s.lifecycle = "terminating"
	}
	if w.removed {
		s.config = "orphan"
	}
	switch {
	case runtime.IsStatic(w.pod):
		s.static = "true"
	case w.pod.ResourceVersion == "" && w.removed: // nobody knows whose it was
		s.config, s.static = "runtime_only", "unknown"
	}
	return s
}

// staticLabel is the label of a pod that is static, or not.
func staticLabel(pod *v1.Pod) string {
	if runtime.IsStatic(pod) {
		return "true"
	}
	return ""
}

func priorityBucket(pod *v1.Pod) string {
	var priority int32
	if pod.Spec.Priority != nil {
		priority = *pod.Spec.Priority
	}
	switch {
	case priority >= 2_000_000_000:
		return "system-critical"
	case priority >= 100_000:
		return "high"
	case priority >= 1:
		return "medium"
	case priority == 0:
		return "normal"
	case priority >= -999:
		return "low"
	}
	return "very-low"
}

// containerType names a kind of container in labels.
func containerType(kind runtime.Kind) string {
	switch kind {
	case runtime.Init, runtime.Sidecar:
		return "init_container"
	case runtime.Ephemeral:
		return "ephemeral_container"
	}
	return "container"
}

// rejectionReason is the reason of a rejection as it is counted: what lacks may be of any name, and names are many.
func rejectionReason(reason string) string {
	what, lacks := strings.CutPrefix(reason, "OutOf")
	if lacks && !slices.Contains([]string{"cpu", "memory", "ephemeral-storage", "pods"}, what) {
		return "OutOfExtendedResources"
	}
	return reason
}

// A startup is the start of one pod, as far as this kubelet has seen it.
type startup struct {
	// seen is when the kubelet heard of the pod, and passed whether its worker has looked at it since.
	seen   time.Time
	passed bool
	// running says that the pod has begun to run, as far as that is of interest: the time that it took is known, or will not be.
	running bool
	// reported says the same of the API's hearing of it.
	reported bool
	// pulling is how long images were waited for.
	pulling time.Duration
}

// startupOf begins to follow the start of a pod that was first seen at a time. What has begun under another kubelet is of no interest, and
// neither is what the scheduler had to wait with.
func startupOf(pod *v1.Pod, now time.Time) startup {
	begun := pod.Status.Phase != v1.PodPending && pod.Status.Phase != ""
	return startup{seen: now, running: begun, reported: begun || runtime.IsStatic(pod) || pod.Status.StartTime != nil || waitedForRoom(pod)}
}

func waitedForRoom(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse })
}

// first notes the first look at what there is of the pod.
func (s *startup) first(m *podMetrics, state *runtime.State, now time.Time) {
	if s.passed {
		return
	}
	s.passed, s.running = true, s.running || state.AnyRunning()
	m.workerStart.Observe(now.Sub(s.seen).Seconds())
}

// ran notes that the pod has begun to run.
func (s *startup) ran(m *podMetrics, now time.Time) {
	if !s.running {
		s.running = true
		m.start.Observe(now.Sub(s.seen).Seconds())
	}
}

// heard notes what the API says of the pod, whose init containers have run for some time.
func (s *startup) heard(m *podMetrics, pod *v1.Pod, initializing time.Duration, now time.Time) {
	switch {
	case s.reported:
		return
	case waitedForRoom(pod):
		s.reported = true
		return
	case !allStarted(pod):
		return
	}
	s.reported = true
	total := now.Sub(pod.CreationTimestamp.Time)
	m.startTotal.Observe(total.Seconds())
	if !stateful(pod) {
		m.startSLI.Observe(max(total-s.pulling-initializing, 0).Seconds())
	}
}

// allStarted tells whether all containers of the pod have started, by its status.
func allStarted(pod *v1.Pod) bool {
	for i := range pod.Spec.Containers {
		st := containerStatus(&pod.Status, pod.Spec.Containers[i].Name)
		if st == nil || st.State.Running == nil && st.State.Terminated == nil {
			return false
		}
	}
	return len(pod.Spec.Containers) > 0
}

// stateful pods wait for what is outside of the node: their start says little of it.
func stateful(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool {
		return v.EmptyDir == nil && v.ConfigMap == nil && v.Secret == nil && v.DownwardAPI == nil && v.Projected == nil && v.Image == nil
	})
}

// initializing is for how long the init containers of a pod have run.
func initializing(pod *v1.Pod, state *runtime.State) (sum time.Duration) {
	for i := range pod.Spec.InitContainers {
		init := &pod.Spec.InitContainers[i]
		if runtime.IsSidecar(init) {
			continue
		}
		for _, c := range state.Containers {
			if c.Name == init.Name && c.State == runtime.Exited && !c.StartedAt.IsZero() {
				sum += c.FinishedAt.Sub(c.StartedAt)
			}
		}
	}
	return sum
}
