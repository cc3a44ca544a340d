package claim

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Orphans passes objects that no one controls.
func Orphans() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(o client.Object) bool { return metav1.GetControllerOfNoCopy(o) == nil })
}

// OwnedBy enqueues who controls an object, if it is of the owner's kind, which is a namespaced one. It is what
// builder.Owns does without asking discovery at each event whether the kind is namespaced.
func OwnedBy(owner schema.GroupVersionKind) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request { return ownerOf(o, owner) })
}

// OwnedOrWanted enqueues who controls an object, as OwnedBy does, and of one that nobody controls those who would adopt it: the owners, of the kind
// of list, that select it. It is one handler, since each has to be handed every event of all pods.
func OwnedOrWanted(owner schema.GroupVersionKind, r client.Reader, list client.ObjectList, selector func(owner client.Object) *metav1.LabelSelector) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		if metav1.GetControllerOfNoCopy(o) != nil {
			return ownerOf(o, owner)
		}
		return adopters(ctx, o, r, list, selector)
	})
}

func ownerOf(o client.Object, kind schema.GroupVersionKind) []reconcile.Request {
	ref := metav1.GetControllerOfNoCopy(o)
	if ref == nil || ref.Kind != kind.Kind {
		return nil
	}
	if gv, err := schema.ParseGroupVersion(ref.APIVersion); err != nil || gv.Group != kind.Group {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: ref.Name}}}
}

func adopters(ctx context.Context, orphan client.Object, r client.Reader, list client.ObjectList, selector func(owner client.Object) *metav1.LabelSelector) []reconcile.Request {
	if len(orphan.GetLabels()) == 0 {
		return nil
	}
	owners := list.DeepCopyObject().(client.ObjectList)
	if err := r.List(ctx, owners, client.InNamespace(orphan.GetNamespace()), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Finding who adopts an object", "object", klog.KObj(orphan))
		return nil
	}
	var reqs []reconcile.Request
	err := meta.EachListItem(owners, func(o runtime.Object) error {
		owner := o.(client.Object)
		if sel, err := metav1.LabelSelectorAsSelector(selector(owner)); err == nil && !sel.Empty() && sel.Matches(labels.Set(orphan.GetLabels())) {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(owner)})
		}
		return nil
	})
	if err != nil {
		klog.FromContext(ctx).Error(err, "Finding who adopts an object", "object", klog.KObj(orphan))
	}
	return reqs
}
