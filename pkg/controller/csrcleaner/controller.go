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
	at := expires(r)
	if at.IsZero() {
		return reconcile.Result{}, nil
	}
	if left := at.Sub(c.clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	klog.FromContext(ctx).V(2).Info("Deleting an old request")
	if err := c.client.Delete(ctx, r, client.Preconditions{UID: &r.UID}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("deleting the request: %w", err)
	}
	return reconcile.Result{}, nil
}

// expires returns the time from which a request is not needed any more, which is zero if there is none. Nobody decides after a day; what has been decided
// is kept for as long from then on, and a certificate for as long as it is valid.
func expires(r *certificatesv1.CertificateSigningRequest) (at time.Time) {
	earlier := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	issued, decided := len(r.Status.Certificate) > 0, false
	for _, c := range r.Status.Conditions {
		keep := keepSettled
		switch c.Type {
		case certificatesv1.CertificateApproved:
			if !issued {
				keep = keepPending
			}
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
		default:
			continue
		}
		decided = true
		if !c.LastUpdateTime.IsZero() {
			earlier(c.LastUpdateTime.Add(keep))
		}
	}
	if !decided {
		earlier(r.CreationTimestamp.Add(keepPending))
	}
	if issued {
		if certs, err := cert.ParseCertsPEM(r.Status.Certificate); err == nil {
			earlier(certs[0].NotAfter)
		}
	}
	return at
}
