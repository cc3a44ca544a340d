package pods

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
)

// watchAPI follows the pods that are bound to the node.
func (m *Manager) watchAPI(ctx context.Context) {
	select {
	case <-m.Ready:
	case <-ctx.Done():
		return
	}
	lw := cache.NewListWatchFromClient(m.Client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll,
		fields.OneTermEqualSelector("spec.nodeName", m.NodeName))
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, m.Client),
		ObjectType:    &v1.Pod{},
		Transform:     dropManagedFields,
		Handler: cache.ResourceEventHandlerDetailedFuncs{
			AddFunc:    func(obj any, _ bool) { m.set(ctx, obj.(*v1.Pod)) },
			UpdateFunc: func(_, obj any) { m.set(ctx, obj.(*v1.Pod)) },
			DeleteFunc: func(obj any) {
				if tomb, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = tomb.Obj
				}
				if pod, ok := obj.(*v1.Pod); ok {
					m.unset(pod)
				}
			},
		},
	})
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
			m.sourced(sourceAPI)
			m.reconcileMirrors(ctx)
		}
	}()
	controller.RunWithContext(ctx)
}

// dropManagedFields keeps what no kubelet reads out of memory.
func dropManagedFields(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}
