// Package resourcepoolstatus answers ResourcePoolStatusRequests: how many devices there are in the pools of a driver, and how many of
// them can still be had. A request is answered once, and is gone some time after.
package resourcepoolstatus

import (
	"context"
	"errors"
	"fmt"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/wake"
)

// How long a request stays: with its answer, and without one.
const (
	answeredStays = time.Hour
	pendingStays  = 24 * time.Hour
)

// Controller reconciles ResourcePoolStatusRequests.
type Controller struct {
	client client.Client
	clock  clock.PassiveClock
	counts *measures
}

// New returns the controller.
func New(c client.Client, registry metrics.KubeRegistry) *Controller {
	return &Controller{client: c, clock: clock.RealClock{}, counts: newMeasures(registry)}
}

// Register adds the controller to mgr. A request may wait until the driver of a slice has published all.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	pending := wake.Those(c.client, func(r *resourcev1alpha3.ResourcePoolStatusRequest, slice client.Object) bool {
		return r.Status == nil && r.Spec.Driver == slice.(*resourcev1.ResourceSlice).Spec.Driver
	})
	return builder.ControllerManagedBy(mgr).Named("resourcepoolstatusrequest-controller").WithOptions(o).
		For(&resourcev1alpha3.ResourcePoolStatusRequest{}).
		Watches(&resourcev1.ResourceSlice{}, pending).
		Complete(conflict.Ignored(c))
}

// Reconcile answers one request, or deletes it if its time is over.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	r := &resourcev1alpha3.ResourcePoolStatusRequest{}
	if err := c.client.Get(ctx, req.NamespacedName, r); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if r.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	left := expires(r).Sub(c.clock.Now())
	if left <= 0 {
		return reconcile.Result{}, client.IgnoreNotFound(c.client.Delete(ctx, r, client.Preconditions{UID: &r.UID, ResourceVersion: &r.ResourceVersion}))
	}
	if r.Status != nil {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	began := c.clock.Now()
	v, err := c.look(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	status, pending := v.answer(r.Spec, began)
	if pending != "" {
		klog.FromContext(ctx).V(2).Info("A pool is incomplete", "driver", r.Spec.Driver, "pool", pending)
		return reconcile.Result{RequeueAfter: left}, nil // its next slice brings us back
	}
	r.Status = status
	err = c.client.Status().Update(ctx, r)
	c.counts.processed(r.Spec.Driver, err, c.clock.Since(began))
	return reconcile.Result{}, client.IgnoreNotFound(err)
}

// look reads what requests are answered from.
func (c *Controller) look(ctx context.Context) (view, error) {
	var (
		slices resourcev1.ResourceSliceList
		claims resourcev1.ResourceClaimList
		rules  resourcev1.DeviceTaintRuleList
	)
	if err := errors.Join(c.client.List(ctx, &slices, client.UnsafeDisableDeepCopy), c.client.List(ctx, &claims, client.UnsafeDisableDeepCopy),
		c.client.List(ctx, &rules, client.UnsafeDisableDeepCopy)); err != nil {
		return view{}, fmt.Errorf("listing slices, claims and rules: %w", err)
	}
	return view{slices: slices.Items, claims: claims.Items, rules: rules.Items}, nil
}

// expires returns the time at which a request is to go.
func expires(r *resourcev1alpha3.ResourcePoolStatusRequest) time.Time {
	if r.Status != nil {
		for _, c := range r.Status.Conditions {
			if c.Type == resourcev1alpha3.ResourcePoolStatusRequestConditionComplete || c.Type == resourcev1alpha3.ResourcePoolStatusRequestConditionFailed {
				return c.LastTransitionTime.Add(answeredStays)
			}
		}
	}
	return r.CreationTimestamp.Add(pendingStays)
}
