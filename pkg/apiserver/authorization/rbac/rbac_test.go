package rbac

import (
	"context"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func rule(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), APIGroups: strings.Split(groups, ","), Resources: strings.Split(resources, ","), ResourceNames: names}
}

func TestRulesAllow(t *testing.T) {
	paths := rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/apis/*"}}
	resource := func(verb, group, resource, name string) authorizer.AttributesRecord {
		r, sub, _ := strings.Cut(resource, "/")
		return authorizer.AttributesRecord{Verb: verb, APIGroup: group, Resource: r, Subresource: sub, Name: name, ResourceRequest: true}
	}
	path := func(verb, path string) authorizer.AttributesRecord {
		return authorizer.AttributesRecord{Verb: verb, Path: path}
	}
	for name, test := range map[string]struct {
		rule rbacv1.PolicyRule
		a    authorizer.AttributesRecord
		want bool
	}{
		"exact":                              {rule("get", "", "pods"), resource("get", "", "pods", "x"), true},
		"other verb":                         {rule("get", "", "pods"), resource("list", "", "pods", ""), false},
		"other group":                        {rule("get", "apps", "pods"), resource("get", "", "pods", "x"), false},
		"everything":                         {rule("*", "*", "*"), resource("delete", "apps", "deployments/scale", "x"), true},
		"a resource is not its subresources": {rule("get", "", "pods"), resource("get", "", "pods/log", "x"), false},
		"subresource":                        {rule("get", "", "pods/log"), resource("get", "", "pods/log", "x"), true},
		"a subresource is not its resource":  {rule("get", "", "pods/log"), resource("get", "", "pods", "x"), false},
		"subresource of all":                 {rule("get", "*", "*/scale"), resource("get", "apps", "deployments/scale", "x"), true},
		"another subresource of all":         {rule("get", "*", "*/scale"), resource("get", "apps", "deployments/status", "x"), false},
		"a name":                             {rule("get", "", "pods", "x"), resource("get", "", "pods", "x"), true},
		"another name":                       {rule("get", "", "pods", "x"), resource("get", "", "pods", "y"), false},
		"no name where one is demanded":      {rule("create", "", "pods", "x"), resource("create", "", "pods", ""), false},
		"path":                               {paths, path("get", "/healthz"), true},
		"longer path":                        {paths, path("get", "/healthz/etcd"), false},
		"path with prefix":                   {paths, path("get", "/apis/apps/v1"), true},
		"path, other verb":                   {paths, path("post", "/healthz"), false},
		"resources are not paths":            {rule("*", "*", "*"), path("get", "/healthz"), false},
		"paths are not resources":            {rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}, resource("get", "", "pods", "x"), false},
	} {
		if got := RulesAllow(test.a, test.rule); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func resolver(t *testing.T, objects ...runtime.Object) *Resolver {
	t.Helper()
	f := informers.NewSharedInformerFactory(fake.NewClientset(objects...), 0)
	r, err := NewResolver(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())
	if !r.HasSynced() {
		t.Fatal("not synced")
	}
	return r
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func role(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules}
}

func clusterRoleBinding(name string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: subjects}
}

func roleBinding(namespace, name, kind string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}, Subjects: subjects}
}

func someone(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: name}
}

func TestAuthorizer(t *testing.T) {
	a := NewAuthorizer(resolver(t,
		clusterRole("reader", rule("get,list", "", "pods")), clusterRoleBinding("reader", rbacv1.Subject{Kind: "Group", Name: "readers"}),
		clusterRole("view", rule("get", "", "services")), roleBinding("a", "view", "ClusterRole", someone("ann")),
		role("a", "writer", rule("create", "", "pods")), roleBinding("a", "writer", "Role", rbacv1.Subject{Kind: "ServiceAccount", Name: "bot"}),
		clusterRoleBinding("lost", someone("ann")),
	))
	ann := &user.DefaultInfo{Name: "ann"}
	bot := &user.DefaultInfo{Name: "system:serviceaccount:a:bot"}
	for name, test := range map[string]struct {
		user           user.Info
		verb, resource string
		namespace      string
		want           bool
		reason         string
	}{
		"by group, everywhere":           {user: &user.DefaultInfo{Name: "x", Groups: []string{"readers"}}, verb: "get", resource: "pods", namespace: "b", want: true, reason: `RBAC: allowed by ClusterRoleBinding "reader" of ClusterRole "reader" to Group "readers"`},
		"not in the group":               {user: &user.DefaultInfo{Name: "x", Groups: []string{"writers"}}, verb: "get", resource: "pods", namespace: "b"},
		"a group's name is not a user's": {user: &user.DefaultInfo{Name: "readers"}, verb: "get", resource: "pods"},
		"cluster role in a namespace":    {user: ann, verb: "get", resource: "services", namespace: "a", want: true, reason: `RBAC: allowed by RoleBinding "a/view" of ClusterRole "view" to User "ann"`},
		"in another namespace":           {user: ann, verb: "get", resource: "services", namespace: "b", reason: `RBAC: clusterrole.rbac.authorization.k8s.io "lost" not found`},
		"in all namespaces":              {user: ann, verb: "get", resource: "services", reason: `RBAC: clusterrole.rbac.authorization.k8s.io "lost" not found`},
		"service account":                {user: bot, verb: "create", resource: "pods", namespace: "a", want: true, reason: `RBAC: allowed by RoleBinding "a/writer" of Role "writer" to ServiceAccount "bot/"`},
		"service account elsewhere":      {user: bot, verb: "create", resource: "pods", namespace: "b"},
	} {
		decision, reason, err := a.Authorize(t.Context(), authorizer.AttributesRecord{User: test.user, Verb: test.verb, Resource: test.resource, Namespace: test.namespace, ResourceRequest: true})
		if err != nil || (decision == authorizer.DecisionAllow) != test.want || decision == authorizer.DecisionDeny {
			t.Errorf("%s: %v, %v", name, decision, err)
		}
		if reason != test.reason {
			t.Errorf("%s: because %q", name, reason)
		}
	}
}

func TestGuard(t *testing.T) {
	r := resolver(t,
		clusterRole("reader", rule("get,list", "", "pods")), clusterRoleBinding("reader", someone("ann"), someone("eve")),
		clusterRole("admin", rule("*", "*", "*"), rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}), clusterRoleBinding("admin", someone("root")),
		clusterRole("escalator", rule("escalate", rbacv1.GroupName, "roles,clusterroles")), clusterRoleBinding("escalator", someone("esc")),
		clusterRole("binder", rule("bind", rbacv1.GroupName, "clusterroles", "admin")), clusterRoleBinding("binder", someone("bind")),
	)
	g := NewGuard(NewAuthorizer(r), r)
	as := func(name string, groups ...string) context.Context {
		ctx := genericrequest.WithUser(t.Context(), &user.DefaultInfo{Name: name, Groups: groups})
		return genericrequest.WithRequestInfo(ctx, &genericrequest.RequestInfo{})
	}
	secrets := role("a", "new", rule("get", "", "secrets"))
	labelled := secrets.DeepCopy()
	labelled.Labels = map[string]string{"x": "y"}
	owned := roleBinding("a", "admin", "ClusterRole", someone("eve"))
	owned.Finalizers = []string{"x"}
	aggregated := clusterRole("new")
	aggregated.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}
	for name, test := range map[string]struct {
		ctx     context.Context
		obj     runtime.Object
		old     runtime.Object
		refused string
		missing string
	}{
		"nobody":                                {ctx: t.Context(), obj: secrets, refused: "no user on the request"},
		"more than one has":                     {ctx: as("eve", "g"), obj: secrets, refused: "user \"eve\" (groups=[\"g\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"},
		"as much as one has":                    {ctx: as("ann"), obj: role("a", "new", rule("get", "", "pods"))},
		"a wildcard":                            {ctx: as("ann"), obj: clusterRole("new", rule("*", "", "pods")), refused: "attempting to grant"},
		"system:masters":                        {ctx: as("m", "system:masters"), obj: clusterRole("new", rule("*", "*", "*"))},
		"all powers by RBAC":                    {ctx: as("root"), obj: clusterRole("new", rule("*", "*", "*"))},
		"escalate":                              {ctx: as("esc"), obj: clusterRole("new", rule("*", "*", "*"))},
		"rules unchanged":                       {ctx: as("eve"), obj: labelled, old: secrets},
		"rules added":                           {ctx: as("eve"), obj: role("a", "new", rule("get,list", "", "secrets")), old: secrets, refused: "attempting to grant"},
		"aggregation":                           {ctx: as("ann"), obj: aggregated, refused: "must have cluster-admin privileges to use the aggregationRule"},
		"aggregation by an administrator":       {ctx: as("root"), obj: aggregated},
		"binding to a greater role":             {ctx: as("eve"), obj: clusterRoleBinding("admin", someone("eve")), refused: "attempting to grant"},
		"binding to a greater role, namespaced": {ctx: as("eve"), obj: roleBinding("a", "admin", "ClusterRole", someone("eve")), refused: "attempting to grant"},
		"binding to an equal role":              {ctx: as("eve"), obj: clusterRoleBinding("reader", someone("bob"))},
		"binding with the verb":                 {ctx: as("bind"), obj: roleBinding("a", "admin", "ClusterRole", someone("bob"))},
		"binding another role than the verb's":  {ctx: as("bind"), obj: roleBinding("a", "reader", "ClusterRole", someone("bob")), refused: "attempting to grant"},
		"binding to a role that is not there":   {ctx: as("eve"), obj: roleBinding("a", "none", "Role", someone("bob")), missing: `rolebindings.rbac.authorization.k8s.io "none" not found`},
		"the garbage collector":                 {ctx: as("gc"), obj: owned, old: roleBinding("a", "admin", "ClusterRole", someone("eve"))},
		"a subject more":                        {ctx: as("eve"), obj: roleBinding("a", "admin", "ClusterRole", someone("eve")), old: roleBinding("a", "admin", "ClusterRole"), refused: "attempting to grant"},
	} {
		err := g.Check(test.ctx, test.obj, test.old)
		switch {
		case test.missing != "":
			if !apierrors.IsNotFound(err) || err.Error() != test.missing {
				t.Errorf("%s: %v, want %q", name, err, test.missing)
			}
		case test.refused == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.refused != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), test.refused)):
			t.Errorf("%s: %v, want %q", name, err, test.refused)
		}
	}
}

func TestRulesFor(t *testing.T) {
	r := resolver(t,
		clusterRole("reader", rule("get,list", "", "pods"), rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/version"}}), clusterRoleBinding("reader", someone("ann")),
		role("a", "writer", rule("create", "", "pods")), roleBinding("a", "writer", "Role", someone("ann")))
	resources, paths, incomplete, err := r.RulesFor(t.Context(), &user.DefaultInfo{Name: "ann"}, "a")
	if len(resources) != 2 || len(paths) != 1 || incomplete || err != nil {
		t.Errorf("%v, %v, %v, %v", resources, paths, incomplete, err)
	}
}
