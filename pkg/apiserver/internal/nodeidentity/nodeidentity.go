// Package nodeidentity tells which node a user is.
package nodeidentity

import (
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
)

const prefix = "system:node:"

// Of returns the name of the node that the user is. isNode is true for whoever has
// a node's name and group; the name is empty if the user's name is "system:node:".
func Of(u user.Info) (name string, isNode bool) {
	if u == nil {
		return "", false
	}
	name, ok := strings.CutPrefix(u.GetName(), prefix)
	if !ok || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return name, true
}
