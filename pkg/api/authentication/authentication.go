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
	minExpirationSeconds     = 10 * 60
	maxExpirationSeconds     = 1 << 32
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, func(r *authenticationv1.TokenRequest) {
		if r.Spec.ExpirationSeconds == nil {
			r.Spec.ExpirationSeconds = ptr.To[int64](defaultExpirationSeconds)
		}
	})
	return nil
}

// AddFieldLabels registers nothing: no kind of the group is listed.
func AddFieldLabels(*runtime.Scheme) error { return nil }

// ValidateTokenRequest says what is wrong with a TokenRequest.
func ValidateTokenRequest(r *authenticationv1.TokenRequest) field.ErrorList {
	p := field.NewPath("spec", "expirationSeconds")
	seconds := ptr.Deref(r.Spec.ExpirationSeconds, defaultExpirationSeconds)
	switch {
	case seconds < minExpirationSeconds:
		return field.ErrorList{field.Invalid(p, seconds, "may not specify a duration less than 10 minutes")}
	case seconds > maxExpirationSeconds:
		return field.ErrorList{field.Invalid(p, seconds, "may not specify a duration larger than 2^32 seconds")}
	}
	return nil
}

// ValidateTokenReview says what is wrong with a TokenReview.
func ValidateTokenReview(r *authenticationv1.TokenReview) field.ErrorList {
	if r.Spec.Token == "" {
		return field.ErrorList{field.Required(field.NewPath("spec", "token"), "")}
	}
	return nil
}

// ValidateSelfSubjectReview says what is wrong with a SelfSubjectReview: it asks
// nothing, so nothing can be.
func ValidateSelfSubjectReview(*authenticationv1.SelfSubjectReview) field.ErrorList { return nil }
