// Package ttlafterfinished deletes Jobs some time after their end.
package ttlafterfinished

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Controller reconciles Jobs.
type Controller struct {
	client client.Client
	live   client.Reader
	clock  clock.PassiveClock
	late   *metrics.Histogram
}

// New returns the controller.
func New(c client.Client, live client.Reader, registry metrics.KubeRegistry) *Controller {
	late := metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: "ttl_after_finished_controller", Name: "job_deletion_duration_seconds", StabilityLevel: metrics.ALPHA,
		Help: "Time between when a Job was to be deleted and when it was", Buckets: metrics.ExponentialBuckets(0.1, 2, 14),
	})
	registry.MustRegister(late)
	return &Controller{client: c, live: live, clock: clock.RealClock{}, late: late}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	limited := predicate.NewPredicateFuncs(func(o client.Object) bool { _, ok := expires(o.(*batchv1.Job)); return ok })
	return builder.ControllerManagedBy(mgr).Named("ttl-after-finished-controller").WithOptions(o).
		For(&batchv1.Job{}, builder.WithPredicates(limited)).Complete(c)
}

// Reconcile deletes one Job if its time has come.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	job := &batchv1.Job{}
	if err := c.client.Get(ctx, req.NamespacedName, job); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	at, ok := expires(job)
	if !ok || job.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	if left := at.Sub(c.clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	// The time may have been prolonged a moment ago, and a deletion cannot be undone.
	if err := c.live.Get(ctx, req.NamespacedName, job); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if at, ok = expires(job); !ok || at.After(c.clock.Now()) {
		return reconcile.Result{}, nil // the watch brings the change
	}
	klog.FromContext(ctx).V(2).Info("Deleting a finished Job")
	err := c.client.Delete(ctx, job, client.PropagationPolicy(metav1.DeletePropagationForeground),
		client.Preconditions{UID: &job.UID, ResourceVersion: &job.ResourceVersion})
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("deleting the Job: %w", err)
	}
	c.late.Observe(c.clock.Since(at).Seconds())
	return reconcile.Result{}, nil
}

// expires returns the time at which a Job is to go, if it has ended and has a limit.
func expires(job *batchv1.Job) (time.Time, bool) {
	if job.Spec.TTLSecondsAfterFinished == nil {
		return time.Time{}, false
	}
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Add(time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second), true
		}
	}
	return time.Time{}, false
}
