// Package endpointslicemirroring copies the Endpoints that somebody writes for a
// Service without a selector into EndpointSlices, which is what proxies read.
package endpointslicemirroring

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// managedBy is the value of the label on the slices that are this controller's.
const managedBy = "endpointslicemirroring-controller.k8s.io"

// Controller reconciles what Endpoints, Services and slices have in common: a name.
type Controller struct {
	client client.Client
	events record.EventRecorder
	max    int
	delay  time.Duration
	counts *measures
}

// New returns the controller, which copies at most max addresses of a set of ports. Changes
// of slices by others wait for delay, in which more may gather.
func New(c client.Client, events record.EventRecorder, max int, delay time.Duration, registry metrics.KubeRegistry) *Controller {
	return &Controller{client: c, events: events, max: max, delay: delay, counts: newMeasures(registry, c)}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named("endpointslice-mirroring-controller").WithOptions(o).
		For(&corev1.Endpoints{}).
		Watches(&corev1.Service{}, &handler.EnqueueRequestForObject{}).
		Watches(&discoveryv1.EndpointSlice{}, c.onSlice()).
		Complete(conflict.Ignored(c))
}

// onSlice enqueues the Service of a slice that is or was this controller's.
func (c *Controller) onSlice() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	enqueue := func(o client.Object, q queue) {
		labels := o.GetLabels()
		if name := labels[discoveryv1.LabelServiceName]; name != "" && labels[discoveryv1.LabelManagedBy] == managedBy {
			q.AddAfter(reconcile.Request{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: name}}, c.delay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { enqueue(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			enqueue(e.ObjectOld, q)
			enqueue(e.ObjectNew, q)
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { enqueue(e.Object, q) },
	}
}

// Reconcile brings the slices of one Endpoints object up to date.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	began := time.Now()
	defer func() { c.counts.looked(time.Since(began)) }()
	var list discoveryv1.EndpointSliceList
	if err := c.client.List(ctx, &list, client.InNamespace(req.Namespace), client.MatchingLabels{
		discoveryv1.LabelServiceName: req.Name, discoveryv1.LabelManagedBy: managedBy,
	}); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing EndpointSlices: %w", err)
	}
	var existing []*discoveryv1.EndpointSlice
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			existing = append(existing, &list.Items[i])
		}
	}
	e, err := c.mirrored(ctx, req)
	if err != nil {
		return reconcile.Result{}, err
	}
	p := plan{delete: existing}
	if e != nil {
		p = mirror(e, existing, c.max)
		c.warn(e, p)
		c.counts.mirrored(p)
	}
	return reconcile.Result{}, c.apply(ctx, p)
}

// mirrored returns the Endpoints to copy, or nil if they are gone or not to be copied.
func (c *Controller) mirrored(ctx context.Context, req reconcile.Request) (*corev1.Endpoints, error) {
	e, svc := &corev1.Endpoints{}, &corev1.Service{}
	for _, o := range []client.Object{e, svc} {
		if err := c.client.Get(ctx, req.NamespacedName, o); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
	}
	_, elects := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	if elects || e.Labels[discoveryv1.LabelSkipMirror] == "true" || svc.Spec.Selector != nil || e.DeletionTimestamp != nil {
		return nil, nil
	}
	return e, nil
}

func (c *Controller) warn(e *corev1.Endpoints, p plan) {
	if p.invalid > 0 {
		c.events.Eventf(e, corev1.EventTypeWarning, "InvalidIPAddress", "Skipped %d invalid IP addresses when mirroring to EndpointSlices", p.invalid)
	}
	if p.skipped > p.invalid {
		c.events.Eventf(e, corev1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", c.max, p.skipped)
	}
}

func (c *Controller) apply(ctx context.Context, p plan) error {
	var errs []error
	for _, s := range p.create {
		if err := c.client.Create(ctx, s); err == nil {
			c.counts.changed("create")
		} else if !pods.IsNamespaceTerminating(err) {
			errs = append(errs, fmt.Errorf("creating an EndpointSlice: %w", err))
		}
	}
	for _, s := range p.update {
		if err := c.client.Update(ctx, s); apierrors.IsConflict(err) {
			return err
		} else if err != nil {
			errs = append(errs, fmt.Errorf("updating EndpointSlice %s: %w", s.Name, err))
		} else {
			c.counts.changed("update")
		}
	}
	for _, s := range p.delete {
		if err := c.client.Delete(ctx, s, client.Preconditions{UID: &s.UID}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("deleting EndpointSlice %s: %w", s.Name, err))
		} else {
			c.counts.changed("delete")
		}
	}
	return errors.Join(errs...)
}
