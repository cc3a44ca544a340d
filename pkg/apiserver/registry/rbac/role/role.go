// Package role serves rbac.authorization.k8s.io/v1 Role.
package role

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/api/rbac"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Resource is roles, which nobody can use to gain permissions.
var Resource = generic.Resource[*rbacv1.Role]{
	GroupVersion: rbacv1.SchemeGroupVersion,
	Name:         "roles",

	CreateOnUpdate:   true,
	NoUnreadDeletion: true,
	Validate:         generic.Check(rbac.ValidateRole),
	ValidateUpdate:   generic.CheckUpdate(rbac.ValidateRoleUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Created At", "date", generic.AgeColumn.Description),
	},
	Cells: func(r *rbacv1.Role) []any {
		return []any{r.Name, r.CreationTimestamp.UTC().Format(time.RFC3339)}
	},
}
