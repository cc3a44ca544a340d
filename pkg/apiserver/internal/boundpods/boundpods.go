// Package boundpods is what admission plugins have in common that ask whether a pod's node
// can do what an update of the pod's spec wants.
package boundpods

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// Handler is embedded by plugins, which thereby get the nodes.
type Handler struct {
	listing.Handler[corelisters.NodeLister]
}

// NewHandler returns a Handler of updates.
func NewHandler() Handler {
	return Handler{listing.NewHandler(func(f informers.SharedInformerFactory) listing.Informer[corelisters.NodeLister] {
		return f.Core().V1().Nodes()
	}, admission.Update)}
}

// Update returns the pods of an update, through one of the subresources, that changes the
// spec of a pod with a node; otherwise nil.
func Update(a admission.Attributes, subresources ...string) (pod, old *corev1.Pod, err error) {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetOperation() != admission.Update || !slices.Contains(subresources, a.GetSubresource()) {
		return nil, nil, nil
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("expected a pod but got a %T", a.GetObject()))
	}
	if old, ok = a.GetOldObject().(*corev1.Pod); !ok {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("expected an old pod but got a %T", a.GetOldObject()))
	}
	if pod.Spec.NodeName == "" || pod.Generation == old.Generation {
		return nil, nil, nil
	}
	return pod, old, nil
}

// Node returns the pod's node, or an error to answer the request with.
func (h *Handler) Node(a admission.Attributes, pod *corev1.Pod) (*corev1.Node, error) {
	if err := h.Ready(a); err != nil {
		return nil, err
	}
	node, err := h.Lister.Get(pod.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return nil, admission.NewForbidden(a, fmt.Errorf("node %q not found", pod.Spec.NodeName))
	} else if err != nil {
		return nil, admission.NewForbidden(a, fmt.Errorf("failed to get node %q: %w", pod.Spec.NodeName, err))
	}
	return node, nil
}
