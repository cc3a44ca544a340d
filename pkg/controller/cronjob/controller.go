// Package cronjob creates Jobs at the times of a schedule.
package cronjob

import (
	"context"
	"errors"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

var kind = batchv1.SchemeGroupVersion.WithKind("CronJob")

// Controller reconciles CronJobs.
type Controller struct {
	client client.Client
	live   client.Reader
	events record.EventRecorder
	clock  clock.PassiveClock
	skew   *metrics.Histogram
}

// New returns the controller.
func New(c client.Client, live client.Reader, events record.EventRecorder, registry metrics.KubeRegistry) *Controller {
	skew := metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: "cronjob_controller", Name: "job_creation_skew_duration_seconds", StabilityLevel: metrics.STABLE,
		Help: "Time between when a Job was to start and when it was created", Buckets: metrics.ExponentialBuckets(1, 2, 10),
	})
	registry.MustRegister(skew)
	return &Controller{client: c, live: live, events: events, clock: clock.RealClock{}, skew: skew}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	owner := handler.EnqueueRequestForOwner(mgr.GetScheme(), mgr.GetRESTMapper(), &batchv1.CronJob{}, handler.OnlyControllerOwner())
	return builder.ControllerManagedBy(mgr).Named("cronjob-controller").WithOptions(o).
		Watches(&batchv1.CronJob{}, c.changed()).
		Watches(&batchv1.Job{}, owner).
		Complete(conflict.Ignored(ownwrites.Remembered(c)))
}

// changed wakes the controller for a CronJob. A schedule that has just been written holds from now on: a time
// in it that has passed already is not made up for.
func (c *Controller) changed() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	request := func(o client.Object) reconcile.Request {
		return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { q.Add(request(e.Object)) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { q.Add(request(e.Object)) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			before, after := e.ObjectOld.(*batchv1.CronJob), e.ObjectNew.(*batchv1.CronJob)
			if before.Spec.Schedule != after.Spec.Schedule && !ptr.Deref(after.Spec.Suspend, false) {
				if s, err := parse(after); err == nil {
					q.AddAfter(request(after), s.wait(c.clock.Now()))
					return
				}
			}
			q.Add(request(after))
		},
	}
}

// Reconcile brings the status of one CronJob up to date and starts a Job if it is time.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	cj := &batchv1.CronJob{}
	if err := c.client.Get(ctx, req.NamespacedName, cj); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	jobs, err := c.jobs(ctx, cj)
	if err != nil {
		return reconcile.Result{}, err
	}
	in := &input{cj: cj, jobs: jobs, now: c.clock.Now()}
	p := in.plan()
	for _, n := range p.news {
		c.events.Event(cj, n.kind, n.reason, n.message)
	}
	actErr := c.act(ctx, cj, p)
	if !equality.Semantic.DeepEqual(cj.Status, p.status) {
		cj.Status = p.status
		if err := c.client.Status().Update(ctx, cj); err != nil {
			return reconcile.Result{}, errors.Join(actErr, client.IgnoreNotFound(err))
		}
	}
	if pods.IsNamespaceTerminating(actErr) {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: p.again}, actErr
}

// jobs returns the Jobs that cj controls.
func (c *Controller) jobs(ctx context.Context, cj *batchv1.CronJob) ([]*batchv1.Job, error) {
	jobs, err := index.Controlled[batchv1.Job](ctx, c.client, cj.Namespace, cj.UID)
	if err != nil {
		return nil, fmt.Errorf("listing Jobs: %w", err)
	}
	// A Job that was started by another manager may be in the status before it is in the cache.
	for _, r := range cj.Status.Active {
		if slices.ContainsFunc(jobs, func(j *batchv1.Job) bool { return j.UID == r.UID }) {
			continue
		}
		j := &batchv1.Job{}
		err := c.live.Get(ctx, client.ObjectKey{Namespace: cj.Namespace, Name: r.Name}, j)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("getting Job %s: %w", r.Name, err)
		}
		if err == nil && j.UID == r.UID && metav1.IsControlledBy(j, cj) {
			jobs = append(jobs, j)
		}
	}
	return jobs, nil
}

// act carries out a plan and puts what has come of it into the plan's status.
func (c *Controller) act(ctx context.Context, cj *batchv1.CronJob, p *plan) error {
	var errs []error
	for _, j := range p.old {
		errs = append(errs, c.delete(ctx, cj, p, j))
	}
	for _, j := range p.replaced {
		if err := c.delete(ctx, cj, p, j); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	if p.create != nil {
		errs = append(errs, c.create(ctx, cj, p))
	}
	return errors.Join(errs...)
}

func (c *Controller) delete(ctx context.Context, cj *batchv1.CronJob, p *plan, j *batchv1.Job) error {
	err := c.client.Delete(ctx, j, client.Preconditions{UID: &j.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		if !apierrors.IsConflict(err) {
			c.events.Eventf(cj, corev1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
		}
		return fmt.Errorf("deleting Job %s: %w", j.Name, err)
	}
	p.drop(j)
	c.events.Eventf(cj, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job %v", j.Name)
	return nil
}

// create starts the Job that is due. One that is there already is from an attempt that did not get to
// write it down.
func (c *Controller) create(ctx context.Context, cj *batchv1.CronJob, p *plan) error {
	job := p.create
	err := c.client.Create(ctx, job)
	switch {
	case err == nil:
		c.events.Eventf(cj, corev1.EventTypeNormal, "SuccessfulCreate", "Created job %v", job.Name)
		c.skew.Observe(job.CreationTimestamp.Sub(p.at).Seconds())
	case apierrors.IsAlreadyExists(err):
		if err := c.live.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return fmt.Errorf("getting Job %s: %w", job.Name, err)
		}
		if !metav1.IsControlledBy(job, cj) {
			return nil // another's, and it has the name: this start is lost
		}
		if ended(job) != "" {
			p.status.LastScheduleTime = ptr.To(metav1.NewTime(p.at))
			return nil
		}
	default:
		if !pods.IsNamespaceTerminating(err) {
			c.events.Eventf(cj, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
		}
		return fmt.Errorf("creating Job %s: %w", job.Name, err)
	}
	ref, err := reference.GetReference(scheme.Scheme, job)
	if err != nil {
		return fmt.Errorf("referring to Job %s: %w", job.Name, err)
	}
	if !slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == ref.UID }) {
		p.status.Active = append(p.status.Active, *ref)
	}
	p.status.LastScheduleTime = ptr.To(metav1.NewTime(p.at))
	return nil
}
