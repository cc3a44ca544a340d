package generic

import (
	"context"
	"errors"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/leme-k8s/leme/pkg/api/autoscaling"
)

var errNoTable = errors.New("object has no table of its own")

// Scaler says how a kind is scaled.
type Scaler[T Object] struct {
	// Replicas points to the desired number, which defaulting has set.
	Replicas func(obj T) *int32
	// Observed returns the number that runs.
	Observed func(obj T) int32
	// Selector returns the label selector of the pods, in its string form.
	Selector func(obj T) (string, error)
}

// ScaleStore serves …/scale.
type ScaleStore[T Object] struct {
	store  *Store[T]
	scaler Scaler[T]
}

// Scale returns the store's scale subresource.
func (s *Store[T]) Scale(scaler Scaler[T]) *ScaleStore[T] {
	return &ScaleStore[T]{store: s, scaler: scaler}
}

// GroupVersionKind implements rest.GroupVersionKindProvider: a Scale is of the
// autoscaling group wherever it is served.
func (s *ScaleStore[T]) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return autoscalingv1.SchemeGroupVersion.WithKind("Scale")
}

// New implements rest.Storage.
func (s *ScaleStore[T]) New() runtime.Object { return &autoscalingv1.Scale{} }

// Destroy implements rest.Storage; the parent owns what there is to release.
func (s *ScaleStore[T]) Destroy() {}

// Get implements rest.Getter.
func (s *ScaleStore[T]) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	obj, err := s.store.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	scale, err := s.scale(obj.(T))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return scale, nil
}

// Update implements rest.Updater: it changes the parent's replicas.
func (s *ScaleStore[T]) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, createValidation rest.ValidateObjectFunc,
	updateValidation rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	obj, _, err := s.store.Update(ctx, name, &scaleUpdate[T]{s: s, name: name, info: info},
		func(ctx context.Context, obj runtime.Object) error {
			return s.withScale(obj, func(sc runtime.Object) error { return createValidation(ctx, sc) })
		},
		func(ctx context.Context, obj, old runtime.Object) error {
			return s.withScale(obj, func(sc runtime.Object) error {
				return s.withScale(old, func(oldScale runtime.Object) error { return updateValidation(ctx, sc, oldScale) })
			})
		}, false, options)
	if err != nil {
		return nil, false, err
	}
	scale, err := s.scale(obj.(T))
	if err != nil {
		return nil, false, apierrors.NewBadRequest(err.Error())
	}
	return scale, false, nil
}

// ConvertToTable implements rest.TableConvertor.
func (s *ScaleStore[T]) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return scaleTable.ConvertToTable(ctx, obj, options)
}

var scaleTable = NewTableConvertor(&Resource[*autoscalingv1.Scale]{
	GroupVersion: autoscalingv1.SchemeGroupVersion,
	Columns: []metav1.TableColumnDefinition{
		Column("Name", "string", NameColumn.Description),
		Column("Desired", "integer", autoscalingv1.ScaleSpec{}.SwaggerDoc()["replicas"]),
		Column("Available", "integer", autoscalingv1.ScaleStatus{}.SwaggerDoc()["replicas"]),
		AgeColumn,
	},
	Cells: func(s *autoscalingv1.Scale) []any {
		return []any{s.Name, int64(s.Spec.Replicas), int64(s.Status.Replicas), Age(s.CreationTimestamp)}
	},
})

func (s *ScaleStore[T]) withScale(obj runtime.Object, f func(runtime.Object) error) error {
	scale, err := s.scale(obj.(T))
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return f(scale)
}

// scale is obj as its scale.
func (s *ScaleStore[T]) scale(obj T) (*autoscalingv1.Scale, error) {
	selector, err := s.scaler.Selector(obj)
	if err != nil {
		return nil, fmt.Errorf("label selector of %s %q: %w", s.store.SingularQualifiedResource.Resource, obj.GetName(), err)
	}
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name:              obj.GetName(),
			Namespace:         obj.GetNamespace(),
			UID:               obj.GetUID(),
			ResourceVersion:   obj.GetResourceVersion(),
			CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: *s.scaler.Replicas(obj)},
		Status: autoscalingv1.ScaleStatus{Replicas: s.scaler.Observed(obj), Selector: selector},
	}, nil
}

// scaleUpdate turns an update of a Scale into one of its parent.
type scaleUpdate[T Object] struct {
	s    *ScaleStore[T]
	name string
	info rest.UpdatedObjectInfo
}

// Preconditions implements rest.UpdatedObjectInfo.
func (u *scaleUpdate[T]) Preconditions() *metav1.Preconditions { return u.info.Preconditions() }

// UpdatedObject implements rest.UpdatedObjectInfo.
func (u *scaleUpdate[T]) UpdatedObject(ctx context.Context, parent runtime.Object) (runtime.Object, error) {
	obj := parent.DeepCopyObject().(T)
	gv := u.s.store.Resource.GroupVersion
	owners := managedfields.NewScaleHandler(obj.GetManagedFields(), gv,
		managedfields.ResourcePathMappings{gv.String(): fieldpath.MakePathOrDie("spec", "replicas")})

	old, err := u.s.scale(obj)
	if err != nil {
		return nil, err
	}
	if old.ManagedFields, err = owners.ToSubresource(); err != nil {
		return nil, err
	}
	updated, err := u.info.UpdatedObject(ctx, old)
	if err != nil {
		return nil, err
	}
	scale, ok := updated.(*autoscalingv1.Scale)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("expected a Scale, got %T", updated))
	}
	if errs := autoscaling.ValidateScale(scale); len(errs) > 0 {
		return nil, apierrors.NewInvalid(u.s.GroupVersionKind(schema.GroupVersion{}).GroupKind(), u.name, errs)
	}
	if scale.ResourceVersion != "" {
		if scale.ResourceVersion != obj.GetResourceVersion() && obj.GetResourceVersion() != "" {
			r := u.s.store.Resource
			return nil, apierrors.NewConflict(schema.GroupResource{Group: r.Group, Resource: r.Name + "/scale"}, u.name,
				fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
		}
		obj.SetResourceVersion(scale.ResourceVersion)
	}
	if scale.UID != "" && scale.UID != obj.GetUID() {
		r := u.s.store.Resource
		return nil, apierrors.NewConflict(schema.GroupResource{Group: r.Group, Resource: r.Name + "/scale"}, u.name,
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", scale.UID, obj.GetUID()))
	}
	*u.s.scaler.Replicas(obj) = scale.Spec.Replicas
	entries, err := owners.ToParent(scale.ManagedFields)
	if err != nil {
		return nil, err
	}
	obj.SetManagedFields(entries)
	return obj, nil
}

var (
	_ rest.Patcher                  = &ScaleStore[Object]{}
	_ rest.GroupVersionKindProvider = &ScaleStore[Object]{}
)
