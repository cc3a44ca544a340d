// Package authentication knows what is true of the kinds of authentication.k8s.io/v1
// wherever they are handled: their defaults ([AddDefaults]) and what makes them
// invalid (the Validate functions). None of them is stored.
package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	defaultExpirationSeconds = 60 * 60
	// MinExpirationSeconds is how long a token lives at least.
	MinExpirationSeconds = 10 * 60
	maxExpirationSeconds = 1 << 32
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, func(r *authenticationv1.TokenRequest) {
		rules.SetPtr(&r.Spec.ExpirationSeconds, defaultExpirationSeconds)
	})
	return nil
}

// ValidateTokenRequest says what is wrong with a TokenRequest.
func ValidateTokenRequest(r *authenticationv1.TokenRequest) field.ErrorList {
	spec := field.NewPath("spec")
	// Tokens are not bound to webhook configurations here, so that there is nothing to attest to.
	if a := r.Spec.Attestations; len(a) > 0 {
		return field.ErrorList{field.Invalid(spec.Child("attestations"), a, "attestations may only be specified with a webhook bound object reference")}
	}
	var errs field.ErrorList
	switch seconds, p := ptr.Deref(r.Spec.ExpirationSeconds, defaultExpirationSeconds), spec.Child("expirationSeconds"); {
	case seconds < MinExpirationSeconds:
		errs = append(errs, field.Invalid(p, seconds, "may not specify a duration less than 10 minutes"))
	case seconds > maxExpirationSeconds:
		errs = append(errs, field.Invalid(p, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	return errs
}
