// Package clusterrole serves rbac.authorization.k8s.io/v1 ClusterRole.
package clusterrole

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/rbac"
	guard "github.com/leme-k8s/leme/pkg/apiserver/authorization/rbac"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of clusterroles, which nobody can use to gain permissions.
func Storage(o generic.Options, g *guard.Guard) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	g.Protect(s.Store)
	return generic.Storage{"clusterroles": s}, nil
}

var resource = generic.Resource[*rbacv1.ClusterRole]{
	GroupVersion:  rbacv1.SchemeGroupVersion,
	Name:          "clusterroles",
	Singular:      "clusterrole",
	ClusterScoped: true,
	New:           func() *rbacv1.ClusterRole { return &rbacv1.ClusterRole{} },
	NewList:       func() runtime.Object { return &rbacv1.ClusterRoleList{} },

	CreateOnUpdate: true,
	Validate:       generic.Check(rbac.ValidateClusterRole),
	ValidateUpdate: generic.CheckUpdate(rbac.ValidateClusterRoleUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Created At", "date", generic.AgeColumn.Description),
	},
	Cells: func(r *rbacv1.ClusterRole) []any {
		return []any{r.Name, r.CreationTimestamp.UTC().Format(time.RFC3339)}
	},
}
