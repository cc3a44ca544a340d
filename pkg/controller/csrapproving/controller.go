// Package csrapproving approves the requests of kubelets for the certificates that
// they talk to the API server with, when they are authorized to make them.
package csrapproving

import (
	"context"
	"crypto/x509"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/csr"
)

// Controller reconciles certificate signing requests.
type Controller struct {
	client    client.Client
	clientset kubernetes.Interface
}

// New returns the controller.
func New(c client.Client, cs kubernetes.Interface) *Controller {
	return &Controller{client: c, clientset: cs}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named("certificatesigningrequest-approving-controller").WithOptions(o).
		For(&certificatesv1.CertificateSigningRequest{}).Complete(c)
}

// rules are tried in order: who may do what is decided by the virtual subresource
// that the requester must be allowed to create.
var rules = []struct {
	subresource string
	message     string
	applies     func(*certificatesv1.CertificateSigningRequest, *x509.CertificateRequest) bool
}{
	{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.",
		func(r *certificatesv1.CertificateSigningRequest, x *x509.CertificateRequest) bool {
			return r.Spec.Username == x.Subject.CommonName
		}},
	{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.",
		func(*certificatesv1.CertificateSigningRequest, *x509.CertificateRequest) bool { return true }},
}

// Reconcile approves one request if it is a kubelet's and its sender may make it.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	r := &certificatesv1.CertificateSigningRequest{}
	if err := c.client.Get(ctx, req.NamespacedName, r); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName || len(r.Status.Certificate) > 0 ||
		csr.Has(r, certificatesv1.CertificateApproved) || csr.Has(r, certificatesv1.CertificateDenied) {
		return reconcile.Result{}, nil
	}
	parsed, err := csr.Parse(r.Spec.Request)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(err)
	}
	if csr.ValidateKubeletClient(parsed, r.Spec.Usages) != nil {
		return reconcile.Result{}, nil // for someone else to decide
	}
	for _, rule := range rules {
		if !rule.applies(r, parsed) {
			continue
		}
		allowed, err := c.allowed(ctx, r, rule.subresource)
		if err != nil {
			return reconcile.Result{}, err
		}
		if !allowed {
			continue
		}
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: rule.message,
		})
		_, err = c.clientset.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, r.Name, r, metav1.UpdateOptions{})
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("approving: %w", err)
		}
		return reconcile.Result{}, nil
	}
	// Roles may still be on their way.
	return reconcile.Result{}, fmt.Errorf("request of %q for a kubelet's client certificate: the subject access review was not approved", r.Spec.Username)
}

func (c *Controller) allowed(ctx context.Context, r *certificatesv1.CertificateSigningRequest, subresource string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range r.Spec.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	review, err := c.clientset.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: certificatesv1.GroupName, Version: "*", Resource: "certificatesigningrequests", Subresource: subresource, Verb: "create",
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("asking whether %q may: %w", r.Spec.Username, err)
	}
	return review.Status.Allowed, nil
}
