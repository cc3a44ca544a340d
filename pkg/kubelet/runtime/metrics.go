package runtime

import (
	"context"
	"time"

	"k8s.io/component-base/metrics"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// Calls count and time the calls to the runtime.
type Calls struct {
	total, errors *metrics.CounterVec
	duration      *metrics.HistogramVec
	// Sandboxes are made by different handlers.
	sandbox       *metrics.HistogramVec
	sandboxErrors *metrics.CounterVec
}

// NewCalls returns Calls of which there were none.
func NewCalls() *Calls {
	return &Calls{
		total:  metric.CounterVec("kubelet_runtime_operations_total", "Cumulative number of runtime operations by operation type.", "operation_type"),
		errors: metric.CounterVec("kubelet_runtime_operations_errors_total", "Cumulative number of runtime operation errors by operation type.", "operation_type"),
		duration: metric.HistogramVec("kubelet_runtime_operations_duration_seconds", "Duration in seconds of runtime operations. Broken down by operation type.",
			metrics.ExponentialBuckets(.005, 2.5, 14), "operation_type"),
		sandbox: metric.HistogramVec("kubelet_run_podsandbox_duration_seconds", "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
			metrics.DefBuckets, "runtime_handler"),
		sandboxErrors: metric.CounterVec("kubelet_run_podsandbox_errors_total", "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.", "runtime_handler"),
	}
}

// RegisterMetrics implements metric.Room.
func (c *Calls) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(c.total, c.errors, c.duration, c.sandbox, c.sandboxErrors)
}

// begin counts a call and returns what its end is told to, with where its error will be.
func (c *Calls) begin(operation string) func(*error) {
	c.total.WithLabelValues(operation).Inc()
	began := time.Now()
	return func(err *error) {
		c.duration.WithLabelValues(operation).Observe(time.Since(began).Seconds())
		if *err != nil {
			c.errors.WithLabelValues(operation).Inc()
		}
	}
}

// Runtime returns a runtime whose calls are counted: those that the kubelet makes and that end.
func (c *Calls) Runtime(s cri.RuntimeService) cri.RuntimeService {
	return countedRuntime{RuntimeService: s, c: c}
}

// Images returns an image service whose calls are counted.
func (c *Calls) Images(s cri.ImageManagerService) cri.ImageManagerService {
	return countedImages{ImageManagerService: s, c: c}
}

type countedRuntime struct {
	cri.RuntimeService
	c *Calls
}

func (s countedRuntime) Version(ctx context.Context, version string) (_ *runtimeapi.VersionResponse, err error) {
	defer s.c.begin("version")(&err)
	return s.RuntimeService.Version(ctx, version)
}

func (s countedRuntime) Status(ctx context.Context, verbose bool) (_ *runtimeapi.StatusResponse, err error) {
	defer s.c.begin("status")(&err)
	return s.RuntimeService.Status(ctx, verbose)
}

func (s countedRuntime) UpdateRuntimeConfig(ctx context.Context, config *runtimeapi.RuntimeConfig) (err error) {
	defer s.c.begin("update_runtime_config")(&err)
	return s.RuntimeService.UpdateRuntimeConfig(ctx, config)
}

func (s countedRuntime) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, of *runtimeapi.PodSandboxConfig) (_ string, err error) {
	defer s.c.begin("create_container")(&err)
	return s.RuntimeService.CreateContainer(ctx, sandbox, config, of)
}

func (s countedRuntime) StartContainer(ctx context.Context, id string) (err error) {
	defer s.c.begin("start_container")(&err)
	return s.RuntimeService.StartContainer(ctx, id)
}

func (s countedRuntime) StopContainer(ctx context.Context, id string, timeout int64) (err error) {
	defer s.c.begin("stop_container")(&err)
	return s.RuntimeService.StopContainer(ctx, id, timeout)
}

func (s countedRuntime) RemoveContainer(ctx context.Context, id string) (err error) {
	defer s.c.begin("remove_container")(&err)
	return s.RuntimeService.RemoveContainer(ctx, id)
}

func (s countedRuntime) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) (_ []*runtimeapi.Container, err error) {
	defer s.c.begin("list_containers")(&err)
	return s.RuntimeService.ListContainers(ctx, filter)
}

func (s countedRuntime) ContainerStatus(ctx context.Context, id string, verbose bool) (_ *runtimeapi.ContainerStatusResponse, err error) {
	defer s.c.begin("container_status")(&err)
	return s.RuntimeService.ContainerStatus(ctx, id, verbose)
}

func (s countedRuntime) UpdateContainerResources(ctx context.Context, id string, resources *runtimeapi.ContainerResources) (err error) {
	defer s.c.begin("update_container")(&err)
	return s.RuntimeService.UpdateContainerResources(ctx, id, resources)
}

func (s countedRuntime) ReopenContainerLog(ctx context.Context, id string) (err error) {
	defer s.c.begin("reopen_container_log")(&err)
	return s.RuntimeService.ReopenContainerLog(ctx, id)
}

func (s countedRuntime) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (_, _ []byte, err error) {
	defer s.c.begin("exec_sync")(&err)
	return s.RuntimeService.ExecSync(ctx, id, cmd, timeout)
}

func (s countedRuntime) Exec(ctx context.Context, req *runtimeapi.ExecRequest) (_ *runtimeapi.ExecResponse, err error) {
	defer s.c.begin("exec")(&err)
	return s.RuntimeService.Exec(ctx, req)
}

func (s countedRuntime) Attach(ctx context.Context, req *runtimeapi.AttachRequest) (_ *runtimeapi.AttachResponse, err error) {
	defer s.c.begin("attach")(&err)
	return s.RuntimeService.Attach(ctx, req)
}

func (s countedRuntime) PortForward(ctx context.Context, req *runtimeapi.PortForwardRequest) (_ *runtimeapi.PortForwardResponse, err error) {
	defer s.c.begin("port_forward")(&err)
	return s.RuntimeService.PortForward(ctx, req)
}

func (s countedRuntime) CheckpointContainer(ctx context.Context, req *runtimeapi.CheckpointContainerRequest) (err error) {
	defer s.c.begin("checkpoint_container")(&err)
	return s.RuntimeService.CheckpointContainer(ctx, req)
}

func (s countedRuntime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (_ string, err error) {
	defer s.c.begin("run_podsandbox")(&err)
	began := time.Now()
	defer func() {
		s.c.sandbox.WithLabelValues(handler).Observe(time.Since(began).Seconds())
		if err != nil {
			s.c.sandboxErrors.WithLabelValues(handler).Inc()
		}
	}()
	return s.RuntimeService.RunPodSandbox(ctx, config, handler)
}

func (s countedRuntime) StopPodSandbox(ctx context.Context, id string) (err error) {
	defer s.c.begin("stop_podsandbox")(&err)
	return s.RuntimeService.StopPodSandbox(ctx, id)
}

func (s countedRuntime) RemovePodSandbox(ctx context.Context, id string) (err error) {
	defer s.c.begin("remove_podsandbox")(&err)
	return s.RuntimeService.RemovePodSandbox(ctx, id)
}

func (s countedRuntime) PodSandboxStatus(ctx context.Context, id string, verbose bool) (_ *runtimeapi.PodSandboxStatusResponse, err error) {
	defer s.c.begin("podsandbox_status")(&err)
	return s.RuntimeService.PodSandboxStatus(ctx, id, verbose)
}

func (s countedRuntime) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) (_ []*runtimeapi.PodSandbox, err error) {
	defer s.c.begin("list_podsandbox")(&err)
	return s.RuntimeService.ListPodSandbox(ctx, filter)
}

func (s countedRuntime) UpdatePodSandboxResources(ctx context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (_ *runtimeapi.UpdatePodSandboxResourcesResponse, err error) {
	defer s.c.begin("update_podsandbox_resources")(&err)
	return s.RuntimeService.UpdatePodSandboxResources(ctx, req)
}

func (s countedRuntime) ContainerStats(ctx context.Context, id string) (_ *runtimeapi.ContainerStats, err error) {
	defer s.c.begin("container_stats")(&err)
	return s.RuntimeService.ContainerStats(ctx, id)
}

func (s countedRuntime) ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) (_ []*runtimeapi.PodSandboxStats, err error) {
	defer s.c.begin("list_podsandbox_stats")(&err)
	return s.RuntimeService.ListPodSandboxStats(ctx, filter)
}

func (s countedRuntime) ListMetricDescriptors(ctx context.Context) (_ []*runtimeapi.MetricDescriptor, err error) {
	defer s.c.begin("list_metric_descriptors")(&err)
	return s.RuntimeService.ListMetricDescriptors(ctx)
}

func (s countedRuntime) ListPodSandboxMetrics(ctx context.Context) (_ []*runtimeapi.PodSandboxMetrics, err error) {
	defer s.c.begin("list_podsandbox_metrics")(&err)
	return s.RuntimeService.ListPodSandboxMetrics(ctx)
}

type countedImages struct {
	cri.ImageManagerService
	c *Calls
}

func (s countedImages) ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) (_ []*runtimeapi.Image, err error) {
	defer s.c.begin("list_images")(&err)
	return s.ImageManagerService.ListImages(ctx, filter)
}

func (s countedImages) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (_ *runtimeapi.ImageStatusResponse, err error) {
	defer s.c.begin("image_status")(&err)
	return s.ImageManagerService.ImageStatus(ctx, image, verbose)
}

func (s countedImages) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (_ string, err error) {
	defer s.c.begin("pull_image")(&err)
	return s.ImageManagerService.PullImage(ctx, image, auth, sandbox)
}

func (s countedImages) RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) (err error) {
	defer s.c.begin("remove_image")(&err)
	return s.ImageManagerService.RemoveImage(ctx, image)
}

func (s countedImages) ImageFsInfo(ctx context.Context) (_ *runtimeapi.ImageFsInfoResponse, err error) {
	defer s.c.begin("image_fs_info")(&err)
	return s.ImageManagerService.ImageFsInfo(ctx)
}

// WatcherMetrics are those of a Watcher: how it looks at everything, and how it hears of single pods.
type WatcherMetrics struct {
	relist, interval   *metrics.Histogram
	lastSeen           *metrics.Gauge
	connected, refused *metrics.Counter
	latency            *metrics.Histogram
}

// NewWatcherMetrics returns those of a Watcher that has not run.
func NewWatcherMetrics() *WatcherMetrics {
	return &WatcherMetrics{
		relist:    metric.Histogram("kubelet_pleg_relist_duration_seconds", "Duration in seconds for relisting pods in PLEG.", metrics.DefBuckets),
		interval:  metric.Histogram("kubelet_pleg_relist_interval_seconds", "Interval in seconds between relisting in PLEG.", metrics.DefBuckets),
		lastSeen:  metric.Gauge("kubelet_pleg_last_seen_seconds", "Timestamp in seconds when PLEG was last seen active."),
		connected: metric.Counter("kubelet_evented_pleg_connection_success_count", "The number of times a streaming client was obtained to receive CRI Events."),
		refused:   metric.Counter("kubelet_evented_pleg_connection_error_count", "The number of errors encountered during the establishment of streaming connection with the CRI runtime."),
		latency:   metric.Histogram("kubelet_evented_pleg_connection_latency_seconds", "The latency of streaming connection with the CRI runtime, measured in seconds.", metrics.DefBuckets),
	}
}

// RegisterMetrics implements metric.Room.
func (m *WatcherMetrics) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(m.relist, m.interval, m.lastSeen, m.connected, m.refused, m.latency)
}

// relisted notes a look at everything that has begun at a time, and the one before at last.
func (m *WatcherMetrics) relisted(began, last time.Time) {
	m.relist.Observe(time.Since(began).Seconds())
	if !last.IsZero() {
		m.interval.Observe(began.Sub(last).Seconds())
	}
	m.lastSeen.Set(float64(began.Unix()))
}

// heard notes an event, which is of a time in nanoseconds.
func (m *WatcherMetrics) heard(of int64) {
	if of > 0 {
		m.latency.Observe(max(time.Since(time.Unix(0, of)).Seconds(), 0))
	}
}
