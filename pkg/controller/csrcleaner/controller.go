// Package csrcleaner deletes certificate signing requests that have served their
// purpose or never will.
package csrcleaner

import (
	"context"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// How long a request is kept after its last change.
const (
	keepSettled = time.Hour      // issued, denied or failed
	keepPending = 24 * time.Hour // waiting for approval or for its signer
)

// Controller reconciles certificate signing requests.
type Controller struct {
	client client.Client
	clock  clock.PassiveClock
}

// New returns the controller.
func New(c client.Client) *Controller { return &Controller{client: c, clock: clock.RealClock{}} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named("certificatesigningrequest-cleaner-controller").WithOptions(o).
		For(&certificatesv1.CertificateSigningRequest{}).Complete(c)
}

// Reconcile deletes one request if its time has come.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	r := &certificatesv1.CertificateSigningRequest{}
	if err := c.client.Get(ctx, req.NamespacedName, r); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if left := expires(r).Sub(c.clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	klog.FromContext(ctx).V(2).Info("Deleting an old request")
	if err := c.client.Delete(ctx, r, client.Preconditions{UID: &r.UID}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("deleting the request: %w", err)
	}
	return reconcile.Result{}, nil
}

// expires returns the time from which a request is not needed any more.
func expires(r *certificatesv1.CertificateSigningRequest) time.Time {
	at := r.CreationTimestamp.Add(keepPending)
	for _, c := range r.Status.Conditions {
		keep := keepSettled
		if c.Type == certificatesv1.CertificateApproved && len(r.Status.Certificate) == 0 {
			keep = keepPending
		}
		if t := c.LastUpdateTime.Add(keep); !c.LastUpdateTime.IsZero() && t.Before(at) {
			at = t
		}
	}
	if len(r.Status.Certificate) > 0 {
		if certs, err := cert.ParseCertsPEM(r.Status.Certificate); err == nil && certs[0].NotAfter.Before(at) {
			at = certs[0].NotAfter
		}
	}
	return at
}
