// Package rolebinding serves rbac.authorization.k8s.io/v1 RoleBinding.
package rolebinding

import (
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/rbac"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/rbac/subjects"
)

// Resource is rolebindings, which nobody can use to gain permissions.
var Resource = generic.Resource[*rbacv1.RoleBinding]{
	GroupVersion: rbacv1.SchemeGroupVersion,
	Name:         "rolebindings",

	CreateOnUpdate:   true,
	NoUnreadDeletion: true,
	Validate:         generic.Check(rbac.ValidateRoleBinding),
	ValidateUpdate:   generic.CheckUpdate(rbac.ValidateRoleBindingUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Role", "string", rbacv1beta1.RoleBinding{}.SwaggerDoc()["roleRef"]),
		generic.AgeColumn,
		generic.WideColumn("Users", "string", "Users in the roleBinding"),
		generic.WideColumn("Groups", "string", "Groups in the roleBinding"),
		generic.WideColumn("ServiceAccounts", "string", "ServiceAccounts in the roleBinding"),
	},
	Cells: func(b *rbacv1.RoleBinding) []any {
		users, groups, accounts := subjects.Print(b.Subjects)
		return []any{b.Name, b.RoleRef.Kind + "/" + b.RoleRef.Name, generic.Age(b.CreationTimestamp), users, groups, accounts}
	},
}
