package generic

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/stack"
)

// Update describes a subresource that updates a part of its parent object, such as
// …/status. Hooks that are nil do nothing.
type Update[T Object] struct {
	// Prepare puts back what the subresource cannot change.
	Prepare  func(ctx context.Context, obj, old T)
	Validate func(ctx context.Context, obj, old T) field.ErrorList
	// ResetFields are the paths that Prepare puts back.
	ResetFields []string
	// KeepsMetadata puts back labels, annotations and whatever else of the metadata clients write.
	KeepsMetadata bool
	// NoTable has the subresource not printed as its parent is.
	NoTable bool

	keepsSpec bool
}

// PartStore serves a subresource that reads its parent and updates a part of it.
type PartStore struct{ store *registry.Store }

// StatusStore is a PartStore that is printed as its parent is.
type StatusStore struct{ *PartStore }

// Status returns the store's status subresource. u.Prepare runs after Spec was put
// back; "spec" need not be among u.ResetFields.
func (s *Store[T]) Status(u Update[T]) StatusStore {
	u.keepsSpec = true
	prepare := u.Prepare
	u.Prepare = func(ctx context.Context, obj, old T) {
		if spec := structField(obj, "Spec"); spec.IsValid() {
			spec.Set(structField(old, "Spec"))
		}
		if prepare != nil {
			prepare(ctx, obj, old)
		}
	}
	if structField(newObject[T](), "Spec").IsValid() {
		u.ResetFields = append([]string{"spec"}, u.ResetFields...)
	}
	return StatusStore{s.Part(u)}
}

// Part returns a subresource of the store that behaves as u says.
func (s *Store[T]) Part(u Update[T]) *PartStore {
	if u.KeepsMetadata {
		prepare := u.Prepare
		u.Prepare = func(ctx context.Context, obj, old T) {
			metav1.ResetObjectMetaForStatus(obj, old)
			if prepare != nil {
				prepare(ctx, obj, old)
			}
		}
		u.ResetFields = append([]string{"metadata"}, u.ResetFields...)
	}
	part := *s.Store
	part.UpdateStrategy = partStrategy[T]{strategy: s.CreateStrategy.(strategy[T]), u: u}
	part.ResetFieldsStrategy = newResetFields(s.versions, u.ResetFields)
	return &PartStore{store: &part}
}

// partStrategy replaces what an update of the parent does.
type partStrategy[T Object] struct {
	strategy[T]
	u Update[T]
}

func (s partStrategy[T]) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	o, was := obj.(T), old.(T)
	if s.r.Generation != nil {
		o.SetGeneration(was.GetGeneration())
	}
	if s.u.Prepare != nil {
		s.u.Prepare(ctx, o, was)
	}
}

func (s partStrategy[T]) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	o := obj.(T)
	var errs field.ErrorList
	if s.u.Validate != nil {
		errs = s.named(ctx, s.u.Validate(ctx, o, old.(T)))
	}
	if s.u.keepsSpec {
		return errs
	}
	return append(errs, s.validatePrivileges(o)...)
}

func (s partStrategy[T]) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

// New implements rest.Storage.
func (p *PartStore) New() runtime.Object { return p.store.New() }

// Destroy implements rest.Storage; the parent owns what there is to release.
func (p *PartStore) Destroy() {}

// Get implements rest.Getter.
func (p *PartStore) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return p.store.Get(ctx, name, options)
}

// Update implements rest.Updater. It never creates.
func (p *PartStore) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, createValidation rest.ValidateObjectFunc,
	updateValidation rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	stack.Grow()
	n := &noted{Context: ctx, UpdatedObjectInfo: info}
	return p.store.Update(n, name, n, createValidation, updateValidation, false, options)
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (p *PartStore) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return p.store.GetResetFields()
}

// ConvertToTable implements rest.TableConvertor.
func (s StatusStore) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return s.store.ConvertToTable(ctx, obj, options)
}

var (
	_ rest.Patcher             = &PartStore{}
	_ rest.ResetFieldsStrategy = &PartStore{}
	_ rest.TableConvertor      = StatusStore{}
)
