// Package namespaces is what admission plugins that ask for the namespace of an object have in common.
package namespaces

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// Handler is embedded by plugins, which thereby get a client and the namespaces.
type Handler struct {
	*admission.Handler
	Client kubernetes.Interface
	lister corelisters.NamespaceLister
}

var (
	_ initializer.WantsExternalKubeClientSet       = &Handler{}
	_ initializer.WantsExternalKubeInformerFactory = &Handler{}
	_ admission.InitializationValidator            = &Handler{}
)

// NewHandler returns a Handler of the operations.
func NewHandler(ops ...admission.Operation) Handler {
	return Handler{Handler: admission.NewHandler(ops...)}
}

// SetExternalKubeClientSet implements initializer.WantsExternalKubeClientSet.
func (h *Handler) SetExternalKubeClientSet(c kubernetes.Interface) { h.Client = c }

// SetExternalKubeInformerFactory implements initializer.WantsExternalKubeInformerFactory.
func (h *Handler) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	n := f.Core().V1().Namespaces()
	h.lister = n.Lister()
	h.SetReadyFunc(n.Informer().HasSynced)
}

// ValidateInitialization implements admission.InitializationValidator.
func (h *Handler) ValidateInitialization() error {
	if h.Client == nil || h.lister == nil {
		return errors.New("missing client or namespace lister")
	}
	return nil
}

// Of returns the namespace of a request. One that was made just before may not be in
// the cache yet: the server is asked. The error is one to answer the request with.
func (h *Handler) Of(ctx context.Context, a admission.Attributes) (*corev1.Namespace, error) {
	if !h.WaitForReady() {
		return nil, admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	if n, err := h.lister.Get(a.GetNamespace()); err == nil {
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
