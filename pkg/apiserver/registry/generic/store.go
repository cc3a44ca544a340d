package generic

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/stack"
)

// Store serves a resource from etcd.
type Store[T Object] struct {
	*registry.Store
	Resource *Resource[T]
	// versions are the API versions in which clients see the resource.
	versions []string
}

// ShortNames implements rest.ShortNamesProvider.
func (s *Store[T]) ShortNames() []string { return s.Resource.ShortNames }

// Categories implements rest.CategoriesProvider.
func (s *Store[T]) Categories() []string { return s.Resource.Categories }

// Update implements rest.Updater.
func (s *Store[T]) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, createValidation rest.ValidateObjectFunc,
	updateValidation rest.ValidateObjectUpdateFunc, forceAllowCreate bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	stack.Grow()
	n := &noted{Context: ctx, UpdatedObjectInfo: info}
	return s.Store.Update(n, name, n, createValidation, updateValidation, forceAllowCreate, options)
}

// Delete implements rest.GracefulDeleter.
func (s *Store[T]) Delete(ctx context.Context, name string, validation rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	stack.Grow()
	return s.Store.Delete(ctx, name, validation, options)
}

// GetCorruptObjDeleter implements rest.CorruptObjectDeleterProvider.
func (s *Store[T]) GetCorruptObjDeleter() rest.GracefulDeleter {
	if s.Resource.NoUnreadDeletion {
		return nil
	}
	return s.Store.GetCorruptObjDeleter()
}

// NewStore builds the storage of r. The caller may still set hooks of the embedded
// registry.Store, such as BeginCreate.
func NewStore[T Object](r Resource[T], o Options) (*Store[T], error) {
	gr := schema.GroupResource{Group: r.Group, Resource: r.Name}
	s := strategy[T]{ObjectTyper: o.Scheme, NameGenerator: names.SimpleNameGenerator, r: &r, allowPrivileged: o.AllowPrivileged, features: o.Features}
	kind, list, err := typesOf[T](o.Scheme)
	if err != nil {
		return nil, fmt.Errorf("storage of %s: %w", gr, err)
	}
	versions := versionsOf(o.Scheme, kind)
	r.HasStatus = r.HasStatus || r.Status != nil
	reset := r.ResetFields
	if r.HasStatus {
		reset = append([]string{"status"}, reset...)
	}
	store := &registry.Store{
		NewFunc:                   func() runtime.Object { return newObject[T]() },
		NewListFunc:               func() runtime.Object { return reflect.New(list).Interface().(runtime.Object) },
		DefaultQualifiedResource:  gr,
		SingularQualifiedResource: schema.GroupResource{Group: r.Group, Resource: strings.ToLower(kind.Kind)},
		CreateStrategy:            s,
		UpdateStrategy:            s,
		DeleteStrategy:            s,
		ResetFieldsStrategy:       newResetFields(versions, reset),
		ReturnDeletedObject:       r.ReturnDeleted,
		TableConvertor:            NewTableConvertor(&r),
	}
	if r.DeleteGracefully != nil {
		store.DeleteStrategy = gracefulStrategy[T]{s}
	}
	options := &genericregistry.StoreOptions{RESTOptions: o.RESTOptions, AttrFunc: r.attributes, Indexers: r.Indexers}
	if len(r.TriggerFields) > 0 {
		options.TriggerFunc = storage.IndexerFuncs{}
		for _, f := range r.TriggerFields {
			options.TriggerFunc[f] = func(obj runtime.Object) string { return r.Fields(obj.(T)).Get(f) }
		}
	}
	if err := store.CompleteWithOptions(options); err != nil {
		return nil, fmt.Errorf("storage of %s: %w", gr, err)
	}
	store.Storage.Storage = sameObject{store.Storage.Storage}
	return &Store[T]{Store: store, Resource: &r, versions: versions}, nil
}

// StorageOf returns what makes the storage of r, for a resource that is served as its description says.
func StorageOf[T Object](r Resource[T]) func(Options) (Storage, error) {
	return func(o Options) (Storage, error) { return NewStorage(r, o) }
}

// NewStorage is NewStore for a resource that is served as its description says.
func NewStorage[T Object](r Resource[T], o Options) (Storage, error) {
	s, err := NewStore(r, o)
	if err != nil {
		return nil, err
	}
	return s.Paths(), nil
}

// Paths are the store and the subresources that its Resource names, by their paths.
func (s *Store[T]) Paths() Storage {
	r := s.Resource
	paths := Storage{r.Name: s}
	if r.Status != nil {
		status := s.Status(*r.Status)
		if paths[r.Name+"/status"] = status; r.Status.NoTable {
			paths[r.Name+"/status"] = status.PartStore
		}
	}
	if r.Scale != nil {
		paths[r.Name+"/scale"] = s.Scale(*r.Scale)
	}
	return paths
}

func newObject[T Object]() T { return reflect.New(reflect.TypeFor[T]().Elem()).Interface().(T) }

// typesOf returns a kind of objects of type T, and the type of lists of them.
func typesOf[T Object](s *runtime.Scheme) (schema.GroupVersionKind, reflect.Type, error) {
	kinds, _, err := s.ObjectKinds(newObject[T]())
	if err != nil {
		return schema.GroupVersionKind{}, nil, err
	}
	kind := kinds[0]
	list, err := s.New(kind.GroupVersion().WithKind(kind.Kind + "List"))
	if err != nil {
		return kind, nil, err
	}
	return kind, reflect.TypeOf(list).Elem(), nil
}

// versionsOf are all API versions in which clients see objects of a kind.
func versionsOf(s *runtime.Scheme, kind schema.GroupVersionKind) []string {
	var all []string
	for _, gv := range s.PrioritizedVersionsForGroup(kind.Group) {
		if s.Recognizes(gv.WithKind(kind.Kind)) {
			all = append(all, gv.String())
		}
	}
	return all
}

// attributes are what selectors see of an object.
func (r *Resource[T]) attributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	o, ok := obj.(T)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not one of %s", obj, r.Name)
	}
	set := fields.Set{}
	if r.Fields != nil {
		set = r.Fields(o)
	}
	set["metadata.name"] = o.GetName()
	if !r.ClusterScoped {
		set["metadata.namespace"] = o.GetNamespace()
	}
	return o.GetLabels(), set, nil
}

// parsePath reads a dotted path of field names.
func parsePath(p string) fieldpath.Path {
	var path fieldpath.Path
	for _, name := range strings.Split(p, ".") {
		path = append(path, fieldpath.PathElement{FieldName: &name})
	}
	return path
}

var (
	_ rest.StandardStorage    = &Store[Object]{}
	_ rest.ShortNamesProvider = &Store[Object]{}
	_ rest.CategoriesProvider = &Store[Object]{}
)
