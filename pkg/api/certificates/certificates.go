// Package certificates knows what is true of the kinds of certificates.k8s.io/v1
// wherever they are handled: their defaults ([AddDefaults]), the field selectors that
// they take ([AddFieldLabels]) and what makes them invalid (the Validate functions).
package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	legacyUnknownSigner  = "kubernetes.io/legacy-unknown"
	minExpirationSeconds = 600
)

var (
	specPath       = field.NewPath("spec")
	conditionsPath = field.NewPath("status", "conditions")
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, setPodCertificateRequest)
	return nil
}

// AddFieldLabels registers the field selectors that kinds of the group take
// besides those that every kind takes.
func AddFieldLabels(s *runtime.Scheme) error {
	for kind, labels := range map[string][]string{
		"CertificateSigningRequest": {"spec.signerName"},
		"ClusterTrustBundle":        {"spec.signerName"},
		"PodCertificateRequest":     {"spec.signerName", "spec.podName", "spec.nodeName"}, // not metadata.namespace, though it is in one
	} {
		for _, gv := range []schema.GroupVersion{certificatesv1.SchemeGroupVersion, certificatesv1beta1.SchemeGroupVersion} {
			if err := rules.ClusterFieldLabels(s, gv.WithKind(kind), labels...); err != nil {
				return err
			}
		}
	}
	return nil
}

// ParseRequest reads the PEM-encoded PKCS#10 request of a CertificateSigningRequest.
func ParseRequest(data []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// ValidateCertificateSigningRequest says what is wrong with a new CertificateSigningRequest.
func ValidateCertificateSigningRequest(c *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := rules.ClusterScoped(&c.ObjectMeta, rules.PathSegment)
	if request, err := ParseRequest(c.Spec.Request); err != nil {
		errs = append(errs, field.Invalid(specPath.Child("request"), c.Spec.Request, err.Error()))
	} else if err := request.CheckSignature(); err != nil {
		errs = append(errs, field.Invalid(specPath.Child("request"), c.Spec.Request, err.Error()))
	}
	errs = append(errs, validateUsages(c.Spec.Usages)...)
	errs = append(errs, rules.SignerName(c.Spec.SignerName, specPath.Child("signerName"))...)
	if c.Spec.SignerName == legacyUnknownSigner {
		errs = append(errs, field.Invalid(specPath.Child("signerName"), c.Spec.SignerName, "the legacy signerName is not allowed via this API version"))
	}
	if s := c.Spec.ExpirationSeconds; s != nil && *s < minExpirationSeconds {
		errs = append(errs, field.Invalid(specPath.Child("expirationSeconds"), *s, fmt.Sprintf("may not specify a duration less than %d seconds (%d minutes)", minExpirationSeconds, minExpirationSeconds/60)))
	}
	return append(errs, validateConditions(c.Status.Conditions)...)
}

var knownUsages = []certificatesv1.KeyUsage{
	certificatesv1.UsageAny, certificatesv1.UsageCertSign, certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning,
	certificatesv1.UsageContentCommitment, certificatesv1.UsageCRLSign, certificatesv1.UsageDataEncipherment,
	certificatesv1.UsageDecipherOnly, certificatesv1.UsageDigitalSignature, certificatesv1.UsageEmailProtection,
	certificatesv1.UsageEncipherOnly, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
	certificatesv1.UsageIPsecUser, certificatesv1.UsageKeyAgreement, certificatesv1.UsageKeyEncipherment,
	certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC, certificatesv1.UsageOCSPSigning,
	certificatesv1.UsageSMIME, certificatesv1.UsageServerAuth, certificatesv1.UsageSigning, certificatesv1.UsageTimestamping,
}

func validateUsages(usages []certificatesv1.KeyUsage) field.ErrorList {
	p := specPath.Child("usages")
	if len(usages) == 0 {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	for i, usage := range usages {
		errs = append(errs, rules.OneOf(usage, p.Index(i), knownUsages...)...)
		if slices.Contains(usages[:i], usage) {
			errs = append(errs, field.Duplicate(p.Index(i), usage))
		}
	}
	return errs
}

// ValidateCertificateSigningRequestUpdate says what is wrong with an update of a CertificateSigningRequest.
func ValidateCertificateSigningRequestUpdate(c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	return append(errs, validateConditionsUpdate(c, old, false)...)
}

// ValidateCertificateSigningRequestStatusUpdate says what is wrong with an update of the status of a CertificateSigningRequest.
func ValidateCertificateSigningRequestStatusUpdate(c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateConditionsUpdate(c, old, false)...)
	if slices.Equal(c.Status.Certificate, old.Status.Certificate) {
		return errs
	}
	p := field.NewPath("status", "certificate")
	switch {
	case len(old.Status.Certificate) > 0:
		errs = append(errs, field.Forbidden(p, "updates may not set certificate content if it is already set"))
	default:
		if err := validateCertificate(c.Status.Certificate); err != nil {
			errs = append(errs, field.Invalid(p, "<certificate data>", err.Error()))
		}
	}
	return errs
}

// ValidateCertificateSigningRequestApprovalUpdate says what is wrong with an update of the approval of a CertificateSigningRequest.
func ValidateCertificateSigningRequestApprovalUpdate(c, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	return append(errs, validateConditionsUpdate(c, old, true)...)
}

func validateCertificate(data []byte) error {
	found := false
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		certs, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(certs) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		found = true
	}
	if !found {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}

func validateConditions(conditions []certificatesv1.CertificateSigningRequestCondition) field.ErrorList {
	var errs field.ErrorList
	has := map[certificatesv1.RequestConditionType]bool{}
	for i, c := range conditions {
		p := conditionsPath.Index(i)
		if c.Type == "" {
			errs = append(errs, field.Required(p.Child("type"), ""))
		}
		switch {
		case c.Status == "":
			errs = append(errs, field.Required(p.Child("status"), ""))
		case isFinal(c.Type):
			errs = append(errs, rules.OneOf(c.Status, p.Child("status"), corev1.ConditionTrue)...)
		default:
			errs = append(errs, rules.OneOf(c.Status, p.Child("status"), corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
		}
		if has[c.Type] {
			errs = append(errs, field.Duplicate(p.Child("type"), c.Type))
		}
		has[c.Type] = true
	}
	if has[certificatesv1.CertificateApproved] && has[certificatesv1.CertificateDenied] {
		approved, denied := `conditions[{"type": "Approved"}]`, `conditions[{"type": "Denied"}]`
		errs = append(errs, field.Invalid(conditionsPath, fmt.Sprintf("{%s, %s}", approved, denied), fmt.Sprintf("must specify at most one of: `%s`, `%s`", approved, denied)))
	}
	return errs
}

// isFinal reports whether a condition, once there, is true.
func isFinal(kind certificatesv1.RequestConditionType) bool {
	return kind == certificatesv1.CertificateApproved || kind == certificatesv1.CertificateDenied || kind == certificatesv1.CertificateFailed
}

// validateConditionsUpdate checks the conditions, and that none that is final goes,
// nor comes other than through the approval.
func validateConditionsUpdate(c, old *certificatesv1.CertificateSigningRequest, approval bool) field.ErrorList {
	errs := validateConditions(c.Status.Conditions)
	for _, kind := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		is, was := conditionsOf(c, kind), conditionsOf(old, kind)
		if len(was) > 0 && !slices.Equal(is, was) {
			verb := "modify"
			if len(is) == 0 {
				verb = "remove"
			}
			errs = append(errs, field.Forbidden(conditionsPath, fmt.Sprintf("updates may not %s a condition of type %q", verb, kind)))
		}
		if len(is) > 0 && len(was) == 0 && !approval && kind != certificatesv1.CertificateFailed {
			errs = append(errs, field.Forbidden(conditionsPath, fmt.Sprintf("updates may not add a condition of type %q", kind)))
		}
	}
	return errs
}

func conditionsOf(c *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) []certificatesv1.CertificateSigningRequestCondition {
	var found []certificatesv1.CertificateSigningRequestCondition
	for _, condition := range c.Status.Conditions {
		if condition.Type == kind {
			found = append(found, condition)
		}
	}
	return found
}
