// Package role serves rbac.authorization.k8s.io/v1 Role.
package role

import (
	rbacv1 "k8s.io/api/rbac/v1"

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
}
