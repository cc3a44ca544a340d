package rbac

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestRole(t *testing.T) {
	apitest.Run(t, "testdata/role.txtar", apitest.Kind[rbacv1.Role, *rbacv1.Role]{
		Path:        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
		AddDefaults: AddDefaults,
		Create:      ValidateRole,
		Update:      ValidateRoleUpdate,
	})
}

func TestClusterRole(t *testing.T) {
	apitest.Run(t, "testdata/clusterrole.txtar", apitest.Kind[rbacv1.ClusterRole, *rbacv1.ClusterRole]{
		Path:        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
		AddDefaults: AddDefaults,
		Create:      ValidateClusterRole,
		Update:      ValidateClusterRoleUpdate,
	})
}

func TestRoleBinding(t *testing.T) {
	apitest.Run(t, "testdata/rolebinding.txtar", apitest.Kind[rbacv1.RoleBinding, *rbacv1.RoleBinding]{
		Path:        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
		AddDefaults: AddDefaults,
		Create:      ValidateRoleBinding,
		Update:      ValidateRoleBindingUpdate,
	})
}

func TestClusterRoleBinding(t *testing.T) {
	apitest.Run(t, "testdata/clusterrolebinding.txtar", apitest.Kind[rbacv1.ClusterRoleBinding, *rbacv1.ClusterRoleBinding]{
		Path:        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
		AddDefaults: AddDefaults,
		Create:      ValidateClusterRoleBinding,
		Update:      ValidateClusterRoleBindingUpdate,
	})
}
