package framework

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
)

// maxPermitWait bounds how long a Permit plugin may keep a pod waiting.
const maxPermitWait = 15 * time.Minute

// WaitingPods are the pods that Permit plugins keep waiting and those on their way
// through PreBind, of all profiles.
type WaitingPods struct {
	mu      sync.RWMutex
	waiting map[types.UID]*waitingPod
	preBind map[types.UID]*podInPreBind
}

// NewWaitingPods returns an empty set.
func NewWaitingPods() *WaitingPods {
	return &WaitingPods{waiting: map[types.UID]*waitingPod{}, preBind: map[types.UID]*podInPreBind{}}
}

type waitingPod struct {
	pod     *v1.Pod
	verdict chan *fwk.Status // one verdict, kept until someone waits for it

	mu      sync.Mutex
	pending map[string]*time.Timer
}

func (w *WaitingPods) add(pod *v1.Pod, waits map[string]time.Duration) {
	p := &waitingPod{pod: pod, verdict: make(chan *fwk.Status, 1), pending: map[string]*time.Timer{}}
	p.mu.Lock()
	for plugin, d := range waits {
		p.pending[plugin] = time.AfterFunc(d, func() {
			p.Reject(plugin, fmt.Sprintf("rejected due to timeout after waiting %v at plugin %v", d, plugin))
		})
	}
	p.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[pod.UID] = p
}

func (w *WaitingPods) get(uid types.UID) *waitingPod {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.waiting[uid]
}

func (w *WaitingPods) remove(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.waiting[uid]; p != nil {
		p.stop()
		delete(w.waiting, uid)
	}
}

func (w *WaitingPods) wait(ctx context.Context, pod *v1.Pod) (verdict *fwk.Status) {
	p := w.get(pod.UID)
	if p == nil {
		return nil
	}
	defer w.remove(pod.UID)
	began := time.Now()
	defer func() { sharedRecorder().waited(verdict, time.Since(began)) }()
	select {
	case s := <-p.verdict:
		if s.IsSuccess() || s.IsRejected() {
			return s
		}
		return failed("Permit", s.Plugin(), s)
	case <-ctx.Done():
		return fwk.AsStatus(fmt.Errorf("waiting for Permit plugins: %w", context.Cause(ctx)))
	}
}

// GetPod returns the pod that waits.
func (p *waitingPod) GetPod() *v1.Pod { return p.pod }

// GetPendingPlugins returns the plugins that have not made up their minds.
func (p *waitingPod) GetPendingPlugins() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, 0, len(p.pending))
	for name := range p.pending {
		names = append(names, name)
	}
	return names
}

// Allow is a plugin's consent; the last one lets the pod go on.
func (p *waitingPod) Allow(plugin string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t, ok := p.pending[plugin]; ok {
		t.Stop()
		delete(p.pending, plugin)
	}
	if len(p.pending) == 0 {
		p.decide(nil)
	}
}

// Reject sends the pod back to the queue.
func (p *waitingPod) Reject(plugin, msg string) bool {
	return p.decide(fwk.NewStatus(fwk.Unschedulable, msg).WithPlugin(plugin))
}

// Preempt is Reject on behalf of a pod of higher priority.
func (p *waitingPod) Preempt(plugin, msg string) bool { return p.Reject(plugin, msg) }

func (p *waitingPod) decide(s *fwk.Status) bool {
	select {
	case p.verdict <- s:
		return true
	default:
		return false // decided before
	}
}

func (p *waitingPod) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.pending {
		t.Stop()
	}
}

// podInPreBind is a pod that can still be cancelled until its binding begins.
type podInPreBind struct {
	mu     sync.Mutex
	cancel context.CancelCauseFunc
	over   bool
}

// CancelPod stops the attempt, unless its binding has begun.
func (p *podInPreBind) CancelPod(reason string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	p.over = true
	p.cancel(fmt.Errorf("%s", reason))
	return true
}

// MarkPrebound says that from here on the pod cannot be cancelled.
func (p *podInPreBind) MarkPrebound() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.over
	p.over = true
	return !was
}

// IterateOverWaitingPods calls back for each pod that Permit plugins keep waiting.
func (f *Framework) IterateOverWaitingPods(callback func(fwk.WaitingPod)) {
	f.Waiting.mu.RLock()
	defer f.Waiting.mu.RUnlock()
	for _, p := range f.Waiting.waiting {
		callback(p)
	}
}

// GetWaitingPod returns a pod that waits, nil if it does not.
func (f *Framework) GetWaitingPod(uid types.UID) fwk.WaitingPod {
	if p := f.Waiting.get(uid); p != nil {
		return p
	}
	return nil
}

// RejectWaitingPod sends a waiting pod back to the queue and reports whether it waited.
func (f *Framework) RejectWaitingPod(uid types.UID) bool {
	p := f.Waiting.get(uid)
	return p != nil && p.Reject("", "removed")
}

// RemoveWaitingPod forgets a pod whose attempt ended before anyone waited for its verdict.
func (f *Framework) RemoveWaitingPod(uid types.UID) { f.Waiting.remove(uid) }

// AddPodInPreBind makes an attempt known that can be cancelled.
func (f *Framework) AddPodInPreBind(uid types.UID, cancel context.CancelCauseFunc) {
	f.Waiting.mu.Lock()
	defer f.Waiting.mu.Unlock()
	f.Waiting.preBind[uid] = &podInPreBind{cancel: cancel}
}

// GetPodInPreBind returns such an attempt, nil if there is none.
func (f *Framework) GetPodInPreBind(uid types.UID) fwk.PodInPreBind {
	f.Waiting.mu.RLock()
	defer f.Waiting.mu.RUnlock()
	if p, ok := f.Waiting.preBind[uid]; ok {
		return p
	}
	return nil
}

// RemovePodInPreBind forgets it.
func (f *Framework) RemovePodInPreBind(uid types.UID) {
	f.Waiting.mu.Lock()
	defer f.Waiting.mu.Unlock()
	delete(f.Waiting.preBind, uid)
}
