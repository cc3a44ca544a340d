package scheduler

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/podstatus"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// attempt is one try at one pod, from the queue to its node or back.
type attempt struct {
	*Scheduler
	fw      *framework.Framework
	state   fwk.CycleState
	queued  *queue.Pod
	pod     *v1.Pod
	started time.Time
	why     explain.Attempt
	// expected is the node that the pod's status has been told of before the pod is bound.
	expected string
}

// scheduleOne takes the next pod and finds it a node. Binding it goes on by itself,
// while the next pod is looked at. It returns false when the queue is closed.
func (s *Scheduler) scheduleOne(ctx context.Context) bool {
	queued := s.queue.Pop()
	if queued == nil {
		return false
	}
	pod := queued.Pod
	fw, ok := s.profiles[pod.Spec.SchedulerName]
	if !ok {
		s.queue.Done(pod.UID)
		return true
	}
	a := &attempt{Scheduler: s, fw: fw, queued: queued, pod: pod, started: s.now(), state: framework.NewCycleState(false)}
	if key, ok := podgroup.EntityOf(pod); ok && s.groups != nil {
		s.scheduleGroup(ctx, a, key)
		return true
	}
	ctx = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "pod", klog.KObj(pod)))

	var (
		placed *v1.Pod
		status *fwk.Status
	)
	s.recorder.Decide(ctx, func(ctx context.Context) (recorded *record.Decided) {
		if s.settled(pod) {
			s.queue.Done(pod.UID)
			return nil
		}
		placed, status, recorded = a.decide(ctx)
		return recorded
	})
	switch {
	case placed == nil:
	case status.IsSuccess():
		s.binding.Go(func() { a.bind(ctx, placed) })
	default:
		a.undo(ctx, placed, status)
	}
	return true
}

// decide finds the pod its node and reserves what it needs there, or sends it back. It
// returns the pod as it will be on the node, and whether all agree to that.
func (a *attempt) decide(ctx context.Context) (placed *v1.Pod, s *fwk.Status, recorded *record.Decided) {
	q := question{fw: a.fw, state: a.state, pod: a.pod, attempt: a.queued.Attempts, start: a.nextStart, seed: seedOf(a.pod, a.queued.Attempts), now: a.started}
	recorded = a.toRecord(q)
	d := a.mind.decide(ctx, q)
	a.why = d.told
	a.why.Time, a.why.Took = a.started, a.now().Sub(a.started)
	a.metrics.search.Observe(a.why.Took.Seconds())
	if ctx.Err() != nil {
		recorded = nil // the end of the scheduler, not of the search
	} else if recorded != nil {
		recorded.Outcome = d.outcome()
	}
	if d.err != nil {
		a.noNode(ctx, d)
		return nil, nil, recorded
	}
	a.nextStart = d.next
	a.Scheduler.why.Add(a.pod, a.why)
	placed, s = a.place(ctx, d.node)
	return placed, s, recorded
}

// toRecord is what a recording says of a try; nil if there is none.
func (a *attempt) toRecord(q question) *record.Decided {
	if a.recorder == nil {
		return nil
	}
	d := &record.Decided{Pod: record.Pod{Namespace: q.pod.Namespace, Name: q.pod.Name, UID: q.pod.UID}, Attempt: q.attempt, Start: q.start, Seed: q.seed, Time: q.now}
	// One that changed after it had been taken from the queue is tried as it was.
	if seen, err := a.pods.Pods(q.pod.Namespace).Get(q.pod.Name); err != nil || seen != q.pod {
		d.Object = &record.Object{Object: q.pod}
	}
	return d
}

// settled reports whether there is nothing to decide for a pod: it is being deleted,
// or has been placed already and its watch event is on its way.
func (s *Scheduler) settled(pod *v1.Pod) bool {
	return pod.DeletionTimestamp != nil || s.cache.IsAssumed(pod.UID)
}

// noNode ends an attempt whose search failed.
func (a *attempt) noNode(ctx context.Context, d decision) {
	if d.fit == nil {
		a.failed(ctx, fwk.AsStatus(d.err), d.promise())
		return
	}
	a.queued.UnschedulablePlugins = d.fit.Diagnosis.UnschedulablePlugins
	a.queued.PendingPlugins = d.fit.Diagnosis.PendingPlugins
	a.failed(ctx, fwk.NewStatus(fwk.Unschedulable, d.told.Message), d.promise())
}

// place takes the pod to be on the node and reserves what it needs there. It returns
// the pod as it will be, nil if it cannot be there at all, and whether all agree.
func (a *attempt) place(ctx context.Context, node string) (*v1.Pod, *fwk.Status) {
	placed, err := a.assume(ctx, a.pod, node)
	if err != nil {
		a.failed(ctx, fwk.AsStatus(err), noPromise)
		return nil, nil
	}
	s := a.fw.RunReservePluginsReserve(ctx, a.state, placed, node)
	if s.IsSuccess() {
		if s = a.fw.RunPermit(ctx, a.state, placed, node); s.IsWait() {
			s = nil
		}
	}
	return placed, s
}

// bind brings the placement about.
func (a *attempt) bind(ctx context.Context, placed *v1.Pod) {
	node := placed.Spec.NodeName
	s := a.fw.RunPreBindPreFlight(ctx, a.state, placed, node)
	if s.IsSuccess() || s.IsSkip() && a.fw.GetWaitingPod(placed.UID) != nil {
		a.expect(ctx, node)
	}
	if s.IsSuccess() || s.IsSkip() {
		s = a.fw.WaitOnPermit(ctx, placed)
	}
	if s.IsSuccess() {
		cancellable, cancel := context.WithCancelCause(ctx)
		a.fw.AddPodInPreBind(placed.UID, cancel)
		s = a.fw.RunPreBind(cancellable, a.state, placed, node)
		if inPreBind := a.fw.GetPodInPreBind(placed.UID); s.IsSuccess() && !inPreBind.MarkPrebound() {
			s = fwk.NewStatus(fwk.Unschedulable, context.Cause(cancellable).Error())
		}
		a.fw.RemovePodInPreBind(placed.UID)
		cancel(nil)
	}
	if s.IsSuccess() {
		var bound bool
		if bound, s = a.bindByExtender(placed); !bound {
			s = a.fw.RunBind(ctx, a.state, placed, node)
		}
	}
	if !s.IsSuccess() {
		a.undo(ctx, placed, s)
		return
	}
	a.queue.Done(placed.UID)
	a.fw.RunPostBind(ctx, a.state, placed, node)
	a.fw.EventRecorder().Eventf(placed, nil, v1.EventTypeNormal, "Scheduled", "Binding",
		"Successfully assigned %s/%s to %s", placed.Namespace, placed.Name, node)
	a.metrics.scheduled(a.queued, a.pod.Spec.SchedulerName, a.now().Sub(a.started), a.now())
}

// expect tells others where the pod is going to be, since something is waited for before
// it is bound (KEP-5278). That they cannot be told does not keep it from being bound.
func (a *attempt) expect(ctx context.Context, node string) {
	var change podstatus.Change
	if change.SetNominatedNodeName(&a.pod.Status, node); change.Empty() {
		return
	}
	a.expected = node
	if err := change.Patch(ctx, a.client, a.pod); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Writing where a pod is going to be to its status", "node", node)
	}
}

// undo takes back what place did.
func (a *attempt) undo(ctx context.Context, placed *v1.Pod, s *fwk.Status) {
	a.fw.RemoveWaitingPod(placed.UID)
	a.fw.RunReservePluginsUnreserve(ctx, a.state, placed, placed.Spec.NodeName)
	if s.IsRejected() {
		fit := unreservable(a.pod, placed.Spec.NodeName, s)
		a.queued.UnschedulablePlugins, a.queued.PendingPlugins = fit.Diagnosis.UnschedulablePlugins, fit.Diagnosis.PendingPlugins
		s = fwk.NewStatus(s.Code(), fit.Error())
	}
	entry := func() record.Entry {
		return record.Entry{Undone: &record.Pod{Namespace: placed.Namespace, Name: placed.Name, UID: placed.UID}}
	}
	a.recorder.Change(ctx, entry, func() {
		a.unassume(placed)
		// Others may have been turned away because of the room that this pod gives back.
		a.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, placed, nil)
		a.failed(ctx, s, noPromise)
	})
}

// failed sends the pod back to the queue and tells the user why.
func (a *attempt) failed(ctx context.Context, s *fwk.Status, nominated *fwk.NominatingInfo) {
	logger := klog.FromContext(ctx)
	reason := v1.PodReasonUnschedulable
	if s.IsRejected() {
		a.queued.UnschedulableCount++
		a.queued.ConsecutiveErrors = 0
		logger.V(2).Info("Pod fits on no node", "reason", s.Message())
	} else {
		reason = v1.PodReasonSchedulerError
		a.queued.UnschedulablePlugins.Clear()
		a.queued.PendingPlugins.Clear()
		a.queued.ConsecutiveErrors++
		if !apierrors.IsNotFound(s.AsError()) && ctx.Err() == nil {
			logger.Error(s.AsError(), "Scheduling failed, trying again")
		}
	}
	a.metrics.failed(reason, a.pod.Spec.SchedulerName, a.now().Sub(a.started))

	// The pod may have gone, or changed, meanwhile.
	info := a.promise(ctx, a.pod, nominated)
	if info == nil {
		a.queue.Done(a.pod.UID)
		return
	}
	current := info.Pod
	if a.expected != "" { // the informer may not know yet
		told := *current
		told.Status.NominatedNodeName = a.expected
		current = &told
	}
	a.queued.PodInfo = info
	a.queue.Return(ctx, a.queued)

	msg := s.Message()
	a.why.Node, a.why.Message = "", msg
	a.Scheduler.why.Add(a.pod, a.why)
	a.binding.Go(func() {
		a.fw.EventRecorder().Eventf(current, nil, v1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", truncate(msg))
		err := a.tell(ctx, current, v1.PodCondition{
			Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: reason, Message: msg, ObservedGeneration: current.Generation,
		}, nominated)
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			logger.Error(err, "Writing why a pod is pending to its status")
		}
	})
}

// tell writes a condition, and the node that is being made ready, to the pod's status, if they changed.
func (s *Scheduler) tell(ctx context.Context, pod *v1.Pod, c v1.PodCondition, nominated *fwk.NominatingInfo) error {
	var change podstatus.Change
	if nominated.Mode() == fwk.ModeOverride {
		change.SetNominatedNodeName(&pod.Status, nominated.NominatedNodeName)
	}
	if change.SetCondition(&pod.Status, c, metav1.NewTime(s.now())); change.Empty() {
		return nil
	}
	return change.Patch(ctx, s.client, pod)
}

// truncate keeps an event's note within the 1,024 bytes that the API accepts.
func truncate(msg string) string {
	const limit, suffix = 1024, " ..."
	if len(msg) <= limit {
		return msg
	}
	return msg[:limit-len(suffix)] + suffix
}
