// Package podcertificatecleaner deletes PodCertificateRequests a while after they have
// been made: by then, whoever wanted the certificate has it or has given up.
package podcertificatecleaner

import (
	"context"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// lifetime is how long a request is kept.
const lifetime = 15 * time.Minute

// Controller reconciles PodCertificateRequests.
type Controller struct {
	client client.Client
	clock  clock.PassiveClock
}

// New returns the controller.
func New(c client.Client) *Controller { return &Controller{client: c, clock: clock.RealClock{}} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	created := predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	return builder.ControllerManagedBy(mgr).Named("podcertificaterequest-cleaner-controller").WithOptions(o).
		For(&certificatesv1.PodCertificateRequest{}, builder.WithPredicates(created)).Complete(c)
}

// Reconcile deletes one request if it is old enough.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	r := &certificatesv1.PodCertificateRequest{}
	if err := c.client.Get(ctx, req.NamespacedName, r); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if left := r.CreationTimestamp.Add(lifetime).Sub(c.clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if err := c.client.Delete(ctx, r, client.Preconditions{UID: &r.UID}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("deleting the request: %w", err)
	}
	return reconcile.Result{}, nil
}
