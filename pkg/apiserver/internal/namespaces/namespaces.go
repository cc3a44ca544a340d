// Package namespaces is what admission plugins that ask for the namespace of an object have in common.
package namespaces

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/listing"
)

// Handler is embedded by plugins, which thereby get a client and the namespaces.
type Handler struct {
	listing.ClientHandler[corelisters.NamespaceLister]
}

// NewHandler returns a Handler of the operations.
func NewHandler(ops ...admission.Operation) Handler {
	return Handler{listing.NewClientHandler(func(f informers.SharedInformerFactory) listing.Informer[corelisters.NamespaceLister] {
		return f.Core().V1().Namespaces()
	}, ops...)}
}

// Of returns the namespace of a request. One that was made just before may not be in
// the cache yet: the server is asked. The error is one to answer the request with.
func (h *Handler) Of(ctx context.Context, a admission.Attributes) (*corev1.Namespace, error) {
	if err := h.Ready(a); err != nil {
		return nil, err
	}
	if n, err := h.Lister.Get(a.GetNamespace()); err == nil {
		return n, nil
	} else if !apierrors.IsNotFound(err) {
		return nil, apierrors.NewInternalError(err)
	}
	n, err := h.Client.CoreV1().Namespaces().Get(ctx, a.GetNamespace(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, apierrors.NewInternalError(err)
	}
	return n, err
}
