package scheduler

import (
	"context"
	"errors"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podstatus"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
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
	if !ok || s.settled(pod) {
		s.queue.Done(pod.UID)
		return true
	}
	a := &attempt{Scheduler: s, fw: fw, queued: queued, pod: pod, started: s.now(), state: framework.NewCycleState(false)}
	ctx = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "pod", klog.KObj(pod)))

	s.cache.UpdateSnapshot(s.snapshot)
	c := &cycle{fw: fw, snapshot: s.snapshot, percentage: s.percentage(pod.Spec.SchedulerName), start: s.nextStart, memo: s.memo}
	p, err := c.run(ctx, a.state, pod, seedOf(pod, queued.Attempts))
	a.why = explain.Attempt{
		Number: queued.Attempts, Time: a.started, Took: s.now().Sub(a.started),
		Nodes: s.snapshot.Len(), Evaluated: p.evaluated, Feasible: p.feasible,
	}
	if err != nil {
		a.noNode(ctx, err)
		return true
	}
	s.nextStart = p.next
	a.why.Node, a.why.Scores, a.why.Refusals = p.node, explain.Scores(p.scores), explain.Refusals(p.diagnosis, 0, false)
	s.why.Add(pod, a.why)
	if placed := a.place(ctx, p.node); placed != nil {
		s.binding.Go(func() { a.bind(ctx, placed) })
	}
	return true
}

// settled reports whether there is nothing to decide for a pod: it is being deleted,
// or has been placed already and its watch event is on its way.
func (s *Scheduler) settled(pod *v1.Pod) bool {
	return pod.DeletionTimestamp != nil || s.cache.IsAssumed(pod.UID)
}

// noNode ends an attempt whose search failed.
func (a *attempt) noNode(ctx context.Context, err error) {
	var fit *framework.FitError
	if !errors.As(err, &fit) {
		a.failed(ctx, fwk.AsStatus(err), nil)
		return
	}
	a.why.Refusals = explain.Refusals(fit.Diagnosis, fit.NumAllNodes-len(fit.Diagnosis.ByNode), true)
	nominated, considered := makeRoom(ctx, a.fw, a.state, a.pod, fit)
	a.why.Preemption = considered
	a.queued.UnschedulablePlugins = fit.Diagnosis.UnschedulablePlugins
	a.queued.PendingPlugins = fit.Diagnosis.PendingPlugins
	a.failed(ctx, fwk.NewStatus(fwk.Unschedulable, fit.Error()), nominated)
}

// makeRoom asks what can be done for a pod that fits nowhere, and adds the answer to why it does not.
func makeRoom(ctx context.Context, fw *framework.Framework, state fwk.CycleState, pod *v1.Pod, fit *framework.FitError) (*fwk.NominatingInfo, *explain.Preemption) {
	if !fw.HasPostFilter() {
		return nil, nil
	}
	result, s := fw.RunPostFilter(ctx, state, pod, fit.Diagnosis)
	if s.Code() == fwk.Error {
		klog.FromContext(ctx).Error(s.AsError(), "Looking for pods to preempt")
	}
	fit.Diagnosis.PostFilterMsg = s.Message()
	told := &explain.Preemption{}
	if considered, err := state.Read(explain.PreemptionKey); err == nil {
		*told = *considered.(*explain.Preemption)
	}
	told.Message = s.Message()
	if result == nil {
		return nil, told
	}
	return result.NominatingInfo, told
}

// place takes the pod to be on the node and reserves what it needs there. It returns
// the pod as it will be, or nil if the attempt has failed.
func (a *attempt) place(ctx context.Context, node string) *v1.Pod {
	placed := a.pod.DeepCopy()
	placed.Spec.NodeName = node
	info, _ := cache.NewPodInfo(placed) // a bad selector was reported when the pod came
	if err := a.cache.AssumePod(info); err != nil {
		a.failed(ctx, fwk.AsStatus(err), nil)
		return nil
	}
	a.queue.DeleteNominatedPodIfExists(a.pod)

	s := a.fw.RunReservePluginsReserve(ctx, a.state, placed, node)
	if s.IsSuccess() {
		if s = a.fw.RunPermit(ctx, a.state, placed, node); s.IsWait() {
			s = nil
		}
	}
	if !s.IsSuccess() {
		a.undo(ctx, placed, s)
		return nil
	}
	return placed
}

// bind brings the placement about.
func (a *attempt) bind(ctx context.Context, placed *v1.Pod) {
	node := placed.Spec.NodeName
	s := a.fw.WaitOnPermit(ctx, placed)
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

// undo takes back what place did.
func (a *attempt) undo(ctx context.Context, placed *v1.Pod, s *fwk.Status) {
	a.fw.RunReservePluginsUnreserve(ctx, a.state, placed, placed.Spec.NodeName)
	a.cache.ForgetPod(placed)
	// Others may have been turned away because of the room that this pod gives back.
	a.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, placed, nil)
	if s.IsRejected() {
		d := framework.NewDiagnosis()
		d.ByNode[placed.Spec.NodeName] = s
		d.Reject(s)
		a.queued.UnschedulablePlugins, a.queued.PendingPlugins = d.UnschedulablePlugins, d.PendingPlugins
		s = fwk.NewStatus(s.Code(), (&framework.FitError{Pod: a.pod, NumAllNodes: 1, Diagnosis: d}).Error())
	}
	a.failed(ctx, s, nil)
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
	current, err := a.pods.Pods(a.pod.Namespace).Get(a.pod.Name)
	if err != nil || current.UID != a.pod.UID || current.Spec.NodeName != "" {
		a.queue.DeleteNominatedPodIfExists(a.pod)
		a.queue.Done(a.pod.UID)
		return
	}
	info, _ := cache.NewPodInfo(current)
	a.queued.PodInfo = info
	a.queue.AddNominatedPod(logger, info, nominated)
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
	changed := pod.DeepCopy()
	if nominated.Mode() == fwk.ModeOverride {
		changed.Status.NominatedNodeName = nominated.NominatedNodeName
	}
	if !podstatus.SetCondition(&changed.Status, c, metav1.NewTime(s.now())) && changed.Status.NominatedNodeName == pod.Status.NominatedNodeName {
		return nil
	}
	return podstatus.Patch(ctx, s.client, pod, &changed.Status)
}

// truncate keeps an event's note within the 1,024 bytes that the API accepts.
func truncate(msg string) string {
	const limit, suffix = 1024, " ..."
	if len(msg) <= limit {
		return msg
	}
	return msg[:limit-len(suffix)] + suffix
}
