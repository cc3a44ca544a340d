// Package podtopologylabels copies a node's zone and region onto the pods that are
// bound to it, by way of the Binding's labels.
package podtopologylabels

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// PluginName is the plugin's name in flags.
const PluginName = "PodTopologyLabels"

// Plugin adds the labels.
type Plugin struct {
	listing.Handler[corelisters.NodeLister]
}

var _ admission.MutationInterface = &Plugin{}

// New returns the plugin.
func New() *Plugin {
	return &Plugin{Handler: listing.NewHandler(func(f informers.SharedInformerFactory) listing.Informer[corelisters.NodeLister] {
		return f.Core().V1().Nodes()
	}, admission.Create)}
}

// Admit copies the labels of the node that a Binding names, and of a pod that is
// created with a node.
func (p *Plugin) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	switch a.GetResource().GroupResource() {
	case corev1.Resource("bindings"):
	case corev1.Resource("pods"):
		if a.GetSubresource() != "" && a.GetSubresource() != "binding" {
			return nil
		}
	default:
		return nil
	}
	var node string
	switch o := a.GetObject().(type) {
	case *corev1.Binding:
		if o.Target.Kind != "" && o.Target.Kind != "Node" {
			return nil
		}
		node = o.Target.Name
	case *corev1.Pod:
		node = o.Spec.NodeName
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("expected *v1.Binding or *v1.Pod but got %T", a.GetObject()))
	}
	if node == "" {
		return nil
	}
	if err := p.Ready(a); err != nil {
		return err
	}
	n, err := p.Lister.Get(node)
	if err != nil {
		return nil // the node may not be there yet: a static pod's, for one
	}
	o := a.GetObject().(metav1.Object)
	labels := o.GetLabels()
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		if value, ok := n.Labels[key]; ok {
			if labels == nil {
				labels = map[string]string{}
			}
			labels[key] = value
		}
	}
	o.SetLabels(labels)
	return nil
}
