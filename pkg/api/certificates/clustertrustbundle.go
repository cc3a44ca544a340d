package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// omitted stands for a trust bundle in messages.
const omitted = "<value omitted>"

// ValidateClusterTrustBundle says what is wrong with a new ClusterTrustBundle.
func ValidateClusterTrustBundle(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
	return append(validateBundleMeta(b), validateTrustBundle(b.Spec.TrustBundle)...)
}

// ValidateClusterTrustBundleUpdate says what is wrong with an update of a ClusterTrustBundle. A bundle that stays is
// not read again.
func ValidateClusterTrustBundleUpdate(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
	errs := validateBundleMeta(b)
	if b.Spec.TrustBundle != old.Spec.TrustBundle {
		errs = append(errs, validateTrustBundle(b.Spec.TrustBundle)...)
	}
	return append(errs, rules.Immutable(b.Spec.SignerName, old.Spec.SignerName, field.NewPath("spec", "signerName"))...)
}

// validateBundleMeta checks a name, which begins with that of the signer, if there is one.
func validateBundleMeta(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
	errs := rules.ClusterScoped(&b.ObjectMeta, func(name string, prefix bool) []string {
		signer := b.Spec.SignerName
		if signer == "" {
			if strings.Contains(name, ":") {
				return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
			}
			return apivalidation.NameIsDNSSubdomain(name, prefix)
		}
		start := strings.ReplaceAll(signer, "/", ":") + ":"
		rest, ok := strings.CutPrefix(name, start)
		if !ok {
			return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, start)}
		}
		return apivalidation.NameIsDNSSubdomain(rest, prefix)
	})
	if b.Spec.SignerName != "" {
		errs = append(errs, rules.SignerName(b.Spec.SignerName, field.NewPath("spec", "signerName"))...)
	}
	return errs
}

func validateTrustBundle(bundle string) field.ErrorList {
	p := field.NewPath("spec", "trustBundle")
	var errs field.ErrorList
	invalid := func(format string, args ...any) {
		errs = append(errs, field.Invalid(p, omitted, fmt.Sprintf(format, args...)))
	}
	var order []string
	indices := map[string][]int{}
	count := 0
	for block, rest := pem.Decode([]byte(bundle)); block != nil; block, rest = pem.Decode(rest) {
		i := count
		count++
		if block.Type != "CERTIFICATE" {
			invalid("entry %d has bad block type: %v", i, block.Type)
			continue
		}
		if len(block.Headers) > 0 {
			invalid("entry %d has PEM block headers", i)
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			invalid("entry %d does not parse as X.509", i) // the reason may be secret
			continue
		}
		if !certificate.IsCA {
			invalid("entry %d does not have the CA bit set", i)
		}
		if key := string(block.Bytes); !slices.Contains(order, key) {
			order = append(order, key)
		}
		indices[string(block.Bytes)] = append(indices[string(block.Bytes)], i)
	}
	if count == 0 {
		invalid("at least one trust anchor must be provided")
	}
	for _, key := range order {
		if len(indices[key]) > 1 {
			invalid("duplicate trust anchor (indices %v)", indices[key])
		}
	}
	return errs
}
