// Package serviceaccount gives each namespace the ServiceAccount that pods get
// when they ask for no other.
package serviceaccount

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

const name = "default"

// Controller reconciles namespaces.
type Controller struct {
	client client.Client
}

// New returns the controller.
func New(c client.Client) *Controller { return &Controller{client: c} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	deleted := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(e event.DeleteEvent) bool { return e.Object.GetName() == name },
	}
	return builder.ControllerManagedBy(mgr).Named("serviceaccount-controller").WithOptions(o).
		For(&corev1.Namespace{}).
		Watches(&corev1.ServiceAccount{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: o.GetNamespace()}}}
		}), builder.WithPredicates(deleted)).
		Complete(c)
}

// Reconcile creates the ServiceAccount of a namespace if it is missing.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	ns := &corev1.Namespace{}
	if err := c.client.Get(ctx, req.NamespacedName, ns); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if ns.Status.Phase == corev1.NamespaceTerminating || ns.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name}}
	err := c.client.Get(ctx, client.ObjectKeyFromObject(sa), sa)
	if !apierrors.IsNotFound(err) {
		return reconcile.Result{}, err
	}
	if err := c.client.Create(ctx, sa); err != nil && !apierrors.IsAlreadyExists(err) && !pods.IsNamespaceTerminating(err) {
		return reconcile.Result{}, fmt.Errorf("creating ServiceAccount %s/%s: %w", ns.Name, name, err)
	}
	return reconcile.Result{}, nil
}
