package apiserver

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/inprocess"
)

// ownPods are the pods for the server's own informer, straight from where they are stored. Nothing changes as often as
// pods, and to send each change to oneself as to a client costs an eighth of all that a request to create a pod allocates.
type ownPods struct {
	// store is nil if pods are not served.
	store interface {
		rest.Lister
		rest.Watcher
	}
	self *inprocess.Transport // tells when the caches are filled
}

// informer is made in place of the one that would use a client.
func (o *ownPods) informer() cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&cache.ListWatch{ListWithContextFunc: o.list, WatchFuncWithContext: o.watch},
		&corev1.Pod{}, informerResync, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}

// await returns the options as the store takes them, once it can answer.
func (o *ownPods) await(ctx context.Context, options metav1.ListOptions) (*internalversion.ListOptions, error) {
	if err := o.self.Await(ctx); err != nil {
		return nil, err
	}
	if o.store == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), "")
	}
	internal := &internalversion.ListOptions{}
	return internal, internalversion.Convert_v1_ListOptions_To_internalversion_ListOptions(&options, internal, nil)
}

// list returns copies, since the informer trims what it gets.
func (o *ownPods) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	internal, err := o.await(ctx, options)
	if err != nil {
		return nil, err
	}
	list, err := o.store.List(ctx, internal)
	if err != nil {
		return nil, err
	}
	return list.DeepCopyObject(), nil
}

// watch returns copies as well: what comes from the cache is one, or, if others watch too, is wrapped and copied here.
func (o *ownPods) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	internal, err := o.await(ctx, options)
	if err != nil {
		return nil, err
	}
	w, err := o.store.Watch(ctx, internal)
	if err != nil {
		return nil, err
	}
	return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
		if shared, ok := e.Object.(runtime.CacheableObject); ok {
			e.Object = shared.GetObject()
		}
		return e, true
	}), nil
}
