// Package clusterrolebinding serves rbac.authorization.k8s.io/v1 ClusterRoleBinding.
package clusterrolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/rbac"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/rbac/subjects"
)

// Resource is clusterrolebindings, which nobody can use to gain permissions.
var Resource = generic.Resource[*rbacv1.ClusterRoleBinding]{
	GroupVersion:  rbacv1.SchemeGroupVersion,
	Name:          "clusterrolebindings",
	ClusterScoped: true,

	CreateOnUpdate:   true,
	NoUnreadDeletion: true,
	Validate:         generic.Check(rbac.ValidateClusterRoleBinding),
	ValidateUpdate:   generic.CheckUpdate(rbac.ValidateClusterRoleBindingUpdate),

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
