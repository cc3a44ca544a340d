package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// Bounds of what a pod's certificate is asked for with and issued as.
const (
	maxUID              = 128
	maxStubRequest      = 10 << 10
	maxPublicKey        = 10 << 10
	maxProof            = 10 << 10
	maxCertificateChain = 100 << 10

	defaultPodCertificateSeconds = 24 * 60 * 60
	minPodCertificateSeconds     = 60 * 60
	maxPodCertificateSeconds     = 91 * 24 * 60 * 60
	maxOwnCertificateSeconds     = 24 * 60 * 60 // by Kubernetes' own signers

	maxClockSkew = 5 * time.Minute
	refreshSlack = 10 * time.Minute
)

var (
	stubPath           = specPath.Child("stubPKCS10Request")
	pkixPath           = specPath.Child("pkixPublicKey")
	proofPath          = specPath.Child("proofOfPossession")
	maxExpirationPath  = specPath.Child("maxExpirationSeconds")
	podStatusPath      = field.NewPath("status")
	chainPath          = podStatusPath.Child("certificateChain")
	beginRefreshAtPath = podStatusPath.Child("beginRefreshAt")
)

func setPodCertificateRequest(r *certificatesv1beta1.PodCertificateRequest) {
	rules.SetPtr(&r.Spec.MaxExpirationSeconds, defaultPodCertificateSeconds)
}

// ValidatePodCertificateRequest says what is wrong with a new PodCertificateRequest.
func ValidatePodCertificateRequest(r *certificatesv1beta1.PodCertificateRequest) field.ErrorList {
	errs := core.ValidateObjectMeta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, rules.SignerName(r.Spec.SignerName, specPath.Child("signerName"))...)
	annotations := specPath.Child("unverifiedUserAnnotations")
	for key := range r.Spec.UnverifiedUserAnnotations {
		errs = append(errs, validation.IsDomainPrefixedKey(annotations, strings.ToLower(key))...)
	}
	if apivalidation.ValidateAnnotationsSize(r.Spec.UnverifiedUserAnnotations) != nil {
		errs = append(errs, field.TooLong(annotations, "" /*unused*/, apivalidation.TotalAnnotationSizeLimitB))
	}
	for _, of := range []struct {
		kind string
		name any
		text string
		uid  types.UID
	}{
		{"pod", r.Spec.PodName, r.Spec.PodName, r.Spec.PodUID},
		{"serviceAccount", r.Spec.ServiceAccountName, r.Spec.ServiceAccountName, r.Spec.ServiceAccountUID},
		{"node", r.Spec.NodeName, string(r.Spec.NodeName), r.Spec.NodeUID},
	} {
		errs = append(errs, rules.Messages(specPath.Child(of.kind+"Name"), of.name, validation.IsDNS1123Subdomain(of.text))...)
		uid := specPath.Child(of.kind + "UID")
		switch {
		case of.uid == "":
			errs = append(errs, field.Invalid(uid, of.uid, "must not be empty"))
		case len(of.uid) > maxUID:
			errs = append(errs, field.TooLong(uid, of.uid, maxUID))
		}
	}
	if r.Spec.MaxExpirationSeconds == nil {
		return append(errs, field.Required(maxExpirationPath, "must be set"))
	}
	most := int32(maxPodCertificateSeconds)
	if isKubernetesSigner(r.Spec.SignerName) {
		most = maxOwnCertificateSeconds
	}
	if s := *r.Spec.MaxExpirationSeconds; s < minPodCertificateSeconds || s > most {
		errs = append(errs, field.Invalid(maxExpirationPath, s, fmt.Sprintf("must be in the range [%d, %d]", minPodCertificateSeconds, most)))
	}
	switch stub, key, proof := len(r.Spec.StubPKCS10Request) > 0, len(r.Spec.PKIXPublicKey) > 0, len(r.Spec.ProofOfPossession) > 0; {
	case stub && !key && !proof:
		return append(errs, validateStub(r.Spec.StubPKCS10Request)...)
	case !stub && key && proof:
		return append(errs, validateProof(&r.Spec)...)
	}
	return append(errs, field.Invalid(specPath, field.OmitValueType{}, "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"))
}

func isKubernetesSigner(name string) bool {
	domain, _, _ := strings.Cut(name, "/")
	return domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io")
}

// validateStub checks a request that proves, with its signature, that who makes it has
// the key. What else it says is of no matter.
func validateStub(der []byte) field.ErrorList {
	refuse := func(value any, detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(stubPath, value, detail)}
	}
	if len(der) > maxStubRequest {
		return field.ErrorList{field.TooLong(stubPath, der, maxStubRequest)}
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return refuse(field.OmitValueType{}, "must be a valid PKCS#10 CSR")
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if !slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, key.Curve) {
			return refuse("curve "+key.Curve.Params().Name, "elliptic public keys must use curve P256, P384, or P521")
		}
	case *rsa.PublicKey:
		if bits := key.Size() * 8; bits != 3072 && bits != 4096 {
			return refuse(fmt.Sprintf("%d-bit modulus", bits), "RSA keys must have modulus size 3072 or 4096")
		}
	default:
		return refuse(field.OmitValueType{}, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")
	}
	if err := request.CheckSignature(); err != nil {
		return refuse(field.OmitValueType{}, "invalid signature")
	}
	return nil
}

// validateProof checks a public key, and the signature of the pod's UID that proves that
// who makes the request has the private one.
func validateProof(spec *certificatesv1beta1.PodCertificateRequestSpec) field.ErrorList {
	refuse := func(value any, detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(pkixPath, value, detail)}
	}
	switch {
	case len(spec.PKIXPublicKey) > maxPublicKey:
		return field.ErrorList{field.TooLong(pkixPath, spec.PKIXPublicKey, maxPublicKey)}
	case len(spec.ProofOfPossession) > maxProof:
		return field.ErrorList{field.TooLong(proofPath, spec.ProofOfPossession, maxProof)}
	}
	public, err := x509.ParsePKIXPublicKey(spec.PKIXPublicKey)
	if err != nil {
		return refuse(spec.PKIXPublicKey, "must be a valid PKIX-serialized public key")
	}
	uid := []byte(spec.PodUID)
	digest := sha256.Sum256(uid)
	var proven bool
	switch key := public.(type) {
	case ed25519.PublicKey:
		proven = ed25519.Verify(key, uid, spec.ProofOfPossession)
	case *ecdsa.PublicKey:
		if !slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, key.Curve) {
			return refuse("curve "+key.Curve.Params().Name, "elliptic public keys must use curve P256 or P384")
		}
		proven = ecdsa.VerifyASN1(key, digest[:], spec.ProofOfPossession)
	case *rsa.PublicKey:
		if bits := key.Size() * 8; bits != 3072 && bits != 4096 {
			return refuse(fmt.Sprintf("%d-bit modulus", bits), "RSA keys must have modulus size 3072 or 4096")
		}
		proven = rsa.VerifyPSS(key, crypto.SHA256, digest[:], spec.ProofOfPossession, nil) == nil
	default:
		return refuse(spec.PKIXPublicKey, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")
	}
	if !proven {
		return field.ErrorList{field.Invalid(proofPath, field.OmitValueType{}, "could not verify proof-of-possession signature")}
	}
	return nil
}

// ValidatePodCertificateRequestUpdate says what is wrong with an update of a
// PodCertificateRequest: what is asked for stays.
func ValidatePodCertificateRequestUpdate(r, old *certificatesv1beta1.PodCertificateRequest) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, rules.Immutable(r.Spec, old.Spec, specPath)...)
}

// ValidatePodCertificateRequestStatusUpdate says what is wrong with an update of the
// status of a PodCertificateRequest: it is issued, denied or failed, once.
func ValidatePodCertificateRequestStatusUpdate(r, old *certificatesv1beta1.PodCertificateRequest, now time.Time) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	if len(errs) > 0 {
		return errs
	}
	if errs := validateOutcomes(r.Status.Conditions); len(errs) > 0 {
		return errs
	}
	same := func(want *certificatesv1beta1.PodCertificateRequestStatus, detail string) field.ErrorList {
		if equality.Semantic.DeepEqual(&r.Status, want) {
			return nil
		}
		return field.ErrorList{field.Invalid(podStatusPath, field.OmitValueType{}, detail)}
	}
	if Outcome(old) != "" {
		return same(&old.Status, "immutable after PodCertificateRequest is issued, denied, or failed")
	}
	switch Outcome(r) {
	case certificatesv1beta1.PodCertificateRequestConditionTypeIssued:
		return validateIssued(r, now)
	case "":
		return same(&old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`)
	}
	return same(&certificatesv1beta1.PodCertificateRequestStatus{Conditions: r.Status.Conditions},
		"non-condition status fields must be empty when denying or failing the PodCertificateRequest")
}

var outcomes = []string{
	certificatesv1beta1.PodCertificateRequestConditionTypeIssued,
	certificatesv1beta1.PodCertificateRequestConditionTypeDenied,
	certificatesv1beta1.PodCertificateRequestConditionTypeFailed,
}

// Outcome is what became of a request, the type of one of its conditions, or "".
func Outcome(r *certificatesv1beta1.PodCertificateRequest) string {
	for _, c := range r.Status.Conditions {
		if c.Status == metav1.ConditionTrue && slices.Contains(outcomes, c.Type) {
			return c.Type
		}
	}
	return ""
}

func validateOutcomes(conditions []metav1.Condition) field.ErrorList {
	var errs field.ErrorList
	for i, c := range conditions {
		// The original's paths have a dot before the index.
		p := conditionsPath.Child(fmt.Sprintf("[%d]", i))
		if !slices.Contains(outcomes, c.Type) {
			errs = append(errs, field.NotSupported(p.Child("type"), c.Type, outcomes))
			continue
		}
		before := func(c metav1.Condition) bool { return slices.Contains(outcomes, c.Type) }
		if slices.ContainsFunc(conditions[:i], before) {
			errs = append(errs, field.Invalid(p.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
		}
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(p.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
	}
	return append(errs, metavalidation.ValidateConditions(conditions, conditionsPath)...)
}

// validateIssued checks an issued certificate, in the order of the certificate, its times
// and those that vouch for it. What comes first is all that is said.
func validateIssued(r *certificatesv1beta1.PodCertificateRequest, now time.Time) field.ErrorList {
	chain := r.Status.CertificateChain
	if len(chain) > maxCertificateChain {
		return field.ErrorList{field.TooLong(chainPath, chain, maxCertificateChain)}
	}
	refuse := func(detail string) field.ErrorList { return field.ErrorList{field.Invalid(chainPath, chain, detail)} }
	block, rest := pem.Decode([]byte(chain))
	switch {
	case block == nil:
		return refuse("issued certificate chain must contain at least one certificate")
	case block.Type != "CERTIFICATE":
		return refuse("issued certificate chain must consist entirely of CERTIFICATE PEM blocks")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return refuse("leaf certificate does not parse as valid X.509")
	}
	errs := validateSubjects(leaf)
	public, refused := requestedKey(&r.Spec)
	if refused != nil {
		return append(errs, refused)
	}
	key, ok := public.(interface{ Equal(crypto.PublicKey) bool })
	if ok && !key.Equal(leaf.PublicKey) {
		return append(errs, refuse("leaf certificate was not issued to the requested public key")...)
	}
	if errs = append(errs, validateTimes(r, leaf, now)...); len(errs) > 0 {
		return errs
	}
	for block, rest = pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return refuse("issued certificate chain must consist entirely of CERTFICATE PEM blocks")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return refuse("intermediate certificate does not parse as valid X.509")
		}
	}
	return nil
}

// requestedKey is the public key that a certificate is asked for.
func requestedKey(spec *certificatesv1beta1.PodCertificateRequestSpec) (crypto.PublicKey, *field.Error) {
	if len(spec.StubPKCS10Request) == 0 {
		key, err := x509.ParsePKIXPublicKey(spec.PKIXPublicKey)
		if err != nil {
			return nil, field.Invalid(pkixPath, field.OmitValueType{}, "must be a valid PKIX-serialized public key")
		}
		return key, nil
	}
	request, err := x509.ParseCertificateRequest(spec.StubPKCS10Request)
	if err != nil {
		return nil, field.Invalid(stubPath, field.OmitValueType{}, "must be a valid PKCS#10 CSR")
	}
	return request.PublicKey, nil
}

func validateSubjects(leaf *x509.Certificate) field.ErrorList {
	var errs field.ErrorList
	refuse := func(bad bool, value, detail string) {
		if bad {
			errs = append(errs, field.Invalid(chainPath, value, detail))
		}
	}
	for _, name := range leaf.DNSNames {
		refuse(name == "", name, "leaf certificate should not contain empty DNSName")
		refuse(strings.Contains(name, ".."), name, "leaf certificate's DNSName should not contain '..'")
		refuse(strings.HasPrefix(name, ".") || strings.HasSuffix(name, "."), name, "leaf certificate's DNSName should not start or end with '.'")
	}
	for _, address := range leaf.EmailAddresses {
		_, err := mail.ParseAddress(address)
		refuse(err != nil, address, "leaf certificate should not contain invalid EmailAddress")
	}
	return errs
}

func validateTimes(r *certificatesv1beta1.PodCertificateRequest, leaf *x509.Certificate, now time.Time) field.ErrorList {
	notBefore, notAfter, refresh := r.Status.NotBefore, r.Status.NotAfter, r.Status.BeginRefreshAt
	notBeforePath, notAfterPath := podStatusPath.Child("notBefore"), podStatusPath.Child("notAfter")
	var errs field.ErrorList
	if notBefore == nil {
		errs = append(errs, field.Required(notBeforePath, "must be present and consistent with the issued certificate"))
	}
	if notAfter == nil {
		errs = append(errs, field.Required(notAfterPath, "must be present and consistent with the issued certificate"))
	}
	if refresh == nil {
		errs = append(errs, field.Required(beginRefreshAtPath, "must be present and in the range [notbefore+10min, notafter-10min]"))
	}
	if len(errs) > 0 {
		return errs
	}
	refuse := func(p *field.Path, value any, detail string) field.ErrorList {
		return field.ErrorList{field.Invalid(p, value, detail)}
	}
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	most := *r.Spec.MaxExpirationSeconds
	switch {
	case !notBefore.Time.Equal(leaf.NotBefore):
		return refuse(notBeforePath, notBefore.Time, "must be set to the NotBefore time encoded in the leaf certificate")
	case notBefore.Sub(now).Abs() >= maxClockSkew:
		return refuse(notBeforePath, notBefore.Time, "must be set to within 5 minutes of kube-apiserver's current time")
	case !notAfter.Time.Equal(leaf.NotAfter):
		return refuse(notAfterPath, notAfter.Time, "must be set to the NotAfter time encoded in the leaf certificate")
	case lifetime < minPodCertificateSeconds*time.Second:
		return refuse(chainPath, lifetime, "leaf certificate lifetime must be >= 1 hour")
	case lifetime > time.Duration(most)*time.Second:
		return refuse(chainPath, lifetime, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%v)", most))
	case refresh.Time.Before(notBefore.Add(refreshSlack)):
		return refuse(beginRefreshAtPath, refresh.Time, "must be at least 10 minutes after status.notBefore")
	case refresh.After(notAfter.Add(-refreshSlack)):
		return refuse(beginRefreshAtPath, refresh.Time, "must be at least 10 minutes before status.notAfter")
	}
	return nil
}
