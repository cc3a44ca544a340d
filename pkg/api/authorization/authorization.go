// Package authorization knows what is true of the kinds of authorization.k8s.io/v1
// wherever they are handled: what makes them invalid (the Validate functions). They
// have no defaults, and none of them is stored.
package authorization

import (
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	specPath     = field.NewPath("spec")
	resourcePath = specPath.Child("resourceAttributes")
)

// ValidateSubjectAccessReview says what is wrong with a SubjectAccessReview.
func ValidateSubjectAccessReview(r *authorizationv1.SubjectAccessReview) field.ErrorList {
	errs := validateSpec(&r.Spec)
	return append(errs, validateMeta(r.ObjectMeta, "", "must be empty")...)
}

// ValidateSelfSubjectAccessReview says what is wrong with a SelfSubjectAccessReview.
func ValidateSelfSubjectAccessReview(r *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
	errs := validateAttributes(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return append(errs, validateMeta(r.ObjectMeta, "", "must be empty")...)
}

// ValidateLocalSubjectAccessReview says what is wrong with a LocalSubjectAccessReview.
func ValidateLocalSubjectAccessReview(r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	errs := append(validateSpec(&r.Spec), validateMeta(r.ObjectMeta, r.Namespace, "must be empty except for namespace")...)
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
		errs = append(errs, field.Invalid(resourcePath.Child("namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if r.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(specPath.Child("nonResourceAttributes"), r.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	return errs
}

// validateMeta refuses metadata other than a namespace that may be there: a review is a question, not an object.
// Managed fields come from the server itself.
func validateMeta(meta metav1.ObjectMeta, namespace, detail string) field.ErrorList {
	meta.ManagedFields = nil
	if equality.Semantic.DeepEqual(metav1.ObjectMeta{Namespace: namespace}, meta) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, detail)}
}

func validateSpec(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateAttributes(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(specPath.Child("user"), spec.User, "at least one of user or group must be specified"))
	}
	return errs
}

func validateAttributes(r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) field.ErrorList {
	var errs field.ErrorList
	if (r == nil) == (n == nil) {
		var value any = r
		if n != nil {
			value = n
		}
		errs = append(errs, field.Invalid(specPath, value, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	if r == nil {
		return errs
	}
	if s := r.FieldSelector; s != nil {
		p := resourcePath.Child("fieldSelector")
		errs = append(errs, validateForm(s.RawSelector, len(s.Requirements), p)...)
		for i, q := range s.Requirements {
			errs = append(errs, metavalidation.ValidateFieldSelectorRequirement(q,
				metavalidation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, p.Child("requirements").Index(i))...)
		}
	}
	if s := r.LabelSelector; s != nil {
		p := resourcePath.Child("labelSelector")
		errs = append(errs, validateForm(s.RawSelector, len(s.Requirements), p)...)
		for i, q := range s.Requirements {
			errs = append(errs, metavalidation.ValidateLabelSelectorRequirement(q,
				metavalidation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, p.Child("requirements").Index(i))...)
		}
	}
	return errs
}

// validateForm checks that a selector comes in exactly one of its forms.
func validateForm(raw string, requirements int, p *field.Path) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(p.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(p.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", p))}
	}
	return nil
}
