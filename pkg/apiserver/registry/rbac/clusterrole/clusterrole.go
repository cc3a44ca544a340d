// Package clusterrole serves rbac.authorization.k8s.io/v1 ClusterRole.
package clusterrole

import (
	rbacv1 "k8s.io/api/rbac/v1"

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
}
