// Package listing is what admission plugins have in common that look something up in the server's caches.
package listing

import (
	"errors"
	"fmt"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// An Informer of a kind, as client-go has them, and its lister.
type Informer[L any] interface {
	Informer() cache.SharedIndexInformer
	Lister() L
}

// Handler is embedded by plugins, which thereby get the lister of a kind.
type Handler[L comparable] struct {
	*admission.Handler
	Lister L
	of     func(informers.SharedInformerFactory) Informer[L]
}

// ClientHandler is a Handler for those that also ask the server, for what is not in the cache yet.
type ClientHandler[L comparable] struct {
	Handler[L]
	Client kubernetes.Interface
}

var (
	_ initializer.WantsExternalKubeInformerFactory = &Handler[string]{}
	_ admission.InitializationValidator            = &Handler[string]{}
	_ initializer.WantsExternalKubeClientSet       = &ClientHandler[string]{}
	_ admission.InitializationValidator            = &ClientHandler[string]{}
)

// NewHandler returns a Handler of the operations that lists what the informer has.
func NewHandler[L comparable](informer func(informers.SharedInformerFactory) Informer[L], ops ...admission.Operation) Handler[L] {
	return Handler[L]{Handler: admission.NewHandler(ops...), of: informer}
}

// NewClientHandler returns a ClientHandler of the operations that lists what the informer has.
func NewClientHandler[L comparable](informer func(informers.SharedInformerFactory) Informer[L], ops ...admission.Operation) ClientHandler[L] {
	return ClientHandler[L]{Handler: NewHandler(informer, ops...)}
}

// SetExternalKubeInformerFactory implements initializer.WantsExternalKubeInformerFactory.
func (h *Handler[L]) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	i := h.of(f)
	h.Lister = i.Lister()
	h.SetReadyFunc(i.Informer().HasSynced)
}

// ValidateInitialization implements admission.InitializationValidator.
func (h *Handler[L]) ValidateInitialization() error {
	if h.Lister == *new(L) {
		return fmt.Errorf("missing %T", &h.Lister)
	}
	return nil
}

// Ready waits until the cache is filled. Its error is one to answer the request with.
func (h *Handler[L]) Ready(a admission.Attributes) error { return Ready(h.Handler, a) }

// Ready is Handler.Ready for plugins that fill their caches themselves.
func Ready(h *admission.Handler, a admission.Attributes) error {
	if !h.WaitForReady() {
		return admission.NewForbidden(a, errors.New("not yet ready to handle request"))
	}
	return nil
}

// SetExternalKubeClientSet implements initializer.WantsExternalKubeClientSet.
func (h *ClientHandler[L]) SetExternalKubeClientSet(c kubernetes.Interface) { h.Client = c }

// ValidateInitialization implements admission.InitializationValidator.
func (h *ClientHandler[L]) ValidateInitialization() error {
	if h.Client == nil {
		return errors.New("missing client")
	}
	return h.Handler.ValidateInitialization()
}
