// Package clusterrolebinding serves rbac.authorization.k8s.io/v1 ClusterRoleBinding.
package clusterrolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/rbac"
	guard "github.com/leme-k8s/leme/pkg/apiserver/authorization/rbac"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/rbac/subjects"
)

// Storage returns the storage of clusterrolebindings, which nobody can use to gain permissions.
func Storage(o generic.Options, g *guard.Guard) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	g.Protect(s.Store)
	return generic.Storage{"clusterrolebindings": s}, nil
}

var resource = generic.Resource[*rbacv1.ClusterRoleBinding]{
	GroupVersion:  rbacv1.SchemeGroupVersion,
	Name:          "clusterrolebindings",
	Singular:      "clusterrolebinding",
	ClusterScoped: true,
	New:           func() *rbacv1.ClusterRoleBinding { return &rbacv1.ClusterRoleBinding{} },
	NewList:       func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },

	CreateOnUpdate: true,
	Validate:       generic.Check(rbac.ValidateClusterRoleBinding),
	ValidateUpdate: generic.CheckUpdate(rbac.ValidateClusterRoleBindingUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Role", "string", rbacv1beta1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"]),
		generic.AgeColumn,
		generic.WideColumn("Users", "string", "Users in the clusterRoleBinding"),
		generic.WideColumn("Groups", "string", "Groups in the clusterRoleBinding"),
		generic.WideColumn("ServiceAccounts", "string", "ServiceAccounts in the clusterRoleBinding"),
	},
	Cells: func(b *rbacv1.ClusterRoleBinding) []any {
		users, groups, accounts := subjects.Print(b.Subjects)
		return []any{b.Name, b.RoleRef.Kind + "/" + b.RoleRef.Name, generic.Age(b.CreationTimestamp), users, groups, accounts}
	},
}
