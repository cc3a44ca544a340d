// Package abac authorizes by a file with one policy in JSON on each line.
package abac

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

const apiVersion = "abac.authorization.kubernetes.io/v1beta1"

// A policy allows whom it names what it names. "*" is anything.
type policy struct {
	User            string `json:"user"`
	Group           string `json:"group"`
	ReadOnly        bool   `json:"readonly"`
	APIGroup        string `json:"apiGroup"`
	Resource        string `json:"resource"`
	Namespace       string `json:"namespace"`
	NonResourcePath string `json:"nonResourcePath"`
}

// Authorizer allows what a policy allows and has no opinion about the rest.
type Authorizer struct {
	authorizer.AuthorizerFunc
	policies []policy
}

// Load reads the policies of a file. Lines that are empty or begin with # are left out.
func Load(file string) (*Authorizer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	a := &Authorizer{}
	for i, line := range bytes.Split(data, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		var p struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Spec       policy `json:"spec"`
		}
		if err := json.Unmarshal(line, &p); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
		if p.APIVersion != apiVersion || p.Kind != "Policy" {
			return nil, fmt.Errorf("%s:%d: expected a Policy of %s, found %q of %q", file, i+1, apiVersion, p.Kind, p.APIVersion)
		}
		a.policies = append(a.policies, p.Spec)
	}
	a.AuthorizerFunc = a.authorize
	return a, nil
}

func (a *Authorizer) authorize(_ context.Context, attributes authorizer.Attributes) (authorizer.Decision, string, error) {
	for _, p := range a.policies {
		if p.appliesTo(attributes.GetUser()) && (!p.ReadOnly || attributes.IsReadOnly()) && p.allows(attributes) {
			return authorizer.DecisionAllow, "", nil
		}
	}
	return authorizer.DecisionNoOpinion, "No policy matched.", nil
}

// appliesTo demands both user and group if the policy names both, and nobody if
// it names neither.
func (p policy) appliesTo(u user.Info) bool {
	return (p.User != "" || p.Group != "") &&
		(p.User == "" || p.User == "*" || p.User == u.GetName()) &&
		(p.Group == "" || p.Group == "*" || slices.Contains(u.GetGroups(), p.Group))
}

func (p policy) allows(a authorizer.Attributes) bool {
	if !a.IsResourceRequest() {
		prefix, isPrefix := strings.CutSuffix(p.NonResourcePath, "*")
		return p.NonResourcePath == a.GetPath() || isPrefix && strings.HasPrefix(a.GetPath(), prefix)
	}
	is := func(pattern, value string) bool { return pattern == "*" || pattern == value }
	return is(p.Namespace, a.GetNamespace()) && is(p.Resource, a.GetResource()) && is(p.APIGroup, a.GetAPIGroup())
}

// RulesFor implements authorizer.RuleResolver.
func (a *Authorizer) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	for _, p := range a.policies {
		if !p.appliesTo(u) || p.Namespace != "*" && p.Namespace != namespace {
			continue
		}
		if p.Resource != "" {
			verbs := []string{"*"}
			if p.ReadOnly {
				verbs = []string{"get", "list", "watch"}
			}
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{Verbs: verbs, APIGroups: []string{p.APIGroup}, Resources: []string{p.Resource}})
		}
		if p.NonResourcePath != "" {
			verbs := []string{"*"}
			if p.ReadOnly {
				verbs = []string{"get"}
			}
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: verbs, NonResourceURLs: []string{p.NonResourcePath}})
		}
	}
	return resources, paths, false, nil
}
