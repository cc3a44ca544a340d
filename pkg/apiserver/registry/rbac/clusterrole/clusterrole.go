// Package clusterrole serves rbac.authorization.k8s.io/v1 ClusterRole.
package clusterrole

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/rbac"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Resource is clusterroles, which nobody can use to gain permissions.
var Resource = generic.Resource[*rbacv1.ClusterRole]{
	GroupVersion:  rbacv1.SchemeGroupVersion,
	Name:          "clusterroles",
	ClusterScoped: true,

	CreateOnUpdate:   true,
	NoUnreadDeletion: true,
	Validate:         generic.Check(rbac.ValidateClusterRole),
	ValidateUpdate:   generic.CheckUpdate(rbac.ValidateClusterRoleUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Created At", "date", generic.AgeColumn.Description),
	},
	Cells: func(r *rbacv1.ClusterRole) []any {
		return []any{r.Name, r.CreationTimestamp.UTC().Format(time.RFC3339)}
	},
}
