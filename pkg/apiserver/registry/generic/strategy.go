package generic

import (
	"cmp"
	"context"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/equal"
)

// strategy answers the generic registry's questions from a Resource.
type strategy[T Object] struct {
	runtime.ObjectTyper
	names.NameGenerator
	r               *Resource[T]
	allowPrivileged bool
	features        map[string]bool
}

var _ rest.RESTCreateUpdateStrategy = strategy[Object]{}

func (s strategy[T]) NamespaceScoped() bool                    { return !s.r.ClusterScoped }
func (s strategy[T]) AllowCreateOnUpdate(context.Context) bool { return s.r.CreateOnUpdate }
func (s strategy[T]) AllowUnconditionalUpdate(context.Context) bool {
	return !s.r.RequireResourceVersion
}

func (s strategy[T]) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	o := obj.(T)
	if s.r.HasStatus {
		structField(o, "Status").SetZero()
	}
	if s.r.Generation != nil {
		o.SetGeneration(1)
	}
	s.dropDisabled(o, nil)
	if s.r.PrepareForCreate != nil {
		s.r.PrepareForCreate(ctx, o)
	}
}

// dropDisabled clears the fields that belong to features which are off: the resource's own,
// and those of pods and of templates for pods. old is nil on creation.
func (s strategy[T]) dropDisabled(obj T, old *T) {
	var stored T
	if old != nil {
		stored = *old
	}
	if s.r.DropDisabled != nil {
		s.r.DropDisabled(obj, stored)
	}
	if s.r.PodSpec == nil {
		return
	}
	spec, _ := s.r.PodSpec(obj)
	if spec == nil {
		return
	}
	var was *corev1.PodSpec
	if old != nil {
		was, _ = s.r.PodSpec(stored)
	}
	core.DropDisabledPodFields(spec, was, s.features)
}

func (s strategy[T]) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	o := obj.(T)
	var errs field.ErrorList
	if s.r.Validate != nil {
		errs = s.named(ctx, s.r.Validate(ctx, o))
	}
	return append(errs, s.validatePrivileges(o)...)
}

// named names fields as the version of the request does.
func (s strategy[T]) named(ctx context.Context, errs field.ErrorList) field.ErrorList {
	info, ok := request.RequestInfoFrom(ctx)
	if !ok || s.r.NameFields == nil {
		return errs
	}
	return s.r.NameFields(info.APIVersion, errs)
}

// validatePrivileges says which containers are privileged, where none may be.
func (s strategy[T]) validatePrivileges(obj T) field.ErrorList {
	if s.allowPrivileged || s.r.PodSpec == nil {
		return nil
	}
	spec, at := s.r.PodSpec(obj)
	if spec == nil {
		return nil
	}
	return core.ValidateUnprivileged(spec, at)
}

func (s strategy[T]) Canonicalize(obj runtime.Object) {
	if s.r.Canonicalize != nil {
		s.r.Canonicalize(obj.(T))
	}
}

func (s strategy[T]) WarningsOnCreate(ctx context.Context, obj runtime.Object) []string {
	if s.r.Warnings == nil {
		return nil
	}
	var none T
	return s.r.Warnings(ctx, obj.(T), none)
}

func (s strategy[T]) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	o, was := obj.(T), old.(T)
	if s.r.HasStatus {
		structField(o, "Status").Set(structField(was, "Status"))
	}
	s.dropDisabled(o, &was)
	if s.r.PrepareForUpdate != nil {
		s.r.PrepareForUpdate(ctx, o, was)
	}
	if s.r.Generation != nil {
		o.SetGeneration(was.GetGeneration())
		if s.r.Generation(o, was) {
			o.SetGeneration(was.GetGeneration() + 1)
		}
	}
}

func (s strategy[T]) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	o := obj.(T)
	var errs field.ErrorList
	if s.r.ValidateUpdate != nil {
		errs = s.named(ctx, s.r.ValidateUpdate(ctx, o, old.(T)))
	}
	return append(errs, s.validatePrivileges(o)...)
}

func (s strategy[T]) WarningsOnUpdate(ctx context.Context, obj, old runtime.Object) []string {
	if s.r.Warnings == nil {
		return nil
	}
	return s.r.Warnings(ctx, obj.(T), old.(T))
}

func (s strategy[T]) DefaultGarbageCollectionPolicy(context.Context) rest.GarbageCollectionPolicy {
	return cmp.Or(s.r.GarbageCollection, rest.DeleteDependents)
}

// gracefulStrategy is apart from strategy because having the method at all says
// that a deletion may be graceful.
type gracefulStrategy[T Object] struct{ strategy[T] }

func (s gracefulStrategy[T]) CheckGracefulDelete(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool {
	return s.r.DeleteGracefully(ctx, obj.(T), options)
}

// SpecChanged is the Generation of most kinds: the spec differs.
func SpecChanged[T Object](obj, old T) bool {
	return !equal.Semantic(structField(obj, "Spec").Addr().Interface(), structField(old, "Spec").Addr().Interface())
}

// structField returns a field of the struct that obj points to.
func structField(obj any, name string) reflect.Value {
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

// resetFields is the set of paths in each of the API versions.
type resetFields map[fieldpath.APIVersion]*fieldpath.Set

func (f resetFields) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set { return f }

func newResetFields(versions []string, paths []string) resetFields {
	if len(paths) == 0 {
		return nil
	}
	set := fieldpath.NewSet()
	for _, p := range paths {
		set.Insert(parsePath(p))
	}
	f := resetFields{}
	for _, v := range versions {
		f[fieldpath.APIVersion(v)] = set
	}
	return f
}

// Check adapts a validation that needs no context.
func Check[T Object](f func(T) field.ErrorList) func(context.Context, T) field.ErrorList {
	return func(_ context.Context, obj T) field.ErrorList { return f(obj) }
}

// CheckUpdate adapts a validation of updates that needs no context.
func CheckUpdate[T Object](f func(obj, old T) field.ErrorList) func(ctx context.Context, obj, old T) field.ErrorList {
	return func(_ context.Context, obj, old T) field.ErrorList { return f(obj, old) }
}

// Warn adapts warnings that need no context.
func Warn[T Object](f func(obj, old T) []string) func(ctx context.Context, obj, old T) []string {
	return func(_ context.Context, obj, old T) []string { return f(obj, old) }
}
