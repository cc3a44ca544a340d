// Package csrsigning issues the certificates of approved requests to the four
// signers that Kubernetes itself defines.
package csrsigning

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certutil "k8s.io/client-go/util/certificate/csr"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/csr"
)

// legacyUnknown signs anything for anyone's eyes but the API server's. The
// published constant exists in v1beta1 only.
const legacyUnknown = "kubernetes.io/legacy-unknown"

const (
	// backdate makes up for clocks that are behind.
	backdate = 5 * time.Minute
	// short is a lifetime that the backdate is not taken from.
	short = 8 * time.Hour
	// least is the shortest lifetime that may be asked for.
	least = 10 * time.Minute
)

// Controller reconciles certificate signing requests.
type Controller struct {
	client  client.Client
	signers Signers
	clock   clock.PassiveClock
}

// New returns the controller.
func New(c client.Client, signers Signers) *Controller {
	return &Controller{client: c, signers: signers, clock: clock.RealClock{}}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named("certificatesigningrequest-signing-controller").WithOptions(o).
		For(&certificatesv1.CertificateSigningRequest{}).Complete(c)
}

// Reconcile signs one request, or marks it as failed if it asks for what its signer
// does not give.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	r := &certificatesv1.CertificateSigningRequest{}
	if err := c.client.Get(ctx, req.NamespacedName, r); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if _, ours := c.signers.files[r.Spec.SignerName]; !ours || len(r.Status.Certificate) > 0 ||
		!csr.IsApproved(r) || csr.Has(r, certificatesv1.CertificateFailed) {
		return reconcile.Result{}, nil
	}
	parsed, err := csr.Parse(r.Spec.Request)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(err)
	}
	if err := validate(r.Spec.SignerName, parsed, r.Spec.Usages); err != nil {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error(),
			LastUpdateTime: metav1.NewTime(c.clock.Now()),
		})
		return reconcile.Result{}, c.writeStatus(ctx, r)
	}
	ca, err := c.signers.authority(r.Spec.SignerName)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("signing for %s: %w", r.Spec.SignerName, err)
	}
	if r.Status.Certificate, err = ca.sign(parsed, r.Spec.Usages, lifetime(r.Spec.ExpirationSeconds, c.signers.duration), c.clock.Now()); err != nil {
		return reconcile.Result{}, fmt.Errorf("signing for %s: %w", r.Spec.SignerName, err)
	}
	if err := c.writeStatus(ctx, r); err != nil {
		return reconcile.Result{}, err
	}
	klog.FromContext(ctx).V(2).Info("Issued a certificate", "signer", r.Spec.SignerName)
	return reconcile.Result{}, nil
}

func (c *Controller) writeStatus(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
	if err := c.client.Status().Update(ctx, r); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("updating the status: %w", err)
	}
	return nil
}

// validate says what a signer does not give.
func validate(signer string, r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch signer {
	case certificatesv1.KubeletServingSignerName:
		return csr.ValidateKubeletServing(r, usages)
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return csr.ValidateKubeletClient(r, usages)
	case certificatesv1.KubeAPIServerClientSignerName:
		for _, u := range usages {
			switch u {
			case certificatesv1.UsageKeyEncipherment, certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth:
			default:
				return fmt.Errorf("invalid usage for client certificate: %s", u)
			}
		}
		if !slices.Contains(usages, certificatesv1.UsageClientAuth) {
			return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
		}
	}
	return nil
}

// lifetime is what a request asks for, within limits.
func lifetime(seconds *int32, longest time.Duration) time.Duration {
	if seconds == nil {
		return longest
	}
	return min(max(certutil.ExpirationSecondsToDuration(*seconds), least), longest)
}

// sign issues a certificate for r.
func (a *authority) sign(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage, ttl time.Duration, now time.Time) ([]byte, error) {
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request's own signature: %w", err)
	}
	keyUsage, extended, err := keyUsages(usages)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	from := now.Add(-backdate)
	until := from.Add(ttl)
	if ttl < short {
		until = now.Add(ttl)
	}
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	if !until.After(now) {
		return nil, fmt.Errorf("the authority's certificate has expired at %v", a.cert.NotAfter)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               r.Subject,
		DNSNames:              r.DNSNames,
		IPAddresses:           r.IPAddresses,
		EmailAddresses:        r.EmailAddresses,
		URIs:                  r.URIs,
		PublicKey:             r.PublicKey,
		PublicKeyAlgorithm:    r.PublicKeyAlgorithm,
		NotBefore:             from,
		NotAfter:              until,
		KeyUsage:              keyUsage,
		ExtKeyUsage:           extended,
		BasicConstraintsValid: true,
	}, a.cert, r.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

var keyUsage = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageSigning:           x509.KeyUsageDigitalSignature,
	certificatesv1.UsageDigitalSignature:  x509.KeyUsageDigitalSignature,
	certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment,
	certificatesv1.UsageKeyEncipherment:   x509.KeyUsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement:      x509.KeyUsageKeyAgreement,
	certificatesv1.UsageDataEncipherment:  x509.KeyUsageDataEncipherment,
	certificatesv1.UsageCertSign:          x509.KeyUsageCertSign,
	certificatesv1.UsageCRLSign:           x509.KeyUsageCRLSign,
	certificatesv1.UsageEncipherOnly:      x509.KeyUsageEncipherOnly,
	certificatesv1.UsageDecipherOnly:      x509.KeyUsageDecipherOnly,
}

var extendedKeyUsage = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
	certificatesv1.UsageAny:             x509.ExtKeyUsageAny,
	certificatesv1.UsageServerAuth:      x509.ExtKeyUsageServerAuth,
	certificatesv1.UsageClientAuth:      x509.ExtKeyUsageClientAuth,
	certificatesv1.UsageCodeSigning:     x509.ExtKeyUsageCodeSigning,
	certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageSMIME:           x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageIPsecEndSystem:  x509.ExtKeyUsageIPSECEndSystem,
	certificatesv1.UsageIPsecTunnel:     x509.ExtKeyUsageIPSECTunnel,
	certificatesv1.UsageIPsecUser:       x509.ExtKeyUsageIPSECUser,
	certificatesv1.UsageTimestamping:    x509.ExtKeyUsageTimeStamping,
	certificatesv1.UsageOCSPSigning:     x509.ExtKeyUsageOCSPSigning,
	certificatesv1.UsageMicrosoftSGC:    x509.ExtKeyUsageMicrosoftServerGatedCrypto,
	certificatesv1.UsageNetscapeSGC:     x509.ExtKeyUsageNetscapeServerGatedCrypto,
}

func keyUsages(usages []certificatesv1.KeyUsage) (k x509.KeyUsage, ext []x509.ExtKeyUsage, err error) {
	for _, u := range usages {
		if v, ok := keyUsage[u]; ok {
			k |= v
		} else if v, ok := extendedKeyUsage[u]; ok {
			if !slices.Contains(ext, v) {
				ext = append(ext, v)
			}
		} else {
			return 0, nil, fmt.Errorf("spec.usages: %q is not known", u)
		}
	}
	slices.Sort(ext)
	return k, ext, nil
}
