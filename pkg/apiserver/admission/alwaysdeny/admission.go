// Package alwaysdeny refuses every change. It is of use in tests alone.
package alwaysdeny

import (
	"context"
	"errors"

	"k8s.io/apiserver/pkg/admission"
)

// PluginName is the plugin's name in flags.
const PluginName = "AlwaysDeny"

// Plugin refuses.
type Plugin struct{}

var (
	_ admission.MutationInterface   = Plugin{}
	_ admission.ValidationInterface = Plugin{}
)

// New returns the plugin.
func New() Plugin { return Plugin{} }

// Handles says that all operations are refused.
func (Plugin) Handles(admission.Operation) bool { return true }

// Admit refuses.
func (p Plugin) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	return p.Validate(ctx, a, o)
}

// Validate refuses.
func (Plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return admission.NewForbidden(a, errors.New("admission control is denying all modifications"))
}
