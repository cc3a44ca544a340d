package pods

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/probes"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
	"github.com/leme-k8s/leme/pkg/kubelet/status"
)

// A worker owns one pod. Others tell it what is wanted; all else only its own goroutine touches.
type worker struct {
	m    *Manager
	uid  types.UID
	wake chan struct{}

	mu         sync.Mutex
	pod        *v1.Pod
	end        *End
	conditions []v1.PodCondition // set with the end
	removed    bool              // its source has the pod no more
	next       *v1.Pod           // its source has it again: it begins anew after its end
	over       bool              // nothing of it runs, nor will
	stale      bool              // the content of its volumes may have changed
	renewed    bool              // an object that it refers to has changed
	cancel     context.CancelFunc
	state      *runtime.State // last observed
	status     v1.PodStatus   // last generated
	resizing   resizing
	startup    startup
	updated    bool // a new version of the pod has not been looked at

	// The goroutine's own.
	mounted *Mounted
	cgroup  *string
	sized   *allocation.Resources // what the pod's cgroup was last made for
	// replacing is whether the last pass has stopped containers of a pod that goes on.
	replacing bool
	cleaned   bool
	// swept says that a look for what earlier pods have left has found the pod, and unclean that it could not be cleaned up after yet.
	swept, unclean bool
	backoff        map[string]Backoff
	failed         map[string]Failure
	failing        map[string]int
	restart        map[string]bool
	// announced are the containers, by name, whose back-off has been told of.
	announced map[string]string
}

func newWorker(m *Manager, pod *v1.Pod) *worker {
	return &worker{
		m: m, uid: pod.UID, pod: pod, startup: startupOf(pod, time.Now()), wake: make(chan struct{}, 1), status: *pod.Status.DeepCopy(), state: &runtime.State{UID: pod.UID}, resizing: resizingOf(pod),
		backoff: map[string]Backoff{}, failed: map[string]Failure{}, failing: map[string]int{}, restart: map[string]bool{}, announced: map[string]string{},
	}
}

// poke has the worker look at its pod anew.
func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// update tells the worker of a new version of its pod.
func (w *worker) update(pod *v1.Pod) {
	w.mu.Lock()
	w.stale = w.stale || !maps.Equal(w.pod.Labels, pod.Labels) || !maps.Equal(w.pod.Annotations, pod.Annotations)
	w.pod, w.updated = pod, true
	w.mu.Unlock()
	if pod.DeletionTimestamp != nil {
		w.finish(End{Grace: max(Grace(pod), 1), Since: time.Now()}, nil)
	}
	w.poke()
}

// remove tells the worker that its pod's source has it no more.
func (w *worker) remove() {
	w.mu.Lock()
	w.removed, w.next = true, nil
	grace := max(Grace(w.pod), 1)
	w.mu.Unlock()
	w.finish(End{Grace: grace, Since: time.Now()}, nil)
	w.poke()
}

// comesBack tells whether the pod is one that its source had no more and has again. It is kept then for when its end has come.
func (w *worker) comesBack(pod *v1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.removed {
		w.next = pod
	}
	return w.removed
}

// heard takes note of how far the pod's start has come by the API.
func (w *worker) heard(pod *v1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.startup.heard(w.m.metrics, pod, initializing(pod, w.state), time.Now())
}

// operation names the look at the pod that is to come; nothing for a pod that ends.
func (w *worker) operation() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	updated := w.updated
	w.updated = false
	switch {
	case w.end != nil:
		return ""
	case !w.startup.passed:
		return "create"
	case updated:
		return "update"
	}
	return "sync"
}

// finish ends the pod, or ends it sooner than was said before. What is being done
// for a pod that goes on is given up.
func (w *worker) finish(end End, conditions []v1.PodCondition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end != nil {
		if by(end).After(by(*w.end)) || by(end).Equal(by(*w.end)) {
			return
		}
		end.Phase, end.Reason, end.Message, end.Rejected = w.end.Phase, w.end.Reason, w.end.Message, w.end.Rejected
	}
	w.end, w.conditions = &end, append(w.conditions, conditions...)
	if w.cancel != nil {
		w.cancel()
	}
	w.poke()
}

func by(e End) time.Time { return e.Since.Add(time.Duration(e.Grace) * time.Second) }

// run looks after the pod until nothing is left of it.
func (w *worker) run(ctx context.Context) {
	defer utilruntime.HandleCrashWithContext(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		operation, began := w.operation(), time.Now()
		next, done := w.pass(ctx)
		if operation != "" {
			w.m.metrics.workerDuration.WithLabelValues(operation).Observe(time.Since(began).Seconds())
		}
		if done {
			w.m.forget(ctx, w)
			return
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), 0))
		}
	}
}

// pass observes, decides, reports and acts once, and says when to do so again at the latest.
func (w *worker) pass(ctx context.Context) (next time.Time, done bool) {
	now := time.Now()
	state, err := w.m.Observer.Pod(ctx, w.uid)
	if err != nil {
		if ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot see what the runtime has of a pod", "pod", w.uid)
		}
		return now.Add(time.Second), false
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	if deadline, ok := Deadline(w.podWithStart()); ok && w.end == nil && !now.Before(deadline) {
		w.end = &End{
			Grace: Grace(w.pod), Since: now, Phase: v1.PodFailed,
			Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline",
		}
	}
	if w.renewed {
		w.forgive()
		w.renewed = false
	}
	w.state, w.cancel = state, cancel
	if w.end == nil {
		w.startup.first(w.m.metrics, state, now)
	}
	pod, end, removed, conditions, resizing := w.podWithStart(), w.end, w.removed, w.conditions, w.resizing
	w.mu.Unlock()
	pod = w.m.allocated(pod)
	actuated, _ := w.m.Actuated.Get(w.uid)

	in := Input{
		Pod: pod, State: state, Probes: w.results(state), Backoff: w.backoff, Failed: w.failed, Restart: w.restart,
		Actuated: actuated, Sized: w.sized != nil && w.sized.Fits(pod), End: end, Now: now, Limits: w.m.Limits,
	}
	plan := Decide(in)
	w.noteResizing(pod, resizing.progress, plan.Resizing, now)
	if plan.Phase != "" {
		// Sidecars are asked to go like the containers of a deleted pod.
		w.finish(End{Grace: Grace(pod), Since: now, Phase: plan.Phase}, nil)
		return now, false
	}
	ips := w.m.Runtime.PodIPs(pod, state.ReadySandbox())
	w.m.Probes.Sync(w.m.ctx(ctx), pod, state, ips, end != nil)
	w.announce(pod, state, plan)
	// That a container has ended and is to be started at once, in place of one that was stopped for it,
	// is told when it has started: for clients it is one change.
	replaced := w.replacing && len(plan.Start) > 0
	w.replacing = end == nil && len(plan.Stop) > 0
	if (!plan.Done || w.cleaned) && !replaced {
		w.report(ctx, pod, end, conditions, actuated, plan, now)
	}
	switch {
	case plan.Done && !w.cleaned:
		return w.cleanUp(run, pod), false
	case plan.Done && removed:
		return w.bury(run, pod, state)
	case !plan.Idle():
		w.act(run, pod, state, plan, func() { w.retell(run, pod, end, conditions, actuated, plan) })
		return now, false
	}
	if end == nil {
		if at := w.freshen(run, pod); !at.IsZero() {
			plan.wake(at)
		}
		w.collect(run, state)
	}
	return plan.Wake, false
}

// podWithStart is the pod with the start that this kubelet has given it, which the API may not show yet.
func (w *worker) podWithStart() *v1.Pod {
	if w.pod.Status.StartTime != nil || w.status.StartTime == nil {
		return w.pod
	}
	pod := *w.pod
	pod.Status.StartTime = w.status.StartTime
	return &pod
}

func (w *worker) results(state *runtime.State) map[string]probes.Results {
	out := map[string]probes.Results{}
	for _, c := range state.Containers {
		if c.State != runtime.Running {
			continue
		}
		// What ran before this kubelet was ready then is ready now, until a probe says otherwise.
		if st := containerStatus(&w.pod.Status, c.Name); st != nil && runtime.TrimID(st.ContainerID) == c.ID {
			w.m.Probes.Adopt(c.ID, probes.Results{Ready: st.Ready, Started: st.Started != nil && *st.Started})
		}
		out[c.ID] = w.m.Probes.Results(c.ID)
	}
	return out
}

func containerStatus(s *v1.PodStatus, name string) *v1.ContainerStatus {
	for _, list := range [][]v1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// announce sends an event for each container that begins to wait for its back-off.
func (w *worker) announce(pod *v1.Pod, state *runtime.State, plan Plan) {
	runtime.EachContainer(pod, func(c *v1.Container, kind runtime.Kind) {
		newest := state.Newest(c.Name)
		if plan.Waiting[c.Name].Reason != reasonBackOff || newest == nil || w.announced[c.Name] == newest.ID {
			return
		}
		w.announced[c.Name] = newest.ID
		w.m.Recorder.Eventf(containerRef(pod, kind, c.Name), v1.EventTypeWarning, "BackOff",
			"Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, pod.Name, pod.Namespace, pod.UID)
	})
}

// report generates the pod's status and hands it on to be written.
func (w *worker) report(ctx context.Context, pod *v1.Pod, end *End, conditions []v1.PodCondition, actuated allocation.Resources, plan Plan, now time.Time) {
	api := w.m.apiPod(pod)
	in := status.Input{
		Pod: pod, Last: w.status, State: w.state, Probes: w.m.Probes.Results, Waiting: plan.Waiting, Conditions: conditions,
		RuntimeName: w.m.RuntimeName, HostIPs: w.m.Runtime.HostIPs(), Now: now, Stopped: w.cleaned, Actuated: actuated.Containers,
	}
	if end == nil {
		w.mu.Lock()
		in.Resizing = w.resizing.conditions()
		w.mu.Unlock()
		if actual, err := w.m.Cgroups.Actual(pod); err == nil { // else there is no cgroup yet
			in.Actual = &actual
		}
	}
	if b := w.state.ReadySandbox(); b != nil {
		in.RecursiveReadOnly = w.m.Runtime.RecursiveReadOnly(b.RuntimeHandler)
	}
	if api != nil {
		in.Pod = withStatus(pod, &api.Status)
	}
	if end != nil {
		in.Phase, in.Reason, in.Message, in.Rejected = end.Phase, end.Reason, end.Message, end.Rejected
		if in.Phase == "" && w.cleaned {
			in.Phase = endPhase(pod, w.state, &w.status)
		}
	}
	s := status.Generate(in)
	w.mu.Lock()
	w.status = s
	if end == nil && s.Phase != v1.PodPending {
		w.startup.ran(w.m.metrics, now)
	}
	gone := w.removed && !runtime.IsStatic(pod) // a mirror may be there for longer than its file
	w.mu.Unlock()
	if api != nil && !gone {
		w.m.Status.Set(w.m.ctx(ctx), api, s, w.cleaned && api.DeletionTimestamp != nil)
	}
}

// retell reports what has become of a pod that ends while its containers take their time.
func (w *worker) retell(ctx context.Context, pod *v1.Pod, end *End, conditions []v1.PodCondition, actuated allocation.Resources, plan Plan) {
	if end == nil {
		return
	}
	state, err := w.m.Observer.Pod(ctx, w.uid)
	running := func(c runtime.Container) bool { return c.State == runtime.Running }
	if err != nil || !slices.ContainsFunc(state.Containers, running) {
		return // the next pass tells of it
	}
	w.mu.Lock()
	w.state = state
	w.mu.Unlock()
	w.report(ctx, pod, end, conditions, actuated, plan, time.Now())
}

func withStatus(pod *v1.Pod, s *v1.PodStatus) *v1.Pod {
	out := *pod
	out.Status = *s
	return &out
}

// endPhase is the phase of a pod that was asked to go: what its containers made of it.
func endPhase(pod *v1.Pod, state *runtime.State, last *v1.PodStatus) v1.PodPhase {
	phase := v1.PodSucceeded
	for i := range pod.Spec.Containers {
		name := pod.Spec.Containers[i].Name
		code := 137
		if c := state.Newest(name); c != nil && c.State == runtime.Exited {
			code = c.ExitCode
		} else if st := containerStatus(last, name); st != nil && st.State.Terminated != nil {
			code = int(st.State.Terminated.ExitCode)
		}
		if code != 0 {
			phase = v1.PodFailed
		}
	}
	return phase
}

// freshen brings the content of volumes up to date if it may be stale, and says when it will be.
func (w *worker) freshen(ctx context.Context, pod *v1.Pod) time.Time {
	w.mu.Lock()
	stale := w.stale || w.mounted == nil || !w.mounted.Refresh.IsZero() && !time.Now().Before(w.mounted.Refresh)
	running := w.state.ReadySandbox() != nil
	w.stale = w.stale && !running
	w.mu.Unlock()
	if stale && running {
		if err := w.mount(ctx, pod); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot bring a running pod's volumes up to date", "pod", klog.KObj(pod))
			w.m.Recorder.Eventf(pod, v1.EventTypeWarning, "FailedMount", "%v", err)
			return time.Now().Add(30 * time.Second)
		}
	}
	if w.mounted == nil {
		return time.Time{}
	}
	return w.mounted.Refresh
}

// collect removes containers that nobody will ask for any more: all that ended but the last of each.
func (w *worker) collect(ctx context.Context, state *runtime.State) {
	kept := map[string]bool{}
	used := map[string]bool{}
	for i := range state.Containers {
		c := &state.Containers[i]
		if c.State != runtime.Exited || !kept[c.Name] {
			kept[c.Name] = kept[c.Name] || c.State == runtime.Exited
			used[c.SandboxID] = true
			continue
		}
		if err := w.m.Runtime.RemoveContainer(ctx, state, c); err != nil {
			klog.FromContext(ctx).V(2).Info("Cannot remove an old container yet", "err", err)
			used[c.SandboxID] = true
		}
		delete(w.restart, c.ID)
	}
	for i, b := range state.Sandboxes {
		if i > 0 && !b.Ready && !used[b.ID] {
			if err := w.m.Runtime.RemoveSandbox(ctx, b.ID); err != nil {
				klog.FromContext(ctx).V(2).Info("Cannot remove an old sandbox yet", "err", err)
			}
		}
	}
}

// cleanUp gives back what a pod that has ended held on the node. Its containers stay, for their logs.
func (w *worker) cleanUp(ctx context.Context, pod *v1.Pod) time.Time {
	w.m.Probes.Forget(w.uid)
	if err := w.release(ctx); err != nil {
		if ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot clean up after a pod yet", "pod", klog.KObj(pod))
		}
		if w.swept && !w.unclean {
			w.unclean = true
			w.m.metrics.uncleaned.Inc()
		}
		return w.retry("cleanup")
	}
	if w.swept {
		w.m.metrics.cleaned.Inc()
	}
	if w.unclean {
		w.m.metrics.uncleaned.Dec()
	}
	w.m.Objects.ForgetPod(w.uid)
	w.cleaned, w.mounted, w.cgroup = true, nil, nil
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.m.pokeResizes()
	return time.Now()
}

// release gives back what the pod holds.
func (w *worker) release(ctx context.Context) error {
	var errs []error
	for _, d := range w.m.Devices {
		errs = append(errs, d.Release(ctx, w.uid))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := w.m.Volumes.Unmount(ctx, w.uid); err != nil {
		return err
	}
	return w.m.Cgroups.Remove(ctx, w.uid)
}

// noteResizing has the status say that a resize goes on, or no longer. was is what it said before the decision.
func (w *worker) noteResizing(pod *v1.Pod, was *v1.PodCondition, goesOn bool, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.resizing.progress != was: // a new resize has begun since
	case goesOn && was == nil:
		w.resizing.progress, _ = resizeCondition(nil, v1.PodResizeInProgress, "", "", pod.Generation, now)
	case !goesOn && was != nil:
		w.resizing.progress = nil
		w.m.Recorder.Event(pod, v1.EventTypeNormal, "ResizeCompleted", resizeMessage("completed", pod, was.ObservedGeneration, ""))
	}
}

// bury removes the last traces of a pod that nobody knows any more.
func (w *worker) bury(ctx context.Context, pod *v1.Pod, state *runtime.State) (next time.Time, done bool) {
	if state.Name == "" {
		state.Namespace, state.Name = pod.Namespace, pod.Name
	}
	if err := w.m.Runtime.RemovePod(ctx, state); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot remove a pod yet", "pod", klog.KObj(pod))
		return w.retry("removal"), false
	}
	w.m.Status.Forget(w.uid)
	return time.Time{}, true
}

// retry is when to try again what has failed again: soon at first, then every ten seconds.
func (w *worker) retry(what string) time.Time {
	w.failing[what]++
	wait := 10 * time.Second
	if n := w.failing[what]; n < 6 {
		wait = 250 * time.Millisecond << n
	}
	return time.Now().Add(wait)
}

// fail remembers what a container, or the sandbox (""), is waiting for.
func (w *worker) fail(name string, why status.Waiting, until time.Time) {
	if until.IsZero() {
		until = w.retry(name)
	}
	w.failed[name] = Failure{Waiting: why, Until: until}
}

func (w *worker) succeed(name string) {
	delete(w.failed, name)
	delete(w.failing, name)
}

// forgive lets what has failed be tried again at once, since what it needs has changed.
func (w *worker) forgive() {
	for name, f := range w.failed {
		if f.Reason != "ImagePullBackOff" && f.Reason != "ErrImagePull" {
			f.Until = time.Time{}
			w.failed[name] = f
		}
	}
}
