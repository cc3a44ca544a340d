package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// allocated returns a pod with the resources that the node has given it.
func (m *Manager) allocated(pod *v1.Pod) *v1.Pod {
	given, ok := m.Allocated.Get(pod.UID)
	if !ok {
		return pod
	}
	return given.Apply(pod)
}

// allocate notes what the node gives a pod.
func (m *Manager) allocate(ctx context.Context, pod *v1.Pod) {
	if err := m.Allocated.Set(pod.UID, allocation.Of(pod)); err != nil {
		klog.FromContext(ctx).Error(err, "A restarted kubelet will not know the size of a pod", "pod", klog.KObj(pod))
	}
}

// renew hands a new version of a pod to its worker, after the decision about its new size, if it has one.
func (m *Manager) renew(ctx context.Context, w *worker, pod *v1.Pod) {
	given, ok := m.Allocated.Get(pod.UID)
	switch {
	case !ok || w.ended() != nil:
	case given.Fits(pod):
		w.mu.Lock()
		w.resizing.pending = nil
		w.mu.Unlock()
	case w.resizeChanged(pod):
		m.admitting.Lock()
		m.judge(ctx, w, pod)
		m.admitting.Unlock()
	}
	w.update(pod)
}

// resizeChanged tells whether a version of the pod asks for something else than the one before.
func (w *worker) resizeChanged(pod *v1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !apiequality.Semantic.DeepEqual(allocation.Of(pod), allocation.Of(w.pod))
}

// judge decides whether the node has room for the new size of a pod, and gives it if so. The lock of admissions is held.
func (m *Manager) judge(ctx context.Context, w *worker, pod *v1.Pod) {
	given := m.allocated(pod)
	refusal := m.refuse(ctx, w, pod)
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if refusal != nil {
		c, news := resizeCondition(w.resizing.pending, v1.PodResizePending, refusal.Reason, refusal.Message, pod.Generation, now)
		w.resizing.pending = c
		if news {
			m.Recorder.Event(pod, v1.EventTypeWarning, "Resize"+refusal.Reason, resizeMessage(refusal.Reason, pod, pod.Generation, refusal.Message))
		}
		return
	}
	m.allocate(ctx, pod)
	w.resizing.pending = nil
	w.resizing.progress, _ = resizeCondition(nil, v1.PodResizeInProgress, "", "", pod.Generation, now)
	m.Recorder.Event(pod, v1.EventTypeNormal, "ResizeStarted", resizeMessage("started", pod, pod.Generation, ""))
	if !(candidate{pod: pod, given: given}).grows() {
		m.pokeResizes() // there may be room for others now
	}
}

// refuse says why the node does not give a pod its new size, now or ever; nil if it does.
func (m *Manager) refuse(ctx context.Context, w *worker, pod *v1.Pod) *Rejection {
	node, err := m.Node(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot resize a pod without knowing the node", "pod", klog.KObj(pod))
		return &Rejection{v1.PodReasonDeferred, "Kubelet cannot get node info."}
	}
	if m.Pressure != nil {
		if err := m.Pressure(pod); err != nil {
			return &Rejection{v1.PodReasonDeferred, err.Error()}
		}
	}
	var others []*v1.Pod
	for _, o := range m.all() {
		o.mu.Lock()
		if o != w && !o.over {
			others = append(others, o.pod)
		}
		o.mu.Unlock()
	}
	for i := range others {
		others[i] = m.allocated(others[i])
	}
	if r := Admit(pod, node, others, m.UnsafeSysctls); r != nil {
		return &Rejection{v1.PodReasonDeferred, r.Message}
	}
	return nil
}

// pokeResizes has the resizes that wait judged anew.
func (m *Manager) pokeResizes() {
	select {
	case m.resizes <- struct{}{}:
	default:
	}
}

// retryResizes judges the resizes that wait whenever something has changed that they may wait for.
func (m *Manager) retryResizes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.resizes:
		}
		if !m.allSynced() {
			continue // who is not known yet has his share, too
		}
		m.admitting.Lock()
		waiting := m.candidates()
		slices.SortStableFunc(waiting, byUrgency)
		for _, c := range waiting {
			m.judge(ctx, c.worker, c.pod)
			c.worker.poke()
		}
		m.admitting.Unlock()
	}
}

// candidates are the pods that have another size than they ask for, and may still get it.
func (m *Manager) candidates() []candidate {
	var out []candidate
	for _, w := range m.all() {
		w.mu.Lock()
		c := candidate{worker: w, pod: w.pod}
		open := w.end == nil
		if p := w.resizing.pending; p != nil {
			c.waitingSince = p.LastTransitionTime.Time
			open = open && (p.Reason != v1.PodReasonInfeasible || p.ObservedGeneration != w.pod.Generation)
		}
		w.mu.Unlock()
		if c.given = m.allocated(c.pod); open && c.given != c.pod {
			out = append(out, c)
		}
	}
	return out
}

// resize carries out a resize: the pod's cgroup grows first and shrinks last, so that there is room for its containers'
// at any time.
func (w *worker) resize(ctx context.Context, pod *v1.Pod, state *runtime.State, r *Resize) {
	err := w.actuate(ctx, pod, state, r)
	if err == nil {
		w.succeed(failedResize)
		return
	}
	if ctx.Err() != nil {
		return
	}
	until := w.retry(failedResize)
	w.failed[failedResize] = Failure{Until: until}
	klog.FromContext(ctx).Error(err, "Cannot resize a pod yet", "pod", klog.KObj(pod))
	if !r.Announce {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	generation := pod.Generation
	if w.resizing.progress != nil {
		generation = w.resizing.progress.ObservedGeneration
	}
	old := w.resizing.progress
	w.resizing.progress, _ = resizeCondition(old, v1.PodResizeInProgress, v1.PodReasonError, err.Error(), generation, time.Now())
	if w.resizing.progress != old {
		w.m.Recorder.Event(pod, v1.EventTypeWarning, "ResizeError", resizeMessage("error", pod, generation, err.Error()))
	}
}

func (w *worker) actuate(ctx context.Context, pod *v1.Pod, state *runtime.State, r *Resize) error {
	if err := w.m.Cgroups.Grow(ctx, pod); err != nil {
		return err
	}
	if err := w.shrinkable(ctx, pod, r); err != nil {
		return fmt.Errorf("cannot decrease memory limits: %w", err)
	}
	if box := state.ReadySandbox(); r.Announce && box != nil {
		if err := w.m.Runtime.UpdateSandbox(ctx, pod, box.ID); err != nil {
			return err
		}
	}
	for _, u := range r.Update {
		c := runtime.FindContainer(pod, u.Name)
		err := w.m.Runtime.Update(ctx, pod, c, u.ID)
		w.m.Observer.Forget(u.ID)
		if err == nil {
			err = w.m.Actuated.SetContainer(pod.UID, c.Name, allocation.Effective(pod, c))
		}
		if err != nil {
			return err
		}
	}
	if _, err := w.m.Cgroups.Ensure(ctx, pod); err != nil {
		return err
	}
	return w.setSized(pod)
}

// setSized notes that the pod's cgroup has the pod's size.
func (w *worker) setSized(pod *v1.Pod) error {
	size := allocation.Of(pod)
	w.sized = &size
	if pod.Spec.Resources == nil {
		return nil
	}
	return w.m.Actuated.SetPod(pod.UID, pod.Spec.Resources)
}

// shrinkable tells whether new memory limits are above what is used already: the kernel would refuse them, or kill.
func (w *worker) shrinkable(ctx context.Context, pod *v1.Pod, r *Resize) error {
	errs := []error{w.m.Cgroups.Shrinkable(ctx, pod)}
	for _, u := range r.Update {
		if u.Memory >= 0 {
			continue
		}
		used, err := w.m.Runtime.MemoryUsage(ctx, u.ID)
		own := allocation.Effective(pod, runtime.FindContainer(pod, u.Name))
		if limit := own.Limits.Memory().Value(); err == nil && used >= uint64(limit) {
			err = fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", u.Name, limit, used)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
