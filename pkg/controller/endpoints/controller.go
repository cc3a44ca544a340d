// Package endpoints publishes the pods behind each Service in Endpoints, the older
// and simpler form of EndpointSlices.
package endpoints

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	endpointsliceutil "k8s.io/endpointslice/util"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/servicepods"
)

const (
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	managedBy      = "endpoint-controller"
)

// Controller reconciles Services.
type Controller struct {
	client   client.Client
	events   record.EventRecorder
	delay    time.Duration
	triggers *endpointsliceutil.TriggerTimeTracker
}

// New returns the controller. Changes of pods wait for delay, in which more may gather.
func New(c client.Client, events record.EventRecorder, delay time.Duration) *Controller {
	return &Controller{client: c, events: events, delay: delay, triggers: endpointsliceutil.NewTriggerTimeTracker()}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named("endpoints-controller").WithOptions(o).
		For(&corev1.Service{}).
		Watches(&corev1.Pod{}, servicepods.OnPod(c.client, c.delay)).
		Watches(&corev1.Endpoints{}, onEndpoints()).
		Complete(c) // after a conflict too it has to look again: nobody tells it of a change of Endpoints
}

// onEndpoints looks at Services whose Endpoints have been deleted, and at the start at all that are known: they may be those of a Service that is no more. What
// somebody writes into Endpoints stays until the Service or its pods change, as Kubernetes has it.
func onEndpoints() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	same := func(o client.Object, q queue) {
		if o.GetLabels()[managedByLabel] == managedBy {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) {
			if e.IsInInitialList {
				same(e.Object, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { same(e.Object, q) },
	}
}

// Reconcile brings the Endpoints of one Service up to date.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	svc := &corev1.Service{}
	err := c.client.Get(ctx, req.NamespacedName, svc)
	if apierrors.IsNotFound(err) {
		c.triggers.DeleteService(req.Namespace, req.Name)
		return reconcile.Result{}, c.remove(ctx, req)
	}
	if err != nil || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.Selector == nil || svc.DeletionTimestamp != nil {
		return reconcile.Result{}, err
	}
	selected, err := servicepods.Pods(ctx, c.client, svc)
	if err != nil {
		return reconcile.Result{}, err
	}
	trigger := c.triggers.ComputeEndpointLastChangeTriggerTime(svc.Namespace, svc, selected)
	subsets, truncated := subsetsOf(svc, selected)

	current := &corev1.Endpoints{}
	err = c.client.Get(ctx, req.NamespacedName, current)
	create := apierrors.IsNotFound(err)
	if err != nil && !create {
		return reconcile.Result{}, err
	}
	if create {
		current = &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name}}
	}
	next := current.DeepCopy()
	next.Labels = wantedLabels(svc)
	if !sameSubsets(current.Subsets, subsets) {
		next.Subsets = subsets
	}
	if truncated {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, corev1.EndpointsOverCapacity, "truncated")
	} else {
		delete(next.Annotations, corev1.EndpointsOverCapacity)
	}
	if !create && equality.Semantic.DeepEqual(current, next) {
		return reconcile.Result{}, nil
	}
	if trigger.IsZero() {
		delete(next.Annotations, corev1.EndpointsLastChangeTriggerTime)
	} else {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, corev1.EndpointsLastChangeTriggerTime, trigger.UTC().Format(time.RFC3339Nano))
	}
	verb, reason := "update", "FailedToUpdateEndpoint"
	if create {
		verb, reason = "create", "FailedToCreateEndpoint"
		err = c.client.Create(ctx, next)
	} else {
		err = c.client.Update(ctx, next)
	}
	if err == nil || pods.IsNamespaceTerminating(err) {
		return reconcile.Result{}, nil
	}
	if !apierrors.IsConflict(err) {
		c.events.Eventf(svc, corev1.EventTypeWarning, reason, "Failed to %s endpoint %s/%s: %v", verb, svc.Namespace, svc.Name, err)
	}
	return reconcile.Result{}, fmt.Errorf("%s Endpoints: %w", verb, err)
}

// remove deletes the Endpoints of a Service that is gone, whoever has made them.
func (c *Controller) remove(ctx context.Context, req reconcile.Request) error {
	e := &corev1.Endpoints{}
	if err := c.client.Get(ctx, req.NamespacedName, e); err != nil {
		return client.IgnoreNotFound(err)
	}
	if err := c.client.Delete(ctx, e, client.Preconditions{UID: &e.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting Endpoints: %w", err)
	}
	return nil
}

func wantedLabels(svc *corev1.Service) map[string]string {
	l := map[string]string{}
	for k, v := range svc.Labels {
		if k != corev1.IsHeadlessService {
			l[k] = v
		}
	}
	l[managedByLabel] = managedBy
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		l[corev1.IsHeadlessService] = ""
	}
	return l
}
