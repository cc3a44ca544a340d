package pods

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
	"github.com/leme-k8s/leme/pkg/kubelet/status"
)

// startPatience is how long the start of a container may take.
const startPatience = 2 * time.Minute

// act carries out a plan as far as it gets. Failures are remembered as what containers wait for. It calls tell when
// there may be something to tell while containers take their time to stop.
func (w *worker) act(ctx context.Context, pod *v1.Pod, state *runtime.State, plan Plan, tell func()) {
	w.stop(ctx, pod, state, plan.Stop, tell)
	for _, id := range plan.StopSandboxes {
		if err := w.m.Runtime.StopSandbox(ctx, id); err != nil {
			w.troubled(ctx, pod, "FailedKillPod", "error killing pod", err)
			return
		}
	}
	if s := plan.Charge; s != nil {
		w.backoff[s.Name] = w.backoff[s.Name].Next(s.Ended, time.Now(), w.m.Limits)
	}
	for i := range state.Containers {
		for _, id := range plan.Remove {
			if c := &state.Containers[i]; c.ID == id {
				if err := w.m.Runtime.RemoveContainer(ctx, state, c); err != nil {
					w.troubled(ctx, pod, "FailedSync", "error removing container", err)
					return
				}
			}
		}
	}
	if plan.Resize != nil && ctx.Err() == nil {
		w.resize(ctx, pod, state, plan.Resize)
	}
	if plan.Sandbox != nil {
		w.sandbox(ctx, pod, plan.Sandbox)
		return
	}
	if len(plan.Start) == 0 || ctx.Err() != nil {
		return
	}
	config, ok := w.prepare(ctx, pod, state.Sandboxes[0].Attempt)
	if !ok {
		for _, s := range plan.Start {
			w.failed[s.Name] = w.failed[""]
		}
		return
	}
	w.succeed("")
	for _, s := range plan.Start {
		if ctx.Err() != nil {
			return
		}
		w.start(ctx, pod, state, config, s)
	}
}

// troubled reports a failure that has no container to wait on it, and takes a breath.
func (w *worker) troubled(ctx context.Context, pod *v1.Pod, reason, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	klog.FromContext(ctx).Error(err, what, "pod", klog.KObj(pod))
	w.m.Recorder.Eventf(pod, v1.EventTypeWarning, reason, "%s: %v", what, err)
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(w.retry(reason))):
	}
}

// prepare makes ready what is the pod's but not the runtime's, and the configuration of its sandbox.
func (w *worker) prepare(ctx context.Context, pod *v1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, bool) {
	failed := func(event, message string, err error) (*runtimeapi.PodSandboxConfig, bool) {
		if ctx.Err() == nil {
			w.m.Recorder.Eventf(pod, v1.EventTypeWarning, event, message, err)
			w.fail("", status.Waiting{Reason: "ContainerCreating"}, time.Time{})
		}
		return nil, false
	}
	if w.cgroup == nil {
		parent, err := w.m.Cgroups.Ensure(ctx, pod)
		if err != nil {
			return failed("FailedCreatePodContainer", "unable to ensure pod container exists: %v", err)
		}
		if err := w.setSized(pod); err != nil {
			return failed("FailedCreatePodContainer", "unable to ensure pod container exists: %v", err)
		}
		w.cgroup = &parent
	}
	for _, d := range w.m.Devices {
		if err := d.Prepare(ctx, pod); err != nil {
			return failed("FailedPrepareDynamicResources", "Failed to prepare dynamic resources: %v", err)
		}
	}
	if w.mounted == nil {
		if err := w.mount(ctx, pod); err != nil {
			return failed("FailedMount", "%v", err)
		}
	}
	config, err := w.m.Runtime.SandboxConfig(pod, attempt, *w.cgroup)
	if err != nil {
		return failed("FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
	}
	return config, true
}

func (w *worker) mount(ctx context.Context, pod *v1.Pod) error {
	mounted, err := w.m.Volumes.Mount(ctx, pod)
	if err != nil {
		return err
	}
	w.mounted = &mounted
	return nil
}

func (w *worker) sandbox(ctx context.Context, pod *v1.Pod, s *NewSandbox) {
	if s.Changed {
		w.m.Recorder.Event(pod, v1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	config, ok := w.prepare(ctx, pod, s.Attempt)
	if !ok {
		return
	}
	count := w.m.metrics
	ownUsers := pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers
	count.started.Inc()
	if ownUsers {
		count.userStarted.Inc()
	}
	handler, err := w.m.Handler(ctx, pod)
	if err == nil {
		_, err = w.m.Runtime.RunSandbox(ctx, pod, config, handler)
	}
	if err != nil {
		if ctx.Err() == nil {
			count.startErrors.Inc()
			if ownUsers {
				count.userStartErrors.Inc()
			}
			w.m.Recorder.Eventf(pod, v1.EventTypeWarning, runtime.ReasonSandbox, "Failed to create pod sandbox: %v", err)
			w.fail("", status.Waiting{Reason: "ContainerCreating"}, time.Time{})
		}
		return
	}
	w.succeed("")
}

// start brings one container up: image, creation, start, postStart hook.
func (w *worker) start(ctx context.Context, pod *v1.Pod, state *runtime.State, config *runtimeapi.PodSandboxConfig, s Start) {
	c := runtime.FindContainer(pod, s.Name)
	ref := containerRef(pod, s.Kind, c.Name)
	if !s.Ended.IsZero() {
		w.backoff[s.Name] = w.backoff[s.Name].Next(s.Ended, time.Now(), w.m.Limits)
	}
	w.m.metrics.containers.WithLabelValues(containerType(s.Kind)).Inc()
	err := w.startOne(ctx, pod, state, config, s, c, ref)
	if err == nil {
		w.succeed(s.Name)
		return
	}
	if ctx.Err() != nil {
		return
	}
	why := status.Waiting{Reason: runtime.ReasonContainer, Message: err.Error()}
	var reasoned Reasoned
	if errors.As(err, &reasoned) {
		why.Reason = reasoned.Reason()
	}
	var until time.Time
	var retry interface{ RetryAt() time.Time }
	if errors.As(err, &retry) {
		until = retry.RetryAt()
	}
	w.m.metrics.containerErrors.WithLabelValues(containerType(s.Kind), why.Reason).Inc()
	w.fail(s.Name, why, until)
	switch why.Reason {
	case runtime.ReasonContainerConfig, runtime.ReasonContainer, runtime.ReasonRun:
		w.m.Recorder.Eventf(ref, v1.EventTypeWarning, "Failed", "Error: %v", err)
	case runtime.ReasonPostStart:
	default:
		w.m.Recorder.Eventf(ref, v1.EventTypeWarning, "Failed", "Error: %s", why.Reason)
	}
}

func (w *worker) startOne(ctx context.Context, pod *v1.Pod, state *runtime.State, config *runtimeapi.PodSandboxConfig, s Start, c *v1.Container, ref *v1.ObjectReference) error {
	image, err := w.ensure(ctx, ImageRequest{Pod: pod, Object: ref, Image: c.Image, Policy: c.ImagePullPolicy, Sandbox: config})
	if err != nil {
		return err
	}
	restarted := int32(-1)
	if st := containerStatus(&w.status, c.Name); st != nil && (st.State.Terminated != nil || st.LastTerminationState.Terminated != nil) {
		restarted = st.RestartCount
	}
	count := w.m.Runtime.NextRestartCount(pod, c.Name, state.Newest(c.Name), restarted)
	images := 0 // volumes that are
	req := runtime.ContainerRequest{
		Pod: pod, Container: c, RestartCount: count, Image: image, Sandbox: &state.Sandboxes[0], Config: config, Volumes: w.mounted.Volumes,
		SubPath: func(ctx context.Context, index int, v runtime.Volume, subPath string) (string, error) {
			return w.m.Volumes.SubPath(ctx, pod, c, index, v, subPath)
		},
		ImageVolume: func(ctx context.Context, name string) (string, error) {
			images++
			return w.imageVolume(ctx, pod, config, name)
		},
	}
	for _, d := range w.m.Devices {
		given, err := d.Of(ctx, pod, c)
		if err != nil {
			return runtime.NewError(runtime.ReasonContainerConfig, err)
		}
		req.Devices.Add(given)
	}
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == c.Name && e.TargetContainerName != "" {
			target := state.Newest(e.TargetContainerName)
			if target == nil || target.State != runtime.Running {
				return runtime.NewError(runtime.ReasonContainerConfig, fmt.Errorf("target container %q is not running", e.TargetContainerName))
			}
			req.Target = target.ID
		}
	}
	id, err := w.m.Runtime.Create(ctx, req)
	w.m.metrics.imagesWanted.Add(float64(images))
	if err != nil {
		w.m.metrics.imagesFailed.Add(float64(images))
		return err
	}
	w.m.metrics.imagesMounted.Add(float64(images))
	// A start that is given up half-way looks like a container that has failed. What is asked to go meanwhile is stopped after.
	firm, cancel := context.WithTimeout(context.WithoutCancel(ctx), startPatience)
	defer cancel()
	w.m.Recorder.Event(ref, v1.EventTypeNormal, "Created", "Container created")
	if err := w.m.Actuated.SetContainer(pod.UID, c.Name, allocation.Effective(pod, c)); err != nil {
		return err
	}
	if err := w.m.Runtime.Start(firm, pod, c, id, count); err != nil {
		return err
	}
	w.m.Recorder.Event(ref, v1.EventTypeNormal, "Started", "Container started")
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	if err := w.hook(ctx, pod, c, id, c.Lifecycle.PostStart); err != nil {
		if ctx.Err() != nil {
			return err
		}
		klog.FromContext(ctx).Info("PostStart hook failed", "pod", klog.KObj(pod), "container", c.Name, "err", err)
		w.m.Recorder.Event(ref, v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
		if err := w.stopOne(ctx, pod, &runtime.Container{ID: id, Name: c.Name}, Stop{ID: id, Name: c.Name, Message: "FailedPostStartHook", Grace: Grace(pod)}); err != nil {
			w.troubled(ctx, pod, "FailedKillPod", "error killing pod", err)
		}
		w.restart[id] = policy(pod, c) != v1.RestartPolicyNever || s.Kind == runtime.Sidecar
		return runtime.NewError(runtime.ReasonPostStart, fmt.Errorf("PostStartHook failed: %w", err))
	}
	return nil
}

// ensure makes an image present, and notes how long that took.
func (w *worker) ensure(ctx context.Context, req ImageRequest) (string, error) {
	began := time.Now()
	ref, err := w.m.Images.Ensure(ctx, req)
	w.mu.Lock()
	w.startup.pulling += time.Since(began)
	w.mu.Unlock()
	return ref, err
}

func (w *worker) imageVolume(ctx context.Context, pod *v1.Pod, config *runtimeapi.PodSandboxConfig, name string) (string, error) {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == name && v.Image != nil {
			return w.ensure(ctx, ImageRequest{
				Pod: pod, Object: &v1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
				Image: v.Image.Reference, Policy: v.Image.PullPolicy, Sandbox: config,
			})
		}
	}
	return "", fmt.Errorf("volume %q is not of an image", name)
}

// stop ends containers at the same time, but each after those it has to wait for. Meanwhile it calls tell whenever
// something has happened to the pod.
func (w *worker) stop(ctx context.Context, pod *v1.Pod, state *runtime.State, stops []Stop, tell func()) {
	ended := map[string]chan struct{}{}
	for _, s := range stops {
		ended[s.ID] = make(chan struct{})
	}
	var all sync.WaitGroup
	errs := make([]error, len(stops))
	begun := time.Now()
	for n, s := range stops {
		if s.Restart {
			w.restart[s.ID] = true
		}
		all.Go(func() {
			defer close(ended[s.ID])
			deadline := time.NewTimer(time.Duration(s.Grace) * time.Second)
			defer deadline.Stop()
			late := false
			for _, before := range s.After {
				select {
				case <-ended[before]:
				case <-deadline.C:
					late = true
				case <-ctx.Done():
					return
				}
				if late {
					break
				}
			}
			s.Grace = max(s.Grace-int64(time.Since(begun)/time.Second), 0)
			for i := range state.Containers {
				if state.Containers[i].ID == s.ID {
					errs[n] = w.stopOne(ctx, pod, &state.Containers[i], s)
				}
			}
		})
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); all.Wait() }()
	for done := len(stops) == 0; !done; {
		select {
		case <-stopped:
			done = true
		case <-w.wake:
			tell()
		}
	}
	for _, err := range errs {
		if err != nil {
			w.troubled(ctx, pod, "FailedKillPod", "error killing pod", err)
		}
	}
}

// stopOne runs the container's preStop hook and stops it, within its grace period.
func (w *worker) stopOne(ctx context.Context, pod *v1.Pod, c *runtime.Container, s Stop) error {
	kind := runtime.Regular
	hook := c.PreStop
	spec := runtime.FindContainer(pod, c.Name)
	if spec != nil {
		hook = nil
		if spec.Lifecycle != nil {
			hook = spec.Lifecycle.PreStop
		}
		runtime.EachContainer(pod, func(o *v1.Container, k runtime.Kind) {
			if o.Name == c.Name {
				kind = k
			}
		})
	} else {
		spec = &v1.Container{Name: c.Name, Ports: c.Ports}
	}
	ref := containerRef(pod, kind, c.Name)
	w.m.Recorder.Event(ref, v1.EventTypeNormal, "Killing", s.Message)
	grace := s.Grace
	if hook != nil && grace > 0 {
		begun := time.Now()
		limited, cancel := context.WithTimeout(ctx, time.Duration(grace)*time.Second)
		if err := w.hook(limited, pod, spec, c.ID, hook); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Info("PreStop hook failed", "pod", klog.KObj(pod), "container", c.Name, "err", err)
			w.m.Recorder.Event(ref, v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		}
		cancel()
		// Even after a long hook a container has a moment to react to the signal.
		const least = 2
		grace = max(grace-int64(time.Since(begun)/time.Second), least)
	}
	if ctx.Err() != nil {
		return nil
	}
	return w.m.Runtime.Stop(ctx, c.ID, grace)
}

func containerRef(pod *v1.Pod, kind runtime.Kind, name string) *v1.ObjectReference {
	path := "spec.containers"
	switch kind {
	case runtime.Init, runtime.Sidecar:
		path = "spec.initContainers"
	case runtime.Ephemeral:
		path = "spec.ephemeralContainers"
	}
	return &v1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		FieldPath: fmt.Sprintf("%s{%s}", path, name),
	}
}
