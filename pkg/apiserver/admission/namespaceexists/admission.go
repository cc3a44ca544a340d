// Package namespaceexists refuses every change in a namespace that is not there.
// NamespaceLifecycle, which is on by default, refuses what is created there and more.
package namespaceexists

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/namespaces"
)

// PluginName is the plugin's name in flags.
const PluginName = "NamespaceExists"

// Plugin looks for namespaces.
type Plugin struct{ namespaces.Handler }

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return &Plugin{namespaces.NewHandler(admission.Create, admission.Update, admission.Delete)}
}

// Validate refuses what has a namespace that there is not.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetNamespace() == "" || a.GetKind().GroupKind() == corev1.SchemeGroupVersion.WithKind("Namespace").GroupKind() {
		return nil
	}
	_, err := p.Of(ctx, a)
	return err
}
