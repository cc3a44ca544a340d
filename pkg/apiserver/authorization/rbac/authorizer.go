package rbac

import (
	"context"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/klog/v2"
)

// NewAuthorizer returns the authorizer that allows what a rule allows and has no
// opinion about the rest.
func NewAuthorizer(r *Resolver) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		return r.authorize(ctx, a)
	})
}

func (r *Resolver) authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	var why string
	err := r.visit(a.GetUser(), a.GetNamespace(), func(g grant) bool {
		if !allows(a, g.rule) {
			return true
		}
		why = "RBAC: allowed by " + g.String()
		return false
	})
	if why != "" {
		return authorizer.DecisionAllow, why, nil
	}
	if log := klog.FromContext(ctx).V(5); log.Enabled() {
		log.Info("RBAC: no rule allows the request", "user", a.GetUser().GetName(), "groups", a.GetUser().GetGroups(), "verb", a.GetVerb(),
			"apiGroup", a.GetAPIGroup(), "resource", a.GetResource(), "subresource", a.GetSubresource(), "object", klog.KRef(a.GetNamespace(), a.GetName()), "path", a.GetPath())
	}
	if err != nil {
		return authorizer.DecisionNoOpinion, "RBAC: " + err.Error(), nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}
