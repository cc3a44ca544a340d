// Package servicepods connects Services with the pods that they select, for the
// two controllers that publish endpoints.
package servicepods

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	endpointsliceutil "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
)

// Services lists services the way the endpointslice library asks for them. They are as in the cache: none who asks writes any.
type Services struct{ client.Reader }

var _ corelisters.ServiceLister = Services{}

// List implements corelisters.ServiceLister.
func (s Services) List(sel labels.Selector) ([]*corev1.Service, error) {
	return s.Services("").List(sel)
}

// Services implements corelisters.ServiceLister.
func (s Services) Services(namespace string) corelisters.ServiceNamespaceLister {
	return namespaced{s.Reader, namespace}
}

type namespaced struct {
	client.Reader
	namespace string
}

// List implements corelisters.ServiceNamespaceLister.
func (n namespaced) List(sel labels.Selector) ([]*corev1.Service, error) {
	return borrow.List[corev1.Service](context.Background(), n.Reader, client.InNamespace(n.namespace), client.MatchingLabelsSelector{Selector: sel},
		client.DisableReadYourWritesConsistency)
}

// Get implements corelisters.ServiceNamespaceLister.
func (n namespaced) Get(name string) (*corev1.Service, error) {
	svc := &corev1.Service{}
	return svc, n.Reader.Get(context.Background(), client.ObjectKey{Namespace: n.namespace, Name: name}, svc, client.DisableReadYourWritesConsistency)
}

// Nodes lists nodes the way the endpointslice library asks for them.
type Nodes struct{ client.Reader }

var _ corelisters.NodeLister = Nodes{}

// List implements corelisters.NodeLister.
func (n Nodes) List(sel labels.Selector) ([]*corev1.Node, error) {
	var list corev1.NodeList
	err := n.Reader.List(context.Background(), &list, client.MatchingLabelsSelector{Selector: sel}, client.UnsafeDisableDeepCopy)
	return pointers(list.Items), err
}

// Get implements corelisters.NodeLister.
func (n Nodes) Get(name string) (*corev1.Node, error) {
	node := &corev1.Node{}
	return node, n.Reader.Get(context.Background(), client.ObjectKey{Name: name}, node)
}

// Pods returns the pods that a Service selects. They belong to the cache.
func Pods(ctx context.Context, r client.Reader, svc *corev1.Service) ([]*corev1.Pod, error) {
	var list corev1.PodList
	err := r.List(ctx, &list, client.InNamespace(svc.Namespace), client.MatchingLabels(svc.Spec.Selector), client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	return pointers(list.Items), nil
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}

// OnPod enqueues the Services whose endpoints a change of a pod can touch, after a
// delay in which more changes may gather.
func OnPod(r client.Reader, delay time.Duration) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	enqueue := func(ctx context.Context, key *endpointsliceutil.PodProjectionKey, q queue) {
		services, err := endpointsliceutil.GetServicesToUpdate(Services{r}, key)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Finding the Services of a pod")
		}
		for svc := range services {
			namespace, name, err := cache.SplitMetaNamespaceKey(svc)
			if err == nil {
				q.AddAfter(reconcile.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}}, delay)
			}
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			enqueue(ctx, endpointsliceutil.GetPodUpdateProjectionKey(nil, e.Object), q)
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			enqueue(ctx, endpointsliceutil.GetPodUpdateProjectionKey(e.ObjectOld, e.ObjectNew), q)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			enqueue(ctx, endpointsliceutil.GetPodUpdateProjectionKey(e.Object, nil), q)
		},
	}
}
