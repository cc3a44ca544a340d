// Package job runs pods until enough of them have succeeded.
//
// Each pod carries a finalizer until its end is counted in the status, so that no
// end is missed and none is counted twice, whoever deletes pods and whenever the controller
// stops: an ended pod is first written down as uncounted, then loses its finalizer,
// and is counted when it is seen without.
package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/claim"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/job/group"
)

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

// burst bounds the pods that one reconciliation creates, deletes or writes down.
const burst = 500

// Controller reconciles Jobs.
type Controller struct {
	client client.Client
	live   client.Reader
	events record.EventRecorder
	clock  clock.PassiveClock
	counts *measures
	groups *group.Groups // nil if pods are scheduled one by one
}

// New returns the controller. With groups, the pods of a Job are scheduled as a group.
func New(c client.Client, live client.Reader, events record.EventRecorder, registry metrics.KubeRegistry, groups bool) *Controller {
	made := &Controller{client: c, live: live, events: events, clock: clock.RealClock{}, counts: newMeasures(registry)}
	if groups {
		made.groups = group.New(c, events)
	}
	return made
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	selector := func(o client.Object) *metav1.LabelSelector { return o.(*batchv1.Job).Spec.Selector }
	b := builder.ControllerManagedBy(mgr).Named("job-controller").WithOptions(o).
		For(&batchv1.Job{}, builder.WithPredicates(c.counts.jobs())).
		Watches(&corev1.Pod{}, claim.OwnedOrWanted(kind, c.client, &batchv1.JobList{}, selector), builder.WithPredicates(c.counts.pods())).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(leftBy), builder.WithPredicates(claim.Orphans()))
	if c.groups != nil {
		c.groups.Watch(b)
	}
	return b.Complete(conflict.Ignored(ownwrites.Remembered(c)))
}

// leftBy returns the Job that has left a pod behind with its finalizer.
func leftBy(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[batchv1.JobNameLabel]
	if name == "" || !tracked(o.(*corev1.Pod)) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// Reconcile takes one Job a step further.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (_ reconcile.Result, err error) {
	began := c.clock.Now()
	job := &batchv1.Job{}
	err = c.client.Get(ctx, req.NamespacedName, job)
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, c.freePodsOf(ctx, req.NamespacedName, "")
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	if m := job.Spec.ManagedBy; m != nil && *m != batchv1.JobControllerName {
		return reconcile.Result{}, nil
	}
	if finished(job) {
		return reconcile.Result{}, c.freePodsOf(ctx, req.NamespacedName, job.UID)
	}
	selector, err := metav1.LabelSelectorAsSelector(job.Spec.Selector)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(fmt.Errorf("spec.selector: %w", err))
	}
	owned, err := claim.Claim(ctx, claim.Owner{
		Object: job, Kind: kind, Selector: selector, Finalizers: []string{batchv1.JobTrackingFinalizer}, Client: c.client, Live: c.live,
	}, pods.IsActive)
	if err != nil {
		return reconcile.Result{}, err
	}
	group := ""
	if c.groups != nil {
		if group, err = c.groups.Of(ctx, job, len(owned)); err != nil {
			return reconcile.Result{}, err
		}
	}
	in := newInput(job, owned, group, c.clock.Now())
	p := in.plan()
	defer func() { c.counts.synced(job, p, err, c.clock.Since(began)) }()

	var actErr error
	if job.DeletionTimestamp == nil {
		actErr = c.act(ctx, job, p)
	}
	if err := c.writeStatus(ctx, job, p); err != nil {
		return reconcile.Result{}, errors.Join(actErr, client.IgnoreNotFound(err))
	}
	for _, action := range p.handled {
		c.counts.handled.WithLabelValues(string(action)).Inc()
	}
	// What is written down may go; its going brings us back to count it.
	errs := pods.InParallel(len(p.free), func(i int) error { return c.free(ctx, p.free[i]) })
	if pods.IsNamespaceTerminating(actErr) {
		actErr = nil
	}
	return reconcile.Result{RequeueAfter: p.again}, errors.Join(append(errs, actErr)...)
}

// act creates and deletes pods.
func (c *Controller) act(ctx context.Context, job *batchv1.Job, p *plan) error {
	control := pods.Control{Client: c.client, Events: c.events}
	remove := slices.Concat(p.discard, p.remove)
	remove = remove[:min(len(remove), burst)]
	errs := pods.InParallel(len(remove), func(i int) error {
		if i < len(p.discard) {
			if err := c.free(ctx, remove[i]); err != nil {
				return err
			}
		}
		return control.Delete(ctx, job, remove[i])
	})
	create := p.create[:min(len(p.create), burst)]
	created, err := pods.SlowStart(len(create), func(i int) error { return control.Create(ctx, job, create[i].DeepCopy()) })
	if len(create) > 0 {
		c.counts.created(job, created, len(create)-created)
	}
	p.status.Active += int32(created) - int32(len(remove)-len(errs))
	p.status.Ready = ptr.To(min(*p.status.Ready, p.status.Active))
	return errors.Join(append(errs, err)...)
}

// writeStatus writes the status if it has changed, and tells what is new in it.
func (c *Controller) writeStatus(ctx context.Context, job *batchv1.Job, p *plan) error {
	if equality.Semantic.DeepEqual(job.Status, p.status) {
		return nil
	}
	before := job.Status
	job.Status = p.status
	if err := c.client.Status().Update(ctx, job); err != nil {
		return fmt.Errorf("updating the status: %w", err)
	}
	c.counts.written(job, &before, &p.status)
	for _, cond := range p.status.Conditions {
		if old := condition(before, cond.Type); old != nil && old.Status == cond.Status {
			continue
		}
		switch on := cond.Status == corev1.ConditionTrue; {
		case cond.Type == batchv1.JobComplete && on:
			c.events.Event(job, corev1.EventTypeNormal, "Completed", "Job completed")
		case cond.Type == batchv1.JobFailed && on:
			c.events.Event(job, corev1.EventTypeWarning, cond.Reason, cond.Message)
		case cond.Type == batchv1.JobSuspended && on:
			c.events.Event(job, corev1.EventTypeNormal, "Suspended", "Job suspended")
		case cond.Type == batchv1.JobSuspended:
			c.events.Event(job, corev1.EventTypeNormal, "Resumed", "Job resumed")
		}
	}
	return nil
}

// freePodsOf takes the finalizer off the pods of a Job that counts no more: one that
// has finished, or, with an empty uid, one that is gone.
func (c *Controller) freePodsOf(ctx context.Context, key types.NamespacedName, uid types.UID) error {
	var list corev1.PodList
	if err := c.client.List(ctx, &list, client.InNamespace(key.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	var errs []error
	for i := range list.Items {
		p := &list.Items[i]
		ref := metav1.GetControllerOfNoCopy(p)
		counted := ref != nil && ref.Kind == kind.Kind && ref.Name == key.Name && (uid == "" || ref.UID == uid)
		orphaned := ref == nil && uid == "" && p.Labels[batchv1.JobNameLabel] == key.Name
		if tracked(p) && (counted || orphaned) {
			errs = append(errs, c.free(ctx, p.DeepCopy()))
		}
	}
	return errors.Join(errs...)
}

// free takes the finalizer off a pod.
func (c *Controller) free(ctx context.Context, p *corev1.Pod) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": p.UID, "$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer},
	}})
	if err != nil {
		return err
	}
	err = c.client.Patch(ctx, p, client.RawPatch(types.StrategicMergePatchType, data))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("taking the finalizer off pod %s: %w", p.Name, err)
	}
	return nil
}

func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func finished(job *batchv1.Job) bool {
	return isTrue(job.Status, batchv1.JobComplete) || isTrue(job.Status, batchv1.JobFailed)
}

func condition(s batchv1.JobStatus, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func isTrue(s batchv1.JobStatus, t batchv1.JobConditionType) bool {
	c := condition(s, t)
	return c != nil && c.Status == corev1.ConditionTrue
}

// setCondition gives the status a condition; one that holds already is left as it is.
func setCondition(s *batchv1.JobStatus, t batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) {
	c := batchv1.JobCondition{
		Type: t, Status: status, Reason: reason, Message: message,
		LastProbeTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
	}
	if old := condition(*s, t); old == nil {
		s.Conditions = append(s.Conditions, c)
	} else if old.Status != status || old.Reason != reason {
		*old = c
	}
}
