// Package rbac knows what is true of the kinds of rbac.authorization.k8s.io/v1
// wherever they are handled: their defaults ([AddDefaults]) and what makes them
// invalid (the Validate functions).
package rbac

import (
	"cmp"

	rbacv1 "k8s.io/api/rbac/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, func(b *rbacv1.RoleBinding) { setBinding(&b.RoleRef, b.Subjects) })
	rules.Default(s, func(b *rbacv1.ClusterRoleBinding) { setBinding(&b.RoleRef, b.Subjects) })
	return nil
}

func setBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	ref.APIGroup = cmp.Or(ref.APIGroup, rbacv1.GroupName)
	for i := range subjects {
		s := &subjects[i]
		if s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = rbacv1.GroupName
		}
	}
}

// ValidateRole says what is wrong with a new Role.
func ValidateRole(r *rbacv1.Role) field.ErrorList {
	errs := rules.Namespaced(&r.ObjectMeta, rules.PathSegment)
	return append(errs, validateRules(r.Rules, true)...)
}

// ValidateRoleUpdate says what is wrong with an update of a Role.
func ValidateRoleUpdate(r, old *rbacv1.Role) field.ErrorList {
	return append(ValidateRole(r), rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)...)
}

// ValidateClusterRole says what is wrong with a new ClusterRole.
func ValidateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	errs := rules.ClusterScoped(&r.ObjectMeta, rules.PathSegment)
	errs = append(errs, validateRules(r.Rules, false)...)
	if r.AggregationRule == nil {
		return errs
	}
	p := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		return append(errs, field.Required(p, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		s := &r.AggregationRule.ClusterRoleSelectors[i]
		errs = append(errs, rules.LabelSelector(s, p.Index(i))...)
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			errs = append(errs, field.Invalid(p.Index(i), selector, "invalid label selector."))
		}
	}
	return errs
}

// ValidateClusterRoleUpdate says what is wrong with an update of a ClusterRole.
func ValidateClusterRoleUpdate(r, old *rbacv1.ClusterRole) field.ErrorList {
	return append(ValidateClusterRole(r), rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)...)
}

func validateRules(list []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		errs = append(errs, validateRule(&list[i], namespaced, field.NewPath("rules").Index(i))...)
	}
	return errs
}

func validateRule(r *rbacv1.PolicyRule, namespaced bool, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Verbs) == 0 {
		errs = append(errs, field.Required(p.Child("verbs"), ""))
	}
	if len(r.NonResourceURLs) > 0 {
		urls := p.Child("nonResourceURLs")
		if namespaced {
			errs = append(errs, field.Invalid(urls, r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
		}
		if len(r.APIGroups)+len(r.Resources)+len(r.ResourceNames) > 0 {
			errs = append(errs, field.Invalid(urls, r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
		}
		return errs
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(p.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(p.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}

// ValidateRoleBinding says what is wrong with a new RoleBinding.
func ValidateRoleBinding(b *rbacv1.RoleBinding) field.ErrorList {
	errs := rules.Namespaced(&b.ObjectMeta, rules.PathSegment)
	errs = append(errs, validateRoleRef(&b.RoleRef, "Role", "ClusterRole")...)
	return append(errs, validateSubjects(b.Subjects, true)...)
}

// ValidateRoleBindingUpdate says what is wrong with an update of a RoleBinding.
func ValidateRoleBindingUpdate(b, old *rbacv1.RoleBinding) field.ErrorList {
	errs := append(ValidateRoleBinding(b), rules.MetaUpdate(&b.ObjectMeta, &old.ObjectMeta)...)
	return append(errs, rules.Immutable(b.RoleRef, old.RoleRef, field.NewPath("roleRef"))...)
}

// ValidateClusterRoleBinding says what is wrong with a new ClusterRoleBinding.
func ValidateClusterRoleBinding(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := rules.ClusterScoped(&b.ObjectMeta, rules.PathSegment)
	errs = append(errs, validateRoleRef(&b.RoleRef, "ClusterRole")...)
	return append(errs, validateSubjects(b.Subjects, false)...)
}

// ValidateClusterRoleBindingUpdate says what is wrong with an update of a ClusterRoleBinding.
func ValidateClusterRoleBindingUpdate(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := append(ValidateClusterRoleBinding(b), rules.MetaUpdate(&b.ObjectMeta, &old.ObjectMeta)...)
	return append(errs, rules.Immutable(b.RoleRef, old.RoleRef, field.NewPath("roleRef"))...)
}

func validateRoleRef(ref *rbacv1.RoleRef, kinds ...string) field.ErrorList {
	p := field.NewPath("roleRef")
	errs := rules.OneOf(ref.APIGroup, p.Child("apiGroup"), rbacv1.GroupName)
	errs = append(errs, rules.OneOf(ref.Kind, p.Child("kind"), kinds...)...)
	if ref.Name == "" {
		return append(errs, field.Required(p.Child("name"), ""))
	}
	return append(errs, rules.Messages(p.Child("name"), ref.Name, rules.PathSegment(ref.Name, false))...)
}

func validateSubjects(subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i := range subjects {
		errs = append(errs, validateSubject(&subjects[i], namespaced, field.NewPath("subjects").Index(i))...)
	}
	return errs
}

func validateSubject(s *rbacv1.Subject, namespaced bool, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	}
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			errs = append(errs, rules.Messages(p.Child("name"), s.Name, apivalidation.ValidateServiceAccountName(s.Name, false))...)
		}
		errs = append(errs, rules.OneOf(s.APIGroup, p.Child("apiGroup"), "")...)
		// In a RoleBinding it is taken from the binding.
		if !namespaced && s.Namespace == "" {
			errs = append(errs, field.Required(p.Child("namespace"), ""))
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		errs = append(errs, rules.OneOf(s.APIGroup, p.Child("apiGroup"), rbacv1.GroupName)...)
	default:
		errs = append(errs, rules.OneOf(s.Kind, p.Child("kind"), rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind)...)
	}
	return errs
}
