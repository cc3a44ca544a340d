package rbac

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"
)

// bySubject indexes bindings by whom they bind, so that a request looks only at
// the bindings of its own user and groups, however many a cluster has.
const bySubject = "leme.rbac.subject"

// A Resolver finds the rules that apply to a user.
type Resolver struct {
	clusterRoles        rbaclisters.ClusterRoleLister
	roles               rbaclisters.RoleLister
	clusterRoleBindings cache.Indexer
	roleBindings        cache.Indexer
	synced              []cache.InformerSynced
}

// NewResolver reads from the informers, which must not have started.
func NewResolver(f informers.SharedInformerFactory) (*Resolver, error) {
	i := f.Rbac().V1()
	for _, informer := range []cache.SharedIndexInformer{i.ClusterRoleBindings().Informer(), i.RoleBindings().Informer()} {
		// Two servers of one process never share a factory, but two parts of one
		// server may both ask for a resolver.
		if _, ok := informer.GetIndexer().GetIndexers()[bySubject]; ok {
			continue
		}
		if err := informer.AddIndexers(cache.Indexers{bySubject: indexBySubject}); err != nil {
			return nil, fmt.Errorf("indexing RBAC bindings by subject: %w", err)
		}
	}
	return &Resolver{
		clusterRoles:        i.ClusterRoles().Lister(),
		roles:               i.Roles().Lister(),
		clusterRoleBindings: i.ClusterRoleBindings().Informer().GetIndexer(),
		roleBindings:        i.RoleBindings().Informer().GetIndexer(),
		synced: []cache.InformerSynced{
			i.ClusterRoles().Informer().HasSynced, i.Roles().Informer().HasSynced,
			i.ClusterRoleBindings().Informer().HasSynced, i.RoleBindings().Informer().HasSynced,
		},
	}, nil
}

// HasSynced tells whether the resolver knows all roles and bindings. Before that
// it knows fewer, so that it allows less.
func (r *Resolver) HasSynced() bool {
	for _, synced := range r.synced {
		if !synced() {
			return false
		}
	}
	return true
}

// Has tells whether the resolver knows all these objects, by name.
func (r *Resolver) Has(clusterRoles []*rbacv1.ClusterRole, clusterRoleBindings []*rbacv1.ClusterRoleBinding, roles []*rbacv1.Role, roleBindings []*rbacv1.RoleBinding) bool {
	known := func(i cache.Indexer, o metav1.Object) bool {
		_, ok, err := i.GetByKey(cache.MetaObjectToName(o).String())
		return ok && err == nil
	}
	for _, o := range clusterRoles {
		if _, err := r.clusterRoles.Get(o.Name); err != nil {
			return false
		}
	}
	for _, o := range roles {
		if _, err := r.roles.Roles(o.Namespace).Get(o.Name); err != nil {
			return false
		}
	}
	for _, o := range clusterRoleBindings {
		if !known(r.clusterRoleBindings, o) {
			return false
		}
	}
	for _, o := range roleBindings {
		if !known(r.roleBindings, o) {
			return false
		}
	}
	return true
}

func indexBySubject(obj any) ([]string, error) {
	var namespace string
	var subjects []rbacv1.Subject
	switch b := obj.(type) {
	case *rbacv1.ClusterRoleBinding:
		subjects = b.Subjects
	case *rbacv1.RoleBinding:
		namespace, subjects = b.Namespace, b.Subjects
	default:
		return nil, fmt.Errorf("%T is no RBAC binding", obj)
	}
	keys := make([]string, 0, len(subjects))
	for i := range subjects {
		if who := subjectKey(&subjects[i], namespace); who != "" {
			keys = append(keys, namespace+"/"+who)
		}
	}
	return keys, nil
}

// subjectKey names whom a subject means: "u:" and a user name, or "g:" and a group.
func subjectKey(s *rbacv1.Subject, namespace string) string {
	switch s.Kind {
	case rbacv1.UserKind:
		return "u:" + s.Name
	case rbacv1.GroupKind:
		return "g:" + s.Name
	case rbacv1.ServiceAccountKind:
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		if namespace != "" {
			return "u:" + serviceaccount.MakeUsername(namespace, s.Name)
		}
	}
	return ""
}

// A grant is a rule and the binding that gives it to a user.
type grant struct {
	rule    *rbacv1.PolicyRule
	role    *rbacv1.RoleRef
	binding cache.ObjectName // without a namespace for a ClusterRoleBinding
	subject *rbacv1.Subject
}

func (g grant) String() string {
	kind := "RoleBinding"
	if g.binding.Namespace == "" {
		kind = "ClusterRoleBinding"
	}
	who := fmt.Sprintf("%s %q", g.subject.Kind, g.subject.Name)
	if g.subject.Kind == rbacv1.ServiceAccountKind {
		who = fmt.Sprintf("%s %q", g.subject.Kind, g.subject.Name+"/"+g.subject.Namespace)
	}
	return fmt.Sprintf("%s %q of %s %q to %s", kind, g.binding, g.role.Kind, g.role.Name, who)
}

// visit calls f with every rule that applies to the user in the namespace ("" for
// cluster-wide rules alone) until f returns false. A role that cannot be found
// does not end the visit: the errors are returned together.
func (r *Resolver) visit(u user.Info, namespace string, f func(grant) bool) error {
	var errs []error
	who := make([]string, 0, 1+len(u.GetGroups()))
	who = append(who, "u:"+u.GetName())
	for _, group := range u.GetGroups() {
		who = append(who, "g:"+group)
	}
	for _, key := range who {
		bindings, err := r.clusterRoleBindings.ByIndex(bySubject, "/"+key)
		if err != nil {
			return err
		}
		for _, obj := range bindings {
			b := obj.(*rbacv1.ClusterRoleBinding)
			g := grant{role: &b.RoleRef, binding: cache.MetaObjectToName(b), subject: find(b.Subjects, "", key)}
			if more, err := r.visitRole(g, "", f); err != nil {
				errs = append(errs, err)
			} else if !more {
				return nil
			}
		}
	}
	if namespace == "" {
		return utilerrors.NewAggregate(errs)
	}
	for _, key := range who {
		bindings, err := r.roleBindings.ByIndex(bySubject, namespace+"/"+key)
		if err != nil {
			return err
		}
		for _, obj := range bindings {
			b := obj.(*rbacv1.RoleBinding)
			g := grant{role: &b.RoleRef, binding: cache.MetaObjectToName(b), subject: find(b.Subjects, namespace, key)}
			if more, err := r.visitRole(g, namespace, f); err != nil {
				errs = append(errs, err)
			} else if !more {
				return nil
			}
		}
	}
	return utilerrors.NewAggregate(errs)
}

func find(subjects []rbacv1.Subject, namespace, key string) *rbacv1.Subject {
	for i := range subjects {
		if subjectKey(&subjects[i], namespace) == key {
			return &subjects[i]
		}
	}
	return &rbacv1.Subject{} // the index found the binding by this key: not reached
}

func (r *Resolver) visitRole(g grant, namespace string, f func(grant) bool) (more bool, err error) {
	rules, err := r.RulesOf(*g.role, namespace)
	for i := range rules {
		g.rule = &rules[i]
		if !f(g) {
			return false, nil
		}
	}
	return true, err
}

// RulesOf returns the rules of the role that a binding in the namespace refers to.
func (r *Resolver) RulesOf(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	switch ref.Kind {
	case "Role":
		role, err := r.roles.Roles(namespace).Get(ref.Name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	case "ClusterRole":
		role, err := r.clusterRoles.Get(ref.Name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	}
	return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
}

// Rules returns every rule that applies to the user in the namespace. With an
// error they are still true, but not all.
func (r *Resolver) Rules(u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	err := r.visit(u, namespace, func(g grant) bool {
		rules = append(rules, *g.rule)
		return true
	})
	return rules, err
}

// RulesFor implements authorizer.RuleResolver, which SelfSubjectRulesReview asks.
func (r *Resolver) RulesFor(_ context.Context, u user.Info, namespace string) (resources []authorizer.ResourceRuleInfo, paths []authorizer.NonResourceRuleInfo, incomplete bool, err error) {
	rules, err := r.Rules(u, namespace)
	for i := range rules {
		rule := &rules[i]
		if len(rule.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames})
		}
		if len(rule.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	return resources, paths, false, err
}
