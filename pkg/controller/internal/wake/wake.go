// Package wake has objects looked at because of others.
package wake

import (
	"context"
	"fmt"

	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
)

// Those returns what has all objects of a kind looked at that another one matters to when that has changed. Asked are those of its namespace,
// or all if it has none.
func Those[T any, P borrow.Object[T]](r client.Reader, matters func(to P, changed client.Object) bool) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, changed client.Object) []reconcile.Request {
		list, err := borrow.List[T, P](ctx, r, client.InNamespace(changed.GetNamespace()), client.DisableReadYourWritesConsistency)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Listing what a change matters to", "kind", fmt.Sprintf("%T", P(nil)))
			return nil
		}
		var reqs []reconcile.Request
		for _, o := range list {
			if matters(o, changed) {
				reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
			}
		}
		return reqs
	})
}
