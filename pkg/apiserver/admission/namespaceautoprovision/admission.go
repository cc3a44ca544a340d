// Package namespaceautoprovision makes the namespace of an object that is created in one
// that is not there.
package namespaceautoprovision

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/namespaces"
)

// PluginName is the plugin's name in flags.
const PluginName = "NamespaceAutoProvision"

// Plugin makes namespaces.
type Plugin struct{ namespaces.Handler }

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin { return &Plugin{namespaces.NewHandler(admission.Create)} }

// Admit makes the namespace, unless the request is only tried.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.IsDryRun() || a.GetNamespace() == "" || a.GetKind().GroupKind() == corev1.SchemeGroupVersion.WithKind("Namespace").GroupKind() {
		return nil
	}
	if _, err := p.Of(ctx, a); !apierrors.IsNotFound(err) {
		return err
	}
	_, err := p.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.GetNamespace()}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return admission.NewForbidden(a, err)
	}
	return nil
}
