// Package policy knows what is true of the kinds of policy/v1 wherever they are
// handled: what makes them invalid (the Validate functions). They have no defaults.
package policy

import (
	policyv1 "k8s.io/api/policy/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// ValidatePodDisruptionBudget says what is wrong with a new PodDisruptionBudget. Its
// name has no rule but those that hold for every object.
func ValidatePodDisruptionBudget(b *policyv1.PodDisruptionBudget) field.ErrorList {
	return validateSpec(&b.Spec, nil)
}

// ValidatePodDisruptionBudgetUpdate says what is wrong with an update of a PodDisruptionBudget.
func ValidatePodDisruptionBudgetUpdate(b, old *policyv1.PodDisruptionBudget) field.ErrorList {
	return validateSpec(&b.Spec, &old.Spec)
}

func validateSpec(spec, old *policyv1.PodDisruptionBudgetSpec) field.ErrorList {
	p := field.NewPath("spec")
	var errs field.ErrorList
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(p, spec, "minAvailable and maxUnavailable cannot be both set"))
	}
	for name, value := range map[string]*intstr.IntOrString{"minAvailable": spec.MinAvailable, "maxUnavailable": spec.MaxUnavailable} {
		if value != nil {
			errs = append(errs, rules.CountOrPercent(*value, p.Child(name))...)
			errs = append(errs, rules.AtMost100Percent(*value, p.Child(name))...)
		}
	}
	if old == nil {
		errs = append(errs, rules.LabelSelector(spec.Selector, p.Child("selector"))...)
	} else {
		errs = append(errs, rules.LabelSelectorUpdate(spec.Selector, old.Selector, p.Child("selector"))...)
	}
	if policy := spec.UnhealthyPodEvictionPolicy; policy != nil {
		errs = append(errs, rules.OneOf(*policy, p.Child("unhealthyPodEvictionPolicy"), policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return errs
}

// ValidatePodDisruptionBudgetStatusUpdate says what is wrong with an update of the status of a PodDisruptionBudget.
func ValidatePodDisruptionBudgetStatusUpdate(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	p := field.NewPath("status")
	s := &b.Status
	errs := metavalidation.ValidateConditions(s.Conditions, p.Child("conditions"))
	errs = append(errs, rules.NonNegative(s.DisruptionsAllowed, p.Child("disruptionsAllowed"))...)
	errs = append(errs, rules.NonNegative(s.CurrentHealthy, p.Child("currentHealthy"))...)
	errs = append(errs, rules.NonNegative(s.DesiredHealthy, p.Child("desiredHealthy"))...)
	return append(errs, rules.NonNegative(s.ExpectedPods, p.Child("expectedPods"))...)
}
