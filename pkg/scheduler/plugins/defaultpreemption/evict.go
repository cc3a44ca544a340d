package defaultpreemption

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/podstatus"
)

// evictions carries preemptions out, each in a goroutine of its own (KEP-4832). Until
// the last victim's deletion has begun, the pod that gains stays out of the queue: it
// could do nothing but look for victims again.
type evictions struct {
	ctx    context.Context // of the scheduler: an eviction outlives its scheduling cycle
	handle fwk.Handle
	pods   corelisters.PodLister

	mu sync.Mutex
	// gaining has the pods and the groups for which others are evicted, each with the
	// victim that is the last to go once it is that one's turn.
	gaining map[string]*v1.Pod
}

func newEvictions(ctx context.Context, h fwk.Handle, pods corelisters.PodLister) *evictions {
	return &evictions{ctx: ctx, handle: h, pods: pods, gaining: map[string]*v1.Pod{}}
}

// running reports whether victims of a pod, or a group, still have to be evicted. The last
// one's deletion may be seen before the call that began it returns.
func (e *evictions) running(preemptor string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	last, ok := e.gaining[preemptor]
	if !ok || last == nil {
		return ok
	}
	seen, err := e.pods.Pods(last.Namespace).Get(last.Name)
	return err == nil && seen.UID == last.UID && seen.DeletionTimestamp == nil
}

func (e *evictions) note(p preemptor, last *v1.Pod) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gaining[p.key()] = last
}

func (e *evictions) done(p preemptor) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.gaining, p.key())
}

// A preemptor is for whom others are evicted: a pod, or the pods of a group.
type preemptor struct {
	pods  []*v1.Pod
	group fwk.PodGroupInfo // nil for a pod on its own
}

func single(pod *v1.Pod) preemptor { return preemptor{pods: []*v1.Pod{pod}} }

// who is the pod or the group, name what events call it.
func (p *preemptor) who() (object runtime.Object, name string) {
	if p.group == nil {
		return p.pods[0], fmt.Sprintf("pod %v", p.pods[0].UID)
	}
	if c := p.group.GetCompositePodGroup(); c != nil {
		return c, fmt.Sprintf("compositepodgroup %v", c.UID)
	}
	return p.group.GetPodGroup(), fmt.Sprintf("podgroup %v", p.group.GetPodGroup().UID)
}

func (p *preemptor) key() string {
	if p.group != nil {
		return p.group.GetKey()
	}
	return string(p.pods[0].UID)
}

// start evicts the victims of c for p.
func (e *evictions) start(p preemptor, victims []*v1.Pod) {
	victims = slices.DeleteFunc(slices.Clone(victims), func(v *v1.Pod) bool {
		return v.DeletionTimestamp != nil // it is going anyway
	})
	if len(victims) == 0 {
		return
	}
	e.note(p, nil)
	go func() {
		logger := klog.FromContext(e.ctx)
		ctx := klog.NewContext(e.ctx, klog.LoggerWithValues(logger, "preemptor", p.key()))
		silent, err := e.evictAll(ctx, p, victims)
		e.done(p)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Preempting pods")
		}
		// No deletion will tell the queue that the pods are worth another try.
		if err != nil || silent {
			again := map[string]*v1.Pod{}
			for _, pod := range p.pods {
				again[pod.Name] = pod
			}
			e.handle.Activate(logger, again)
		}
	}()
}

// evictAll evicts all victims but one at once, and then that one. silent says that the
// last was only on its way to the node, and has been turned back without an API call.
func (e *evictions) evictAll(ctx context.Context, p preemptor, victims []*v1.Pod) (silent bool, err error) {
	nodes := sets.New[string]()
	for _, v := range victims {
		if node := v.Spec.NodeName; !nodes.Has(node) {
			nodes.Insert(node)
			e.takePromisesBack(ctx, p.pods[0], node)
		}
	}
	last := len(victims) - 1
	errs := make([]error, last)
	e.handle.Parallelizer().Until(ctx, last, func(i int) {
		_, errs[i] = e.evict(ctx, p, victims[i])
	}, Name)
	if err := errors.Join(errs...); err != nil {
		return false, err // the pod tries again and finds the others going
	}
	e.note(p, victims[last])
	return e.evict(ctx, p, victims[last])
}

// takePromisesBack tells pods of lower priority that the node is no longer promised
// to them, so that they look for another one at once.
func (e *evictions) takePromisesBack(ctx context.Context, pod *v1.Pod, node string) {
	for _, p := range e.handle.NominatedPodsForNode(node) {
		other := p.GetPod()
		if !below(other, pod) || other.Status.NominatedNodeName == "" {
			continue
		}
		var change podstatus.Change
		change.SetNominatedNodeName(&other.Status, "")
		if err := change.Patch(ctx, e.handle.ClientSet(), other); err != nil && !apierrors.IsNotFound(err) {
			klog.FromContext(ctx).Error(err, "Taking a promised node back", "pod", klog.KObj(other))
		}
	}
}

// evict makes one victim go. One that has not been bound yet is turned back in memory.
func (e *evictions) evict(ctx context.Context, p preemptor, victim *v1.Pod) (inMemory bool, err error) {
	who, name := p.who()
	note := fmt.Sprintf("Preempted by %s on node %v", name, victim.Spec.NodeName)
	if e.turnBack(victim) {
		inMemory = true
		note += " (in kube-scheduler memory)."
	} else if gone, err := e.delete(ctx, p.pods[0], victim); err != nil || gone {
		return false, err
	}
	klog.FromContext(ctx).V(2).Info("Preempted", "victim", klog.KObj(victim), "inMemory", inMemory)
	e.handle.EventRecorder().Eventf(victim, who, v1.EventTypeNormal, "Preempted", "Preempting", "%s", note)
	return inMemory, nil
}

func (e *evictions) turnBack(victim *v1.Pod) bool {
	if waiting := e.handle.GetWaitingPod(victim.UID); waiting != nil {
		return waiting.Preempt(Name, "preempted")
	}
	if binding := e.handle.GetPodInPreBind(victim.UID); binding != nil {
		return binding.CancelPod("preempted by " + Name)
	}
	return false
}

// delete says in the victim's status why it goes and deletes it.
func (e *evictions) delete(ctx context.Context, pod, victim *v1.Pod) (gone bool, err error) {
	var change podstatus.Change
	change.SetCondition(&victim.Status, v1.PodCondition{
		Type:               v1.DisruptionTarget,
		Status:             v1.ConditionTrue,
		Reason:             v1.PodReasonPreemptionByScheduler,
		Message:            pod.Spec.SchedulerName + ": preempting to accommodate a higher priority pod",
		ObservedGeneration: victim.Generation,
	}, metav1.Now())
	if !change.Empty() {
		if err := change.Patch(ctx, e.handle.ClientSet(), victim); err != nil {
			return absent(err), notAbsent(err)
		}
	}
	err = e.handle.ClientSet().CoreV1().Pods(victim.Namespace).Delete(ctx, victim.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &victim.UID},
	})
	return absent(err), notAbsent(err)
}

// absent reports whether an error says that the victim is not there any more: it is
// gone, or another pod has its name.
func absent(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

func notAbsent(err error) error {
	if absent(err) {
		return nil
	}
	return err
}
