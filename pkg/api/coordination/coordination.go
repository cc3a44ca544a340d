// Package coordination knows what is true of the kinds of coordination.k8s.io wherever
// they are handled: which field selectors they take and what makes them invalid (the
// Validate functions). They have no defaults.
package coordination

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

var metadata = field.NewPath("metadata")

// ValidateLease says what is wrong with a new Lease.
func ValidateLease(l *coordinationv1.Lease) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&l.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, metadata) // any finalizer
	return append(errs, validateLeaseSpec(&l.Spec)...)
}

// ValidateLeaseUpdate says what is wrong with an update of a Lease.
func ValidateLeaseUpdate(l, old *coordinationv1.Lease) field.ErrorList {
	errs := apivalidation.ValidateObjectMetaUpdate(&l.ObjectMeta, &old.ObjectMeta, metadata)
	return append(errs, validateLeaseSpec(&l.Spec)...)
}

func validateLeaseSpec(spec *coordinationv1.LeaseSpec) field.ErrorList {
	p := field.NewPath("spec")
	var errs field.ErrorList
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(p.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	errs = append(errs, rules.NonNegativePtr(spec.LeaseTransitions, p.Child("leaseTransitions"))...)
	strategy := ptr.Deref(spec.Strategy, "")
	if spec.Strategy != nil {
		errs = append(errs, validateStrategy(strategy)...)
	}
	if strategy == "" && ptr.Deref(spec.PreferredHolder, "") != "" {
		errs = append(errs, field.Forbidden(p.Child("preferredHolder"), "may only be specified if `strategy` is defined"))
	}
	return errs
}
