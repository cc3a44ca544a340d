// Package tokencleaner deletes bootstrap tokens that have expired.
package tokencleaner

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/util/secrets"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Controller reconciles Secrets.
type Controller struct {
	client client.Client
}

// New returns the controller.
func New(c client.Client) *Controller { return &Controller{client: c} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	token := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.(*corev1.Secret).Type == bootstrapapi.SecretTypeBootstrapToken })
	return builder.ControllerManagedBy(mgr).Named("token-cleaner-controller").WithOptions(o).
		For(&corev1.Secret{}, builder.WithPredicates(token)).Complete(c)
}

// Reconcile deletes one token if it has expired.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	s := &corev1.Secret{}
	if err := c.client.Get(ctx, req.NamespacedName, s); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	left, expired := bootstraputil.GetExpiration(s, time.Now())
	if !expired {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	klog.FromContext(ctx).V(2).Info("Deleting an expired bootstrap token")
	if err := c.client.Delete(ctx, s, client.Preconditions{UID: &s.UID}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("deleting the token: %w", err)
	}
	return reconcile.Result{}, nil
}
