package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/jsonpath"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const maxAuditAnnotations = 20

// validationReasons are those that a failed validation may give to the client.
var validationReasons = []metav1.StatusReason{metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge}

// ValidateValidatingAdmissionPolicy says what is wrong with a new ValidatingAdmissionPolicy.
func ValidateValidatingAdmissionPolicy(p *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	return append(validateMeta(&p.ObjectMeta), validateValidating(p, nil)...)
}

// ValidateValidatingAdmissionPolicyUpdate says what is wrong with an update of a ValidatingAdmissionPolicy.
func ValidateValidatingAdmissionPolicyUpdate(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	return append(validateMeta(&p.ObjectMeta), validateValidating(p, old)...)
}

func validateValidating(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	spec := &p.Spec
	stored, sameConditions := sets.New[string](), false
	if old != nil {
		for _, v := range old.Spec.Validations {
			stored.Insert(v.Expression, v.MessageExpression)
		}
		for _, a := range old.Spec.AuditAnnotations {
			stored.Insert(strings.TrimSpace(a.ValueExpression))
		}
		storedConditions(stored, old.Spec.MatchConditions, old.Spec.Variables)
		sameConditions = equality.Semantic.DeepEqual(old.Spec.MatchConditions, spec.MatchConditions) &&
			equality.Semantic.DeepEqual(old.Spec.ParamKind, spec.ParamKind)
	}
	var errs field.ErrorList
	if spec.FailurePolicy == nil {
		errs = append(errs, field.Required(specPath.Child("failurePolicy"), ""))
	}
	errs = append(errs, validateFailurePolicy(spec.FailurePolicy, specPath.Child("failurePolicy"))...)
	errs = append(errs, validateParamKind(spec.ParamKind, specPath.Child("paramKind"))...)
	errs = append(errs, validateConstraints(spec.MatchConstraints, specPath.Child("matchConstraints"))...)
	if !sameConditions {
		errs = append(errs, validateMatchConditions(spec.MatchConditions, specPath.Child("matchConditions"), spec.ParamKind != nil, stored)...)
	}
	if len(spec.Validations) == 0 && len(spec.AuditAnnotations) == 0 {
		const none = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(specPath.Child("validations"), none), field.Required(specPath.Child("auditAnnotations"), none))
	}
	c, variableErrs := validateVariables(spec.Variables, specPath.Child("variables"), spec.ParamKind != nil, stored)
	errs = append(errs, variableErrs...)
	if c.compiler == nil {
		return errs
	}
	errs = append(errs, rules.Each(spec.Validations, specPath.Child("validations"), c.validation)...)
	return append(errs, c.annotations(spec.AuditAnnotations, p.Name)...)
}

func (c compilation) annotations(all []admissionregistrationv1.AuditAnnotation, name string) field.ErrorList {
	p := specPath.Child("auditAnnotations")
	var errs field.ErrorList
	if len(all) > maxAuditAnnotations {
		errs = append(errs, field.Invalid(p, all, fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	for i, a := range all {
		errs = append(errs, c.annotation(&a, name, p.Index(i))...)
		if slices.ContainsFunc(all[:i], func(other admissionregistrationv1.AuditAnnotation) bool { return other.Key == a.Key }) {
			errs = append(errs, field.Duplicate(p.Index(i).Child("key"), a.Key))
		}
	}
	return errs
}

func storedConditions(stored sets.Set[string], conditions []admissionregistrationv1.MatchCondition, variables []admissionregistrationv1.Variable) {
	for _, c := range conditions {
		stored.Insert(c.Expression)
	}
	for _, v := range variables {
		stored.Insert(v.Expression)
	}
}

// ValidateValidatingAdmissionPolicyStatusUpdate says what is wrong with an update of the status of a ValidatingAdmissionPolicy.
func ValidateValidatingAdmissionPolicyStatusUpdate(p, _ *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	at := field.NewPath("status")
	var errs field.ErrorList
	if t := p.Status.TypeChecking; t != nil {
		errs = append(errs, rules.Each(t.ExpressionWarnings, at.Child("typeChecking", "expressionWarnings"), validateWarning)...)
	}
	return append(errs, metavalidation.ValidateConditions(p.Status.Conditions, at.Child("conditions"))...)
}

func validateWarning(w *admissionregistrationv1.ExpressionWarning, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if w.Warning == "" {
		errs = append(errs, field.Required(p.Child("warning"), ""))
	}
	if w.FieldRef == "" {
		return append(errs, field.Required(p.Child("fieldRef"), ""))
	}
	if err := jsonpath.New("fieldRef").Parse(fmt.Sprintf("{%s}", w.FieldRef)); err != nil {
		errs = append(errs, field.Invalid(p.Child("fieldRef"), w.FieldRef, fmt.Sprintf("invalid JSONPath: %v", err)))
	}
	return errs
}

// ValidateMutatingAdmissionPolicy says what is wrong with a new MutatingAdmissionPolicy.
func ValidateMutatingAdmissionPolicy(p *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
	return append(validateMeta(&p.ObjectMeta), validateMutating(p, nil)...)
}

// ValidateMutatingAdmissionPolicyUpdate says what is wrong with an update of a MutatingAdmissionPolicy.
func ValidateMutatingAdmissionPolicyUpdate(p, old *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
	return append(validateMeta(&p.ObjectMeta), validateMutating(p, old)...)
}

func validateMutating(p, old *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
	spec := &p.Spec
	stored, sameConditions := sets.New[string](), false
	if old != nil {
		for _, m := range old.Spec.Mutations {
			if m.ApplyConfiguration != nil {
				stored.Insert(m.ApplyConfiguration.Expression)
			}
			if m.JSONPatch != nil {
				stored.Insert(m.JSONPatch.Expression)
			}
		}
		storedConditions(stored, old.Spec.MatchConditions, old.Spec.Variables)
		sameConditions = equality.Semantic.DeepEqual(old.Spec.MatchConditions, spec.MatchConditions) &&
			equality.Semantic.DeepEqual(old.Spec.ParamKind, spec.ParamKind)
	}
	var errs field.ErrorList
	if spec.FailurePolicy == nil {
		errs = append(errs, field.Required(specPath.Child("failurePolicy"), ""))
	}
	errs = append(errs, validateFailurePolicy(spec.FailurePolicy, specPath.Child("failurePolicy"))...)
	errs = append(errs, validateParamKind(spec.ParamKind, specPath.Child("paramKind"))...)
	errs = append(errs, validateConstraints(spec.MatchConstraints, specPath.Child("matchConstraints"))...)
	if spec.MatchConstraints != nil {
		errs = append(errs, validateMutated(spec.MatchConstraints, specPath.Child("matchConstraints"))...)
	}
	if !sameConditions {
		errs = append(errs, validateMatchConditions(spec.MatchConditions, specPath.Child("matchConditions"), spec.ParamKind != nil, stored)...)
	}
	c, variableErrs := validateVariables(spec.Variables, specPath.Child("variables"), spec.ParamKind != nil, stored)
	errs = append(errs, variableErrs...)
	if len(spec.Mutations) == 0 {
		errs = append(errs, field.Required(specPath.Child("mutations"), "mutations must contain at least one item"))
	}
	if c.compiler != nil {
		errs = append(errs, rules.Each(spec.Mutations, specPath.Child("mutations"), c.mutation)...)
	}
	return append(errs, rules.RequiredOneOf(spec.ReinvocationPolicy, specPath.Child("reinvocationPolicy"),
		admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)...)
}

func validateConstraints(m *admissionregistrationv1.MatchResources, p *field.Path) field.ErrorList {
	if m == nil {
		return field.ErrorList{field.Required(p, "")}
	}
	errs := validateMatchResources(m, p)
	if len(m.ResourceRules) == 0 {
		errs = append(errs, field.Required(p.Child("resourceRules"), ""))
	}
	return errs
}

func validateParamKind(k *admissionregistrationv1.ParamKind, p *field.Path) field.ErrorList {
	if k == nil {
		return nil
	}
	var errs field.ErrorList
	at := p.Child("apiVersion")
	if k.APIVersion == "" {
		errs = append(errs, field.Required(at, ""))
	} else if gv, err := schema.ParseGroupVersion(k.APIVersion); err != nil {
		errs = append(errs, field.Invalid(at, k.APIVersion, err.Error()))
	} else {
		if gv.Group != "" {
			errs = append(errs, rules.Messages(at, gv.Group, validation.IsDNS1123Subdomain(gv.Group))...)
		}
		if gv.Version == "" {
			errs = append(errs, field.Invalid(at, k.APIVersion, "version must be specified"))
		} else {
			errs = append(errs, rules.Messages(at, gv.Version, validation.IsDNS1035Label(gv.Version))...)
		}
	}
	if k.Kind == "" {
		errs = append(errs, field.Required(p.Child("kind"), ""))
	} else if messages := validation.IsDNS1035Label(strings.ToLower(k.Kind)); len(messages) > 0 {
		errs = append(errs, field.Invalid(p.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+strings.Join(messages, ",")))
	}
	return errs
}

// ValidateValidatingAdmissionPolicyBinding says what is wrong with a new ValidatingAdmissionPolicyBinding.
func ValidateValidatingAdmissionPolicyBinding(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	return append(validateMeta(&b.ObjectMeta), validateValidatingBinding(b)...)
}

// ValidateValidatingAdmissionPolicyBindingUpdate says what is wrong with an update of a ValidatingAdmissionPolicyBinding.
func ValidateValidatingAdmissionPolicyBindingUpdate(b, _ *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	return append(validateMeta(&b.ObjectMeta), validateValidatingBinding(b)...)
}

func validateValidatingBinding(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	errs := validateBinding(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources)
	actions, p := b.Spec.ValidationActions, specPath.Child("validationActions")
	if len(actions) == 0 {
		return append(errs, field.Required(p, ""))
	}
	for i, a := range actions {
		if slices.Contains(actions[:i], a) {
			errs = append(errs, field.Duplicate(p.Index(i), a))
			continue
		}
		errs = append(errs, rules.OneOf(a, p.Index(i), admissionregistrationv1.Audit, admissionregistrationv1.Deny, admissionregistrationv1.Warn)...)
	}
	if slices.Contains(actions, admissionregistrationv1.Deny) && slices.Contains(actions, admissionregistrationv1.Warn) {
		errs = append(errs, field.Invalid(p, actions,
			"must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}

// ValidateMutatingAdmissionPolicyBinding says what is wrong with a new MutatingAdmissionPolicyBinding.
func ValidateMutatingAdmissionPolicyBinding(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	return append(validateMeta(&b.ObjectMeta), validateMutatingBinding(b)...)
}

// ValidateMutatingAdmissionPolicyBindingUpdate says what is wrong with an update of a MutatingAdmissionPolicyBinding.
func ValidateMutatingAdmissionPolicyBindingUpdate(b, _ *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	return append(validateMeta(&b.ObjectMeta), validateMutatingBinding(b)...)
}

func validateMutatingBinding(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	errs := validateBinding(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources)
	if b.Spec.MatchResources != nil {
		errs = append(errs, validateMutated(b.Spec.MatchResources, specPath.Child("matchResources"))...)
	}
	return errs
}

func validateBinding(policy string, ref *admissionregistrationv1.ParamRef, match *admissionregistrationv1.MatchResources) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Required(specPath.Child("policyName"), ""))
	} else {
		errs = append(errs, rules.Messages(specPath.Child("policyName"), policy, apivalidation.NameIsDNSSubdomain(policy, false))...)
	}
	errs = append(errs, validateParamRef(ref, specPath.Child("paramRef"))...)
	if match != nil {
		errs = append(errs, validateMatchResources(match, specPath.Child("matchResources"))...)
	}
	return errs
}

func validateParamRef(r *admissionregistrationv1.ParamRef, p *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	switch {
	case r.Name != "" && r.Selector != nil:
		const both = "name and selector are mutually exclusive"
		errs = append(errs, field.Forbidden(p.Child("name"), both), field.Forbidden(p.Child("selector"), both))
	case r.Name == "" && r.Selector == nil:
		errs = append(errs, field.Required(p, "one of name or selector must be specified"))
	}
	if r.Name != "" {
		errs = append(errs, rules.Messages(p.Child("name"), r.Name, path.IsValidPathSegmentName(r.Name))...)
	}
	if r.Selector != nil {
		errs = append(errs, rules.LabelSelector(r.Selector, p.Child("selector"))...)
	}
	at := p.Child("parameterNotFoundAction")
	if r.ParameterNotFoundAction == nil || *r.ParameterNotFoundAction == "" {
		return append(errs, field.Required(at, ""))
	}
	return append(errs, rules.OneOf(*r.ParameterNotFoundAction, at, admissionregistrationv1.DenyAction, admissionregistrationv1.AllowAction)...)
}
