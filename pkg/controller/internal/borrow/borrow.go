// Package borrow lists what a cache holds without copying it. controller-runtime's lists hold structs: even one that says
// client.UnsafeDisableDeepCopy copies each of them once, and makes an object more to learn the kind.
//
// What is borrowed belongs to the cache: who borrows changes none of it.
package borrow

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// A Lender has a cache.
type Lender interface {
	// Borrow returns the objects of the kind of one, which may be a nil pointer, that opts ask for.
	Borrow(ctx context.Context, one client.Object, opts ...client.ListOption) ([]any, error)
}

// An Object is a pointer to a struct of an API kind.
type Object[T any] interface {
	*T
	client.Object
}

// List returns what opts ask for: from a Lender what it lends, and from another reader copies.
func List[T any, P Object[T]](ctx context.Context, r client.Reader, opts ...client.ListOption) ([]P, error) {
	found, err := From(ctx, r, P(nil), opts...)
	if err != nil {
		return nil, err
	}
	objs := make([]P, len(found))
	for i := range found {
		obj, ok := found[i].(P)
		if !ok {
			return nil, fmt.Errorf("a list of %T has a %T", P(nil), found[i])
		}
		objs[i] = obj
	}
	return objs, nil
}

// From is List for who does not know the type; one is of the kind, and may be a nil pointer.
func From(ctx context.Context, r client.Reader, one client.Object, opts ...client.ListOption) ([]any, error) {
	if l, ok := r.(Lender); ok {
		return l.Borrow(ctx, one, opts...)
	}
	return copied(ctx, r, one, opts...)
}

// copied returns what a list of r holds.
func copied(ctx context.Context, r client.Reader, one client.Object, opts ...client.ListOption) ([]any, error) {
	gvk, err := apiutil.GVKForObject(reflect.New(reflect.TypeOf(one).Elem()).Interface().(client.Object), scheme.Scheme)
	if err != nil {
		return nil, err
	}
	empty, err := scheme.Scheme.New(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	if err != nil {
		return nil, err
	}
	list, ok := empty.(client.ObjectList)
	if !ok {
		return nil, fmt.Errorf("%T is no list", empty)
	}
	if err := r.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil, err
	}
	var found []any
	err = meta.EachListItem(list, func(o runtime.Object) error {
		found = append(found, o)
		return nil
	})
	return found, err
}

// FromStore returns what an informer's store holds, by the indexes that controller-runtime keeps in it.
func FromStore(store toolscache.Indexer, opts ...client.ListOption) ([]any, error) {
	var o client.ListOptions
	o.ApplyOptions(opts)
	found, err := indexed(store, &o)
	if err != nil || o.LabelSelector == nil || o.LabelSelector.Empty() {
		return found, err
	}
	var selected []any
	for _, obj := range found {
		if m, ok := obj.(client.Object); ok && o.LabelSelector.Matches(labels.Set(m.GetLabels())) {
			selected = append(selected, obj)
		}
	}
	return selected, nil
}

func indexed(store toolscache.Indexer, o *client.ListOptions) ([]any, error) {
	switch {
	case o.FieldSelector != nil:
		fields := o.FieldSelector.Requirements()
		if len(fields) != 1 {
			return nil, fmt.Errorf("%q: what is borrowed is found by one field", o.FieldSelector)
		}
		namespace := o.Namespace
		if namespace == "" {
			namespace = "__all_namespaces"
		}
		return store.ByIndex("field:"+fields[0].Field, namespace+"/"+fields[0].Value)
	case o.Namespace != "":
		return store.ByIndex(toolscache.NamespaceIndex, o.Namespace)
	}
	return store.List(), nil
}
