// Package defaultstorageclass gives a PersistentVolumeClaim that names no
// StorageClass the default one.
package defaultstorageclass

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/api/defaultclass"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// PluginName is the plugin's name in flags.
const PluginName = "DefaultStorageClass"

// Plugin sets the class.
type Plugin struct {
	listing.Handler[storagelisters.StorageClassLister]
}

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return &Plugin{Handler: listing.NewHandler(func(f informers.SharedInformerFactory) listing.Informer[storagelisters.StorageClassLister] {
		return f.Storage().V1().StorageClasses()
	}, admission.Create)}
}

// Admit sets the class of a claim that has none. An empty name is a name: it asks for none.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	if !ok || a.GetResource().GroupResource() != corev1.Resource("persistentvolumeclaims") || a.GetSubresource() != "" {
		return nil
	}
	if _, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok || claim.Spec.StorageClassName != nil {
		return nil
	}
	if err := p.Ready(a); err != nil {
		return err
	}
	classes, err := p.Lister.List(labels.Everything())
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	class, ok := defaultclass.Of(classes, "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
	if !ok {
		return nil
	}
	klog.FromContext(ctx).V(4).Info("Set the default StorageClass", "persistentVolumeClaim", klog.KRef(a.GetNamespace(), claim.Name), "storageClass", class.Name)
	claim.Spec.StorageClassName = &class.Name
	return nil
}
