package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// RulesAllow tells whether one of the rules allows the request.
func RulesAllow(a authorizer.Attributes, rules ...rbacv1.PolicyRule) bool {
	for i := range rules {
		if allows(a, &rules[i]) {
			return true
		}
	}
	return false
}

func allows(a authorizer.Attributes, rule *rbacv1.PolicyRule) bool {
	if !has(rule.Verbs, a.GetVerb(), rbacv1.VerbAll) {
		return false
	}
	if !a.IsResourceRequest() {
		return allowsPath(rule.NonResourceURLs, a.GetPath())
	}
	return has(rule.APIGroups, a.GetAPIGroup(), rbacv1.APIGroupAll) &&
		allowsResource(rule.Resources, a.GetResource(), a.GetSubresource()) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, a.GetName()))
}

func has(list []string, one, all string) bool {
	return slices.Contains(list, one) || slices.Contains(list, all)
}

// allowsResource knows "*", "pods", "pods/log" and "*/scale". "*" covers
// subresources too, "pods" does not.
func allowsResource(list []string, resource, subresource string) bool {
	for _, r := range list {
		if r == rbacv1.ResourceAll {
			return true
		}
		main, sub, _ := strings.Cut(r, "/")
		if sub == subresource && (main == resource || main == "*" && sub != "") {
			return true
		}
	}
	return false
}

// allowsPath knows exact paths, prefixes that end in "*", and "*".
func allowsPath(list []string, path string) bool {
	for _, p := range list {
		if p == path {
			return true
		}
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
