package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// A Guard keeps people from giving permissions that they do not have themselves.
// Only the group system:masters, and who holds the verbs "escalate" on a role or
// "bind" on the role that a binding refers to, may.
type Guard struct {
	authorizer authorizer.UnconditionalAuthorizer
	resolver   *Resolver
}

// NewGuard returns a Guard that asks the server's whole authorizer about the
// verbs, and the resolver about what somebody has.
func NewGuard(a authorizer.UnconditionalAuthorizer, r *Resolver) *Guard {
	return &Guard{authorizer: a, resolver: r}
}

// Protect makes a store of Roles, ClusterRoles or bindings refuse, with 403, what
// would escalate. The store's own BeginCreate and BeginUpdate are still called.
func (g *Guard) Protect(store *genericregistry.Store) {
	beginCreate, beginUpdate := store.BeginCreate, store.BeginUpdate
	store.BeginCreate = func(ctx context.Context, obj runtime.Object, o *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
		if err := g.Check(ctx, obj, nil); err != nil {
			return nil, err
		}
		if beginCreate != nil {
			return beginCreate(ctx, obj, o)
		}
		return func(context.Context, bool) {}, nil
	}
	store.BeginUpdate = func(ctx context.Context, obj, old runtime.Object, o *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
		if err := g.Check(ctx, obj, old); err != nil {
			return nil, err
		}
		if beginUpdate != nil {
			return beginUpdate(ctx, obj, old, o)
		}
		return func(context.Context, bool) {}, nil
	}
}

// Check reports, as a Forbidden error, that the user of ctx may not write obj in
// the place of old, which is nil when obj is created.
func (g *Guard) Check(ctx context.Context, obj, old runtime.Object) error {
	u, ok := genericrequest.UserFrom(ctx)
	if ok && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	if old != nil && onlyGarbageCollection(obj, old) {
		return nil
	}
	switch o := obj.(type) {
	case *rbacv1.Role:
		previous, _ := old.(*rbacv1.Role)
		if previous != nil && equality.Semantic.DeepEqual(previous.Rules, o.Rules) || g.mayEscalate(ctx, u, "roles", o.Namespace) {
			return nil
		}
		return forbidden("roles", o.Name, g.covered(u, o.Namespace, o.Rules))
	case *rbacv1.ClusterRole:
		previous, _ := old.(*rbacv1.ClusterRole)
		if previous != nil && equality.Semantic.DeepEqual(previous.Rules, o.Rules) && equality.Semantic.DeepEqual(previous.AggregationRule, o.AggregationRule) || g.mayEscalate(ctx, u, "clusterroles", "") {
			return nil
		}
		if err := forbidden("clusterroles", o.Name, g.covered(u, "", o.Rules)); err != nil {
			return err
		}
		if o.AggregationRule == nil || len(o.AggregationRule.ClusterRoleSelectors) == 0 {
			return nil
		}
		// What an aggregated role will hold is decided by whoever labels roles.
		if err := g.covered(u, "", everything); err != nil {
			return forbidden("clusterroles", o.Name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
		}
		return nil
	case *rbacv1.RoleBinding:
		return forbidden("rolebindings", o.Name, g.mayBind(ctx, u, o.RoleRef, o.Namespace))
	case *rbacv1.ClusterRoleBinding:
		return forbidden("clusterrolebindings", o.Name, g.mayBind(ctx, u, o.RoleRef, ""))
	}
	return apierrors.NewInternalError(fmt.Errorf("%T is no RBAC object", obj))
}

var everything = []rbacv1.PolicyRule{
	{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}},
	{NonResourceURLs: []string{"*"}, Verbs: []string{"*"}},
}

func forbidden(resource, name string, err error) error {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case errors.As(err, &status):
		return err // the role is not there: that is not the user's lack of rights
	}
	return apierrors.NewForbidden(rbacv1.Resource(resource), name, err)
}

// onlyGarbageCollection tells whether the update changes no more than what the
// garbage collector changes, which must not need the permissions of a role's author.
func onlyGarbageCollection(obj, old runtime.Object) bool {
	a, b := obj.DeepCopyObject(), old.DeepCopyObject()
	for _, o := range []runtime.Object{a, b} {
		m, ok := o.(metav1.Object)
		if !ok {
			return false
		}
		m.SetOwnerReferences(nil)
		m.SetFinalizers(nil)
		m.SetManagedFields(nil)
	}
	return equality.Semantic.DeepEqual(a, b)
}

func (g *Guard) mayEscalate(ctx context.Context, u user.Info, resource, namespace string) bool {
	info, ok := genericrequest.RequestInfoFrom(ctx)
	if u == nil || !ok {
		return false
	}
	decision, _, err := g.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: u, Verb: "escalate", APIGroup: rbacv1.GroupName, APIVersion: "*",
		Resource: resource, Namespace: namespace, Name: info.Name, ResourceRequest: true,
	})
	return err == nil && decision == authorizer.DecisionAllow
}

// mayBind returns nil if the user may bind the role because of the verb, or has
// what the role gives.
func (g *Guard) mayBind(ctx context.Context, u user.Info, ref rbacv1.RoleRef, namespace string) error {
	resource, ok := map[string]string{"Role": "roles", "ClusterRole": "clusterroles"}[ref.Kind]
	if u != nil && ok {
		decision, _, err := g.authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: "bind", APIGroup: ref.APIGroup, APIVersion: "*",
			Resource: resource, Namespace: namespace, Name: ref.Name, ResourceRequest: true,
		})
		if err == nil && decision == authorizer.DecisionAllow {
			return nil
		}
	}
	rules, err := g.resolver.RulesOf(ref, namespace)
	if apierrors.IsNotFound(err) {
		if namespace == "" {
			return apierrors.NewNotFound(rbacv1.Resource("clusterrolebindings"), ref.Name)
		}
		return apierrors.NewNotFound(rbacv1.Resource("rolebindings"), ref.Name)
	} else if err != nil {
		return err
	}
	return g.covered(u, namespace, rules)
}

// covered returns an error that lists the rules that go beyond the user's own.
func (g *Guard) covered(u user.Info, namespace string, rules []rbacv1.PolicyRule) error {
	if u == nil {
		return errors.New("no user on the request")
	}
	own, unresolved := g.resolver.Rules(u, namespace)
	ok, missing := validation.Covers(own, rules)
	if ok {
		return nil
	}
	msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.GetName(), u.GetGroups(), strings.Join(describe(missing), "\n"))
	if unresolved != nil {
		msg += fmt.Sprintf("; resolution errors: %v", unresolved)
	}
	return errors.New(msg)
}

// describe writes rules one a line and sorted, those that differ only in their
// verbs as one.
func describe(rules []rbacv1.PolicyRule) []string {
	verbs := map[string][]string{}
	for _, r := range rules {
		key := ""
		for _, part := range []struct {
			name   string
			values []string
		}{{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs}, {"ResourceNames", r.ResourceNames}} {
			if len(part.values) > 0 {
				key += fmt.Sprintf("%s:%q, ", part.name, part.values)
			}
		}
		verbs[key] = append(verbs[key], r.Verbs...)
	}
	var lines []string
	for key, v := range verbs {
		lines = append(lines, fmt.Sprintf("{%sVerbs:%q}", key, v))
	}
	slices.Sort(lines)
	return lines
}
