// Package defaultingressclass gives an Ingress that names no IngressClass the
// default one.
package defaultingressclass

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	networkinglisters "k8s.io/client-go/listers/networking/v1"

	"github.com/leme-k8s/leme/pkg/api/defaultclass"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// PluginName is the plugin's name in flags.
const PluginName = "DefaultIngressClass"

// Plugin sets the class.
type Plugin struct {
	listing.Handler[networkinglisters.IngressClassLister]
}

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return &Plugin{Handler: listing.NewHandler(func(f informers.SharedInformerFactory) listing.Informer[networkinglisters.IngressClassLister] {
		return f.Networking().V1().IngressClasses()
	}, admission.Create)}
}

// Admit sets the class of an Ingress that has none, not even by the old annotation.
func (p *Plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	ingress, ok := a.GetObject().(*networkingv1.Ingress)
	if !ok || a.GetResource().GroupResource() != networkingv1.Resource("ingresses") || a.GetSubresource() != "" {
		return nil
	}
	if _, ok := ingress.Annotations["kubernetes.io/ingress.class"]; ok || ingress.Spec.IngressClassName != nil {
		return nil
	}
	if err := p.Ready(a); err != nil {
		return err
	}
	classes, err := p.Lister.List(labels.Everything())
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if class, ok := defaultclass.Of(classes, networkingv1.AnnotationIsDefaultIngressClass); ok {
		ingress.Spec.IngressClassName = &class.Name
	}
	return nil
}
