// Package rbac answers from Roles and ClusterRoles and their bindings: whether a
// user may do something ([Authorizer]), which rules apply to a user ([Resolver]),
// and whether writing a role or a binding would give somebody more than the
// writer has ([Guard]).
package rbac
