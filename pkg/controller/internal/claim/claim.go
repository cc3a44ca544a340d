// Package claim settles which objects belong to a controller: it adopts those
// that match the selector and have no controller, and releases those that it
// controls but that no longer match.
package claim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
)

// Owner is the side that claims.
type Owner struct {
	// Object is the owner as the cache has it; Kind is its kind.
	Object client.Object
	Kind   schema.GroupVersionKind
	// Selector says which objects belong to it.
	Selector labels.Selector
	// Borrow says that what is claimed may belong to the cache: the owner changes none of it. Without, it is copied.
	Borrow bool
	// Finalizers are added to what is adopted and removed from what is released.
	Finalizers []string

	Client client.Client
	// Live is asked, before the first adoption, whether the owner still exists: a
	// cache that lags must not bring children to a deleted owner.
	Live client.Reader
}

// Claim returns the objects of a kind that belong to o after adoption and
// release. match, when given, excludes more objects from adoption. Pods and other
// objects that are being deleted are kept when they are owned, and not adopted.
func Claim[T any, P borrow.Object[T]](ctx context.Context, o Owner, match func(P) bool) ([]P, error) {
	owned, err := index.Controlled[T, P](ctx, o.Client, o.Object.GetNamespace(), o.Object.GetUID())
	if err != nil {
		return nil, fmt.Errorf("listing what %s %s controls: %w", o.Kind.Kind, o.Object.GetName(), err)
	}
	var (
		mine []P
		errs []error
	)
	for _, obj := range owned {
		if o.Selector.Matches(labels.Set(obj.GetLabels())) {
			if !o.Borrow {
				obj = obj.DeepCopyObject().(P)
			}
			mine = append(mine, obj)
		} else if o.Object.GetDeletionTimestamp() == nil {
			errs = append(errs, o.release(ctx, obj.DeepCopyObject().(P)))
		}
	}
	if o.Object.GetDeletionTimestamp() != nil {
		return mine, errors.Join(errs...)
	}
	// The first list has waited for what was adopted and released before.
	orphans, err := index.Controlled[T, P](ctx, o.Client, o.Object.GetNamespace(), "", client.DisableReadYourWritesConsistency)
	if err != nil {
		return nil, fmt.Errorf("listing what no one controls: %w", err)
	}
	checked := false
	for _, obj := range orphans {
		if obj.GetDeletionTimestamp() != nil || !o.Selector.Matches(labels.Set(obj.GetLabels())) || match != nil && !match(obj) {
			continue
		}
		if !checked {
			if err := o.stillThere(ctx); err != nil {
				return nil, errors.Join(append(errs, err)...)
			}
			checked = true
		}
		obj = obj.DeepCopyObject().(P)
		adopted, err := o.adopt(ctx, obj)
		if err != nil {
			errs = append(errs, err)
		} else if adopted {
			mine = append(mine, obj)
		}
	}
	return mine, errors.Join(errs...)
}

func (o Owner) stillThere(ctx context.Context) error {
	fresh := o.Object.DeepCopyObject().(client.Object)
	if err := o.Live.Get(ctx, client.ObjectKeyFromObject(o.Object), fresh); err != nil {
		return fmt.Errorf("checking %s %s before adoption: %w", o.Kind.Kind, o.Object.GetName(), err)
	}
	if fresh.GetUID() != o.Object.GetUID() {
		return fmt.Errorf("adopting for %s %s: it has been replaced by another of the same name", o.Kind.Kind, o.Object.GetName())
	}
	if fresh.GetDeletionTimestamp() != nil {
		return fmt.Errorf("adopting for %s %s: it is being deleted", o.Kind.Kind, o.Object.GetName())
	}
	return nil
}

func (o Owner) adopt(ctx context.Context, obj client.Object) (bool, error) {
	klog.FromContext(ctx).V(2).Info("Adopting", "object", klog.KObj(obj))
	finalizers := obj.GetFinalizers()
	for _, f := range o.Finalizers {
		if !slices.Contains(finalizers, f) {
			finalizers = append(finalizers, f)
		}
	}
	meta := map[string]any{
		"uid":             obj.GetUID(),
		"ownerReferences": []metav1.OwnerReference{*metav1.NewControllerRef(o.Object, o.Kind)},
	}
	if len(o.Finalizers) > 0 {
		meta["finalizers"] = finalizers
	}
	return o.patch(ctx, obj, meta)
}

func (o Owner) release(ctx context.Context, obj client.Object) error {
	klog.FromContext(ctx).V(2).Info("Releasing", "object", klog.KObj(obj))
	meta := map[string]any{
		"uid":             obj.GetUID(),
		"ownerReferences": []map[string]any{{"$patch": "delete", "uid": o.Object.GetUID()}},
	}
	if len(o.Finalizers) > 0 {
		meta["$deleteFromPrimitiveList/finalizers"] = o.Finalizers
	}
	_, err := o.patch(ctx, obj, meta)
	return err
}

// patch sends a change of obj's metadata. It reports false when the object is gone
// or is no longer the one that was meant.
func (o Owner) patch(ctx context.Context, obj client.Object, meta map[string]any) (bool, error) {
	data, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return false, err
	}
	err = o.Client.Patch(ctx, obj, client.RawPatch(types.StrategicMergePatchType, data))
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("claiming %s: %w", obj.GetName(), err)
	}
	return true, nil
}
