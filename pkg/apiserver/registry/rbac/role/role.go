// Package role serves rbac.authorization.k8s.io/v1 Role.
package role

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/rbac"
	guard "github.com/leme-k8s/leme/pkg/apiserver/authorization/rbac"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of roles, which nobody can use to gain permissions.
func Storage(o generic.Options, g *guard.Guard) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	g.Protect(s.Store)
	return generic.Storage{"roles": s}, nil
}

var resource = generic.Resource[*rbacv1.Role]{
	GroupVersion: rbacv1.SchemeGroupVersion,
	Name:         "roles",
	Singular:     "role",
	New:          func() *rbacv1.Role { return &rbacv1.Role{} },
	NewList:      func() runtime.Object { return &rbacv1.RoleList{} },

	CreateOnUpdate: true,
	Validate:       generic.Check(rbac.ValidateRole),
	ValidateUpdate: generic.CheckUpdate(rbac.ValidateRoleUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Created At", "date", generic.AgeColumn.Description),
	},
	Cells: func(r *rbacv1.Role) []any {
		return []any{r.Name, r.CreationTimestamp.UTC().Format(time.RFC3339)}
	},
}
