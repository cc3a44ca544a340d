package batch

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	maxPolicyRules   = 20
	maxExitCodes     = 255
	maxPodConditions = 20
)

var (
	failureActions = []batchv1.PodFailurePolicyAction{
		batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
		batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore,
	}
	exitCodeOperators = []batchv1.PodFailurePolicyOnExitCodesOperator{
		batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn,
	}
	conditionStatuses = []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
)

// choice checks a value that must be there and be one of the supported ones.
func choice[T ~string](value T, p *field.Path, supported []T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(p, fmt.Sprintf("valid values: %q", supported))}
	}
	return rules.OneOf(value, p, supported...)
}

func validatePodFailurePolicy(spec *batchv1.JobSpec, p *field.Path) field.ErrorList {
	rulesPath := p.Child("rules")
	if n := len(spec.PodFailurePolicy.Rules); n > maxPolicyRules {
		return field.ErrorList{field.TooMany(rulesPath, n, maxPolicyRules)}
	}
	var containers []string
	for _, list := range [][]corev1.Container{spec.Template.Spec.Containers, spec.Template.Spec.InitContainers} {
		for i := range list {
			containers = append(containers, list[i].Name)
		}
	}
	var errs field.ErrorList
	for i := range spec.PodFailurePolicy.Rules {
		errs = append(errs, validatePodFailureRule(spec, &spec.PodFailurePolicy.Rules[i], rulesPath.Index(i), containers)...)
	}
	return errs
}

func validatePodFailureRule(spec *batchv1.JobSpec, rule *batchv1.PodFailurePolicyRule, p *field.Path, containers []string) field.ErrorList {
	errs := choice(rule.Action, p.Child("action"), failureActions)
	if rule.Action == batchv1.PodFailurePolicyActionFailIndex && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(p.Child("action"), rule.Action, "requires the backoffLimitPerIndex to be set"))
	}
	if rule.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(rule.OnExitCodes, p.Child("onExitCodes"), containers)...)
	}
	if len(rule.OnPodConditions) > 0 {
		errs = append(errs, validateConditionPatterns(rule.OnPodConditions, p.Child("onPodConditions"))...)
	}
	switch {
	case rule.OnExitCodes != nil && len(rule.OnPodConditions) > 0:
		errs = append(errs, field.Invalid(p, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case rule.OnExitCodes == nil && len(rule.OnPodConditions) == 0:
		errs = append(errs, field.Invalid(p, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

func validateExitCodes(r *batchv1.PodFailurePolicyOnExitCodesRequirement, p *field.Path, containers []string) field.ErrorList {
	errs := choice(r.Operator, p.Child("operator"), exitCodeOperators)
	if r.ContainerName != nil && !slices.Contains(containers, *r.ContainerName) {
		errs = append(errs, field.Invalid(p.Child("containerName"), *r.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	values := p.Child("values")
	if len(r.Values) == 0 {
		return append(errs, field.Invalid(values, r.Values, "at least one value is required"))
	}
	if len(r.Values) > maxExitCodes {
		return append(errs, field.TooMany(values, len(r.Values), maxExitCodes))
	}
	seen := map[int32]bool{}
	for i, v := range r.Values {
		if r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && v == 0 {
			errs = append(errs, field.Invalid(values.Index(i), v, "must not be 0 for the In operator"))
		}
		if seen[v] {
			errs = append(errs, field.Duplicate(values.Index(i), v))
		}
		seen[v] = true
	}
	if !slices.IsSorted(r.Values) {
		errs = append(errs, field.Invalid(values, r.Values, "must be ordered"))
	}
	return errs
}

func validateConditionPatterns(patterns []batchv1.PodFailurePolicyOnPodConditionsPattern, p *field.Path) field.ErrorList {
	if n := len(patterns); n > maxPodConditions {
		return field.ErrorList{field.TooMany(p, n, maxPodConditions)}
	}
	var errs field.ErrorList
	for i, pattern := range patterns {
		errs = append(errs, rules.QualifiedName(string(pattern.Type), p.Index(i).Child("type"))...)
		errs = append(errs, choice(pattern.Status, p.Index(i).Child("status"), conditionStatuses)...)
	}
	return errs
}

func validateSuccessPolicy(spec *batchv1.JobSpec, p *field.Path) field.ErrorList {
	if !isIndexed(spec) {
		return field.ErrorList{field.Invalid(p, *spec.SuccessPolicy, "requires indexed completion mode")}
	}
	rulesPath := p.Child("rules")
	switch n := len(spec.SuccessPolicy.Rules); {
	case n == 0:
		return field.ErrorList{field.Required(rulesPath, "at least one rules must be specified when the successPolicy is specified")}
	case n > maxPolicyRules:
		return field.ErrorList{field.TooMany(rulesPath, n, maxPolicyRules)}
	}
	var errs field.ErrorList
	for i := range spec.SuccessPolicy.Rules {
		errs = append(errs, validateSuccessRule(spec, &spec.SuccessPolicy.Rules[i], rulesPath.Index(i))...)
	}
	return errs
}

func validateSuccessRule(spec *batchv1.JobSpec, rule *batchv1.SuccessPolicyRule, p *field.Path) field.ErrorList {
	if rule.SucceededCount == nil && rule.SucceededIndexes == nil {
		return field.ErrorList{field.Required(p, "at least one of succeededCount or succeededIndexes must be specified")}
	}
	var errs field.ErrorList
	total := -1
	if indexes := rule.SucceededIndexes; indexes != nil {
		ip := p.Child("succeededIndexes")
		if len(*indexes) > maxSucceededIndexesSize {
			errs = append(errs, field.TooLong(ip, "" /*unused*/, maxSucceededIndexesSize))
		}
		if spec.Completions != nil {
			set, err := parseIndexes(*indexes, int(*spec.Completions))
			if err != nil {
				errs = append(errs, field.Invalid(ip, *indexes, fmt.Sprintf("error parsing succeededIndexes: %v", err)))
			}
			total = set.len()
		}
	}
	if count := rule.SucceededCount; count != nil {
		cp := p.Child("succeededCount")
		errs = append(errs, rules.NonNegative(*count, cp)...)
		if spec.Completions != nil && *count > *spec.Completions {
			errs = append(errs, field.Invalid(cp, *count, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", *spec.Completions)))
		}
		if total >= 0 && int(*count) > total {
			errs = append(errs, field.Invalid(cp, *count, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}
