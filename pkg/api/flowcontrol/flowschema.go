package flowcontrol

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const all = "*"

var verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

// ValidateFlowSchema says what is wrong with a new FlowSchema.
func ValidateFlowSchema(f *flowcontrolv1.FlowSchema) field.ErrorList {
	return append(rules.ClusterScoped(&f.ObjectMeta, apivalidation.NameIsDNSSubdomain), validateSchema(f)...)
}

// ValidateFlowSchemaUpdate says what is wrong with an update of a FlowSchema.
func ValidateFlowSchemaUpdate(f, _ *flowcontrolv1.FlowSchema) field.ErrorList {
	return ValidateFlowSchema(f)
}

// ValidateFlowSchemaStatusUpdate says what is wrong with an update of the status of a FlowSchema.
func ValidateFlowSchemaStatusUpdate(f, _ *flowcontrolv1.FlowSchema) field.ErrorList {
	var types []flowcontrolv1.FlowSchemaConditionType
	for _, c := range f.Status.Conditions {
		types = append(types, c.Type)
	}
	return validateConditionTypes(types)
}

func validateSchema(f *flowcontrolv1.FlowSchema) field.ErrorList {
	var errs field.ErrorList
	for _, fixed := range bootstrap.MandatoryFlowSchemas {
		if f.Name == fixed.Name && !equality.Semantic.DeepEqual(f.Spec, fixed.Spec) {
			errs = append(errs, field.Invalid(specPath, f.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", f.Name)))
		}
	}
	p := specPath.Child("matchingPrecedence")
	switch m := f.Spec.MatchingPrecedence; {
	case m <= 0:
		errs = append(errs, field.Invalid(p, m, "must be a positive value"))
	case m > flowcontrolv1.FlowSchemaMaxMatchingPrecedence:
		errs = append(errs, field.Invalid(p, m, fmt.Sprintf("must not be greater than %v", flowcontrolv1.FlowSchemaMaxMatchingPrecedence)))
	case m == 1 && f.Name != flowcontrolv1.FlowSchemaNameExempt:
		errs = append(errs, field.Invalid(p, m, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if d := f.Spec.DistinguisherMethod; d != nil && d.Type != flowcontrolv1.FlowDistinguisherMethodByNamespaceType && d.Type != flowcontrolv1.FlowDistinguisherMethodByUserType {
		errs = append(errs, field.NotSupported(specPath.Child("distinguisherMethod", "type"), d, []flowcontrolv1.FlowDistinguisherMethodType{
			flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType,
		}))
	}
	level, p := f.Spec.PriorityLevelConfiguration.Name, specPath.Child("priorityLevelConfiguration", "name")
	if level == "" {
		errs = append(errs, field.Required(p, "must reference a priority level"))
	} else {
		errs = append(errs, rules.Messages(p, level, apivalidation.NameIsDNSSubdomain(level, false))...)
	}
	return append(errs, rules.Each(f.Spec.Rules, specPath.Child("rules"), validateRule)...)
}

func validateRule(r *flowcontrolv1.PolicyRulesWithSubjects, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(p.Child("subjects"), "subjects must contain at least one value"))
	}
	errs = append(errs, rules.Each(r.Subjects, p.Child("subjects"), validateSubject)...)
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(p, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	errs = append(errs, rules.Each(r.ResourceRules, p.Child("resourceRules"), validateResourceRule)...)
	for i := range r.NonResourceRules {
		n, at := &r.NonResourceRules[i], p.Child("nonResourceRules").Index(i)
		errs = append(errs, validateVerbs(n.Verbs, at.Child("verbs"))...)
		errs = append(errs, validateURLs(n.NonResourceURLs, at.Child("nonResourceURLs"))...)
	}
	return errs
}

func validateSubject(s *flowcontrolv1.Subject, p *field.Path) field.ErrorList {
	switch s.Kind {
	case flowcontrolv1.SubjectKindUser, flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount:
	default:
		return field.ErrorList{field.NotSupported(p.Child("kind"), s.Kind,
			[]flowcontrolv1.SubjectKind{flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser})}
	}
	var errs field.ErrorList
	// member checks that the member of the union called name is given if and only if it is of the kind.
	member := func(kind flowcontrolv1.SubjectKind, name string, given bool, check func(p *field.Path) field.ErrorList) {
		at := p.Child(name)
		switch {
		case s.Kind == kind && !given:
			errs = append(errs, field.Required(at, fmt.Sprintf("%s is required when subject kind is '%s'", name, kind)))
		case s.Kind != kind && given:
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("%s is forbidden when subject kind is not '%s'", name, kind)))
		case given:
			errs = append(errs, check(at)...)
		}
	}
	named := func(name func() string) func(*field.Path) field.ErrorList {
		return func(p *field.Path) field.ErrorList {
			if name() == "" {
				return field.ErrorList{field.Required(p.Child("name"), "")}
			}
			return nil
		}
	}
	member(flowcontrolv1.SubjectKindUser, "user", s.User != nil, named(func() string { return s.User.Name }))
	member(flowcontrolv1.SubjectKindGroup, "group", s.Group != nil, named(func() string { return s.Group.Name }))
	member(flowcontrolv1.SubjectKindServiceAccount, "serviceAccount", s.ServiceAccount != nil, func(p *field.Path) field.ErrorList {
		return validateServiceAccount(s.ServiceAccount, p)
	})
	return errs
}

func validateServiceAccount(s *flowcontrolv1.ServiceAccountSubject, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch s.Name {
	case "":
		errs = append(errs, field.Required(p.Child("name"), ""))
	case all:
	default:
		errs = append(errs, rules.Messages(p.Child("name"), s.Name, apivalidation.ValidateServiceAccountName(s.Name, false))...)
	}
	if s.Namespace == "" {
		return append(errs, field.Required(p.Child("namespace"), "must specify namespace for service account"))
	}
	return append(errs, rules.Messages(p.Child("namespace"), s.Namespace, apivalidation.ValidateNamespaceName(s.Namespace, false))...)
}

func validateVerbs(given []string, p *field.Path) field.ErrorList {
	errs := validateList(given, p, "verbs must contain at least one value", "verbs")
	if slices.Contains(given, all) {
		return errs
	}
	if slices.ContainsFunc(given, func(v string) bool { return !slices.Contains(verbs, v) }) {
		errs = append(errs, field.NotSupported(p, given, verbs))
	}
	return errs
}

// validateList refuses an empty list and one in which "*" is not alone.
func validateList(given []string, p *field.Path, empty, what string) field.ErrorList {
	switch {
	case len(given) == 0:
		return field.ErrorList{field.Required(p, empty)}
	case len(given) > 1 && slices.Contains(given, all):
		return field.ErrorList{field.Invalid(p, given, fmt.Sprintf("if '*' is present, must not specify other %s", what))}
	}
	return nil
}

func validateResourceRule(r *flowcontrolv1.ResourcePolicyRule, p *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, p.Child("verbs"))
	errs = append(errs, validateList(r.APIGroups, p.Child("apiGroups"), "resource rules must supply at least one api group", "api groups")...)
	errs = append(errs, validateList(r.Resources, p.Child("resources"), "resource rules must supply at least one resource", "resources")...)
	if len(r.Namespaces) == 0 && r.ClusterScope {
		return errs
	}
	p = p.Child("namespaces")
	errs = append(errs, validateList(r.Namespaces, p, "resource rules that are not cluster scoped must supply at least one namespace", "namespaces")...)
	for i, ns := range r.Namespaces {
		if ns == all {
			continue
		}
		for _, message := range validation.IsDNS1123Label(ns) {
			errs = append(errs, field.Invalid(p.Index(i), ns, "each member of this list must be '*' or a DNS-1123 label; "+message))
		}
	}
	return errs
}

func validateURLs(urls []string, p *field.Path) field.ErrorList {
	errs := validateList(urls, p, "nonResourceURLs must contain at least one value", "non-resource URLs")
	for i, url := range urls {
		if message := wrongURL(url); message != "" {
			errs = append(errs, field.Invalid(p.Index(i), url, message))
		}
	}
	return errs
}

// wrongURL says what is wrong with a path that may end with "/*".
func wrongURL(url string) string {
	switch prefix := strings.TrimSuffix(url, "/*"); {
	case url == all:
		return ""
	case url == "":
		return "must not be empty"
	case !strings.HasPrefix(url, "/"):
		return "must start with slash"
	case strings.Contains(url, " "):
		return "must not contain white-space"
	case strings.Contains(url, "//"):
		return "must not contain double slash"
	case strings.Contains(prefix, "*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}
