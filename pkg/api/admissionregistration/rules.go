package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const all = "*"

func validateRule(r *admissionregistrationv1.RuleWithOperations, p *field.Path) field.ErrorList {
	errs := validateOperations(r.Operations, p.Child("operations"))
	errs = append(errs, validateNames(r.APIGroups, p.Child("apiGroups"), "API groups", true)...)
	errs = append(errs, validateNames(r.APIVersions, p.Child("apiVersions"), "API versions", false)...)
	errs = append(errs, validateResources(r.Resources, p.Child("resources"))...)
	return append(errs, validateOptional(r.Scope, p.Child("scope"),
		admissionregistrationv1.AllScopes, admissionregistrationv1.ClusterScope, admissionregistrationv1.NamespacedScope)...)
}

func validateOperations(operations []admissionregistrationv1.OperationType, p *field.Path) field.ErrorList {
	if len(operations) == 0 {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	if len(operations) > 1 && slices.Contains(operations, admissionregistrationv1.OperationAll) {
		errs = append(errs, field.Invalid(p, operations, "if '*' is present, must not specify other operations"))
	}
	for i, o := range operations {
		errs = append(errs, rules.OneOf(o, p.Index(i), admissionregistrationv1.OperationAll, admissionregistrationv1.Connect,
			admissionregistrationv1.Create, admissionregistrationv1.Delete, admissionregistrationv1.Update)...)
	}
	return errs
}

// validateNames checks groups or versions, which what names.
func validateNames(names []string, p *field.Path, what string, mayBeEmpty bool) field.ErrorList {
	if len(names) == 0 {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	if len(names) > 1 && slices.Contains(names, all) {
		errs = append(errs, field.Invalid(p, names, "if '*' is present, must not specify other "+what))
	}
	for i, name := range names {
		if name == "" && !mayBeEmpty {
			errs = append(errs, field.Required(p.Index(i), ""))
		}
	}
	return errs
}

// validateResources checks patterns such as "pods", "*/scale" and "*", of which none
// may be part of another.
func validateResources(resources []string, p *field.Path) field.ErrorList {
	if len(resources) == 0 {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	withAllSubresources := map[string]bool{}
	allWithSubresource := map[string]bool{}
	whole := 0
	for i, r := range resources {
		if r == "" {
			errs = append(errs, field.Required(p.Index(i), ""))
			continue
		}
		resource, sub, ok := strings.Cut(r, "/")
		switch {
		case !ok:
			whole++
			continue
		case r != "*/*" && withAllSubresources[resource]:
			errs = append(errs, field.Invalid(p.Index(i), r, fmt.Sprintf("if '%s/*' is present, must not specify %s", resource, r)))
		case r != "*/*" && allWithSubresource[sub]:
			errs = append(errs, field.Invalid(p.Index(i), r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r)))
		}
		switch {
		case sub == all:
			withAllSubresources[resource] = true
		case resource == all:
			allWithSubresource[sub] = true
		}
	}
	if len(resources) > 1 && slices.Contains(resources, "*/*") {
		errs = append(errs, field.Invalid(p, resources, "if '*/*' is present, must not specify other resources"))
	}
	if whole > 1 && slices.Contains(resources, all) {
		errs = append(errs, field.Invalid(p, resources, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}

func validateMatchResources(m *admissionregistrationv1.MatchResources, p *field.Path) field.ErrorList {
	errs := validateMatchPolicy(m.MatchPolicy, p.Child("matchPolicy"))
	errs = append(errs, validateSelector(m.NamespaceSelector, p.Child("namespaceSelector"))...)
	errs = append(errs, validateSelector(m.ObjectSelector, p.Child("objectSelector"))...)
	errs = append(errs, rules.Each(m.ResourceRules, p.Child("resourceRules"), validateNamedRule)...)
	return append(errs, rules.Each(m.ExcludeResourceRules, p.Child("excludeResourceRules"), validateNamedRule)...)
}

func validateNamedRule(r *admissionregistrationv1.NamedRuleWithOperations, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range r.ResourceNames {
		at := p.Child("resourceNames").Index(i)
		errs = append(errs, rules.Messages(at, name, path.IsValidPathSegmentName(name))...)
		if slices.Contains(r.ResourceNames[:i], name) {
			errs = append(errs, field.Duplicate(at, name))
		}
	}
	return append(errs, validateRule(&r.RuleWithOperations, p)...)
}

// validateMutated refuses operations that leave nothing to be mutated.
func validateMutated(m *admissionregistrationv1.MatchResources, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, r := range m.ResourceRules {
		for _, o := range r.Operations {
			errs = append(errs, rules.OneOf(o, p.Child("resourceRules", "operations"), admissionregistrationv1.OperationAll,
				admissionregistrationv1.Connect, admissionregistrationv1.Create, admissionregistrationv1.Update)...)
		}
	}
	return errs
}

// warnAboutRules says which rules of a webhook name resources that no webhook is asked about.
func warnAboutRules(webhook int, given []admissionregistrationv1.RuleWithOperations, excluded []schema.GroupResource) []string {
	var warnings []string
	for i, r := range given {
		for _, e := range excluded {
			if slices.Contains(r.APIGroups, e.Group) && slices.Contains(r.Resources, e.Resource) {
				warnings = append(warnings, fmt.Sprintf("webhooks[%d].rules[%d]: %s is excluded from admission webhooks; this rule will have no effect", webhook, i, e))
			}
		}
	}
	return warnings
}
