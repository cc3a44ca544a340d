// Package persistentvolumeclaimresize lets a claim grow only if its StorageClass
// can make it grow.
package persistentvolumeclaimresize

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// PluginName is the plugin's name in flags.
const PluginName = "PersistentVolumeClaimResize"

// Plugin checks growth.
type Plugin struct {
	listing.Handler[storagelisters.StorageClassLister]
}

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return &Plugin{Handler: listing.NewHandler(func(f informers.SharedInformerFactory) listing.Informer[storagelisters.StorageClassLister] {
		return f.Storage().V1().StorageClasses()
	}, admission.Update)}
}

// Validate refuses a larger request than before on a claim that cannot grow.
func (p *Plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	old, wasClaim := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	if !ok || !wasClaim || a.GetResource().GroupResource() != corev1.Resource("persistentvolumeclaims") || a.GetSubresource() != "" {
		return nil
	}
	before, after := old.Spec.Resources.Requests[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if after.Cmp(before) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return admission.NewForbidden(a, errors.New("Only bound persistent volume claims can be expanded")) // clients know this sentence
	}
	if err := p.Ready(a); err != nil {
		return err
	}
	name := ptr.Deref(claim.Spec.StorageClassName, "")
	if beta, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		name = beta
	}
	if name != "" {
		if class, err := p.Lister.Get(name); err == nil && ptr.Deref(class.AllowVolumeExpansion, false) {
			return nil
		}
	}
	return admission.NewForbidden(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
}
