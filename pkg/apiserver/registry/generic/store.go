package generic

import (
	"context"
	"fmt"
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
	ctx, info = noted(ctx, info)
	return s.Store.Update(ctx, name, info, createValidation, updateValidation, forceAllowCreate, options)
}

// Delete implements rest.GracefulDeleter.
func (s *Store[T]) Delete(ctx context.Context, name string, validation rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	stack.Grow()
	return s.Store.Delete(ctx, name, validation, options)
}

// NewStore builds the storage of r. The caller may still set hooks of the embedded
// registry.Store, such as BeginCreate.
func NewStore[T Object](r Resource[T], o Options) (*Store[T], error) {
	gr := schema.GroupResource{Group: r.Group, Resource: r.Name}
	s := strategy[T]{ObjectTyper: o.Scheme, NameGenerator: names.SimpleNameGenerator, r: &r, allowPrivileged: o.AllowPrivileged, features: o.Features}
	r.HasStatus = r.HasStatus || r.Status != nil
	reset := r.ResetFields
	if r.HasStatus {
		reset = append([]string{"status"}, reset...)
	}
	store := &registry.Store{
		NewFunc:                   func() runtime.Object { return r.New() },
		NewListFunc:               r.NewList,
		DefaultQualifiedResource:  gr,
		SingularQualifiedResource: schema.GroupResource{Group: r.Group, Resource: r.Singular},
		CreateStrategy:            s,
		UpdateStrategy:            s,
		DeleteStrategy:            s,
		ResetFieldsStrategy:       newResetFields(versionsOf(o.Scheme, r.New()), reset),
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
	return &Store[T]{Store: store, Resource: &r, versions: versionsOf(o.Scheme, r.New())}, nil
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
		paths[r.Name+"/status"] = s.Status(*r.Status)
	}
	if r.Scale != nil {
		paths[r.Name+"/scale"] = s.Scale(*r.Scale)
	}
	return paths
}

// versionsOf are all API versions in which clients see objects of a kind.
func versionsOf(s *runtime.Scheme, obj runtime.Object) []string {
	kinds, _, err := s.ObjectKinds(obj)
	if err != nil || len(kinds) == 0 {
		return nil
	}
	var all []string
	for _, gv := range s.PrioritizedVersionsForGroup(kinds[0].Group) {
		if s.Recognizes(gv.WithKind(kinds[0].Kind)) {
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
