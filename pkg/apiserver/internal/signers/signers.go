// Package signers asks whether somebody may act for a certificate signer.
package signers

import (
	"context"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Allowed tells whether the user holds the verb (approve, sign, attest) on the
// signer of this name, or on all signers of its domain, "domain/*".
func Allowed(ctx context.Context, a authorizer.UnconditionalAuthorizer, u user.Info, verb, name string) bool {
	domain, _, _ := strings.Cut(name, "/")
	for _, n := range []string{name, domain + "/*"} {
		decision, _, err := a.Authorize(ctx, authorizer.AttributesRecord{
			User: u, Verb: verb, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", Name: n, ResourceRequest: true,
		})
		if err == nil && decision == authorizer.DecisionAllow {
			return true
		}
	}
	return false
}
