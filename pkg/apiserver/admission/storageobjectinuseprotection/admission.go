// Package storageobjectinuseprotection puts the finalizers on new storage objects
// that keep them until nobody uses them any more.
package storageobjectinuseprotection

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
)

// PluginName is the plugin's name in flags.
const PluginName = "StorageObjectInUseProtection"

// Plugin adds the finalizers.
type Plugin struct{ *admission.Handler }

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin { return &Plugin{Handler: admission.NewHandler(admission.Create)} }

// Admit adds the finalizer that belongs to the kind of the object.
func (p *Plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	finalizer, ok := map[schema.GroupResource]string{
		corev1.Resource("persistentvolumes"):          "kubernetes.io/pv-protection",
		corev1.Resource("persistentvolumeclaims"):     "kubernetes.io/pvc-protection",
		storagev1.Resource("volumeattributesclasses"): "kubernetes.io/vac-protection",
	}[a.GetResource().GroupResource()]
	o, isObject := a.GetObject().(metav1.Object)
	if !ok || !isObject || a.GetSubresource() != "" || slices.Contains(o.GetFinalizers(), finalizer) {
		return nil
	}
	o.SetFinalizers(append(o.GetFinalizers(), finalizer))
	return nil
}
