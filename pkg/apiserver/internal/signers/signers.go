// Package signers asks whether somebody may act for a certificate signer, in admission plugins and elsewhere.
package signers

import (
	"context"
	"errors"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Handler is embedded by admission plugins, which thereby can ask.
type Handler struct {
	*admission.Handler
	authorizer authorizer.UnconditionalAuthorizer
}

var (
	_ initializer.WantsUnconditionalAuthorizer = &Handler{}
	_ admission.InitializationValidator        = &Handler{}
)

// NewHandler returns a Handler of the operations.
func NewHandler(ops ...admission.Operation) Handler {
	return Handler{Handler: admission.NewHandler(ops...)}
}

// SetUnconditionalAuthorizer implements initializer.WantsUnconditionalAuthorizer.
func (h *Handler) SetUnconditionalAuthorizer(a authorizer.UnconditionalAuthorizer) { h.authorizer = a }

// ValidateInitialization implements admission.InitializationValidator.
func (h *Handler) ValidateInitialization() error {
	if h.authorizer == nil {
		return errors.New("missing authorizer")
	}
	return nil
}

// Allowed tells whether the user of a request holds the verb on a signer.
func (h *Handler) Allowed(ctx context.Context, a admission.Attributes, verb, name string) bool {
	return Allowed(ctx, h.authorizer, a.GetUserInfo(), verb, name)
}

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
