// Package subjects prints who is bound to a role.
package subjects

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Print returns the users, groups and service accounts among the subjects.
func Print(subjects []rbacv1.Subject) (users, groups, accounts string) {
	byKind := map[string][]string{}
	for _, s := range subjects {
		name := s.Name
		if s.Kind == rbacv1.ServiceAccountKind {
			name = s.Namespace + "/" + s.Name
		}
		byKind[s.Kind] = append(byKind[s.Kind], name)
	}
	print := func(kind string) string { return strings.Join(byKind[kind], ", ") }
	return print(rbacv1.UserKind), print(rbacv1.GroupKind), print(rbacv1.ServiceAccountKind)
}
