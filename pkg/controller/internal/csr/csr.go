// Package csr reads certificate signing requests.
package csr

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

// Parse reads the request out of its PEM block.
func Parse(data []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("spec.request: not a PEM block of type CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("spec.request: %w", err)
	}
	return r, nil
}

// Has reports whether a request has a condition that holds.
func Has(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == t && (c.Status == "" || c.Status == corev1.ConditionTrue)
	})
}

// IsApproved reports whether a request is approved and not denied.
func IsApproved(r *certificatesv1.CertificateSigningRequest) bool {
	return Has(r, certificatesv1.CertificateApproved) && !Has(r, certificatesv1.CertificateDenied)
}

// ValidateKubeletClient says what keeps r from being a request for the certificate
// that a kubelet talks to the API server with.
func ValidateKubeletClient(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if len(r.DNSNames) > 0 || len(r.IPAddresses) > 0 {
		return errors.New("DNS or IP subjectAltNames are not allowed")
	}
	return errors.Join(validateNode(r), exactUsages(usages, certificatesv1.UsageClientAuth))
}

// ValidateKubeletServing says what keeps r from being a request for the certificate
// that a kubelet serves with.
func ValidateKubeletServing(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if len(r.DNSNames) == 0 && len(r.IPAddresses) == 0 {
		return errors.New("DNS or IP subjectAltName is required")
	}
	return errors.Join(validateNode(r), exactUsages(usages, certificatesv1.UsageServerAuth))
}

func validateNode(r *x509.CertificateRequest) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{"system:nodes"}):
		return errors.New("subject organization is not system:nodes")
	case len(r.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed") // the message is shown in a condition, as is
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !strings.HasPrefix(r.Subject.CommonName, "system:node:"):
		return errors.New("subject common name does not begin with system:node:")
	}
	return nil
}

// exactUsages wants digital signature and the given usage; key encipherment is for
// RSA keys only and may be there.
func exactUsages(usages []certificatesv1.KeyUsage, auth certificatesv1.KeyUsage) error {
	need := map[certificatesv1.KeyUsage]bool{certificatesv1.UsageDigitalSignature: true, auth: true}
	for _, u := range usages {
		if !need[u] && u != certificatesv1.UsageKeyEncipherment {
			return fmt.Errorf("usages did not match [digital signature, %s] with or without key encipherment", auth)
		}
		delete(need, u)
	}
	if len(need) > 0 {
		return fmt.Errorf("usages did not match [digital signature, %s] with or without key encipherment", auth)
	}
	return nil
}
