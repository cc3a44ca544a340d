package core

import (
	"slices"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// report collects what is wrong with an object. Its methods tell whether they
// found nothing wrong, so that one rule can depend on another.
type report struct{ errs field.ErrorList }

// add says what is wrong, each thing once.
func (r *report) add(errs ...*field.Error) {
	for _, e := range errs {
		said := slices.ContainsFunc(r.errs, func(o *field.Error) bool { return o.Field == e.Field && o.ErrorBody() == e.ErrorBody() })
		if !said {
			r.errs = append(r.errs, e)
		}
	}
}

// merge adds what another validator found.
func (r *report) merge(errs field.ErrorList) bool {
	r.add(errs...)
	return len(errs) == 0
}

// invalid says that the value v at p is wrong, once per reason.
func (r *report) invalid(p *field.Path, v any, reasons ...string) bool {
	for _, reason := range reasons {
		r.add(field.Invalid(p, v, reason))
	}
	return len(reasons) == 0
}

// invalidIf says that the value v at p is wrong, if bad.
func (r *report) invalidIf(bad bool, p *field.Path, v any, reason string) bool {
	if bad {
		r.add(field.Invalid(p, v, reason))
	}
	return !bad
}

// forbidIf says that the field p may not be set, if bad.
func (r *report) forbidIf(bad bool, p *field.Path, reason string) bool {
	if bad {
		r.add(field.Forbidden(p, reason))
	}
	return !bad
}

// requireIf says that the field p must be set, if missing.
func (r *report) requireIf(missing bool, p *field.Path, reason string) bool {
	if missing {
		r.add(field.Required(p, reason))
	}
	return !missing
}

// required says that the field p must be set, if v is empty.
func (r *report) required(v string, p *field.Path) bool { return r.requireIf(v == "", p, "") }

// nonNegative says that v may not be negative.
func (r *report) nonNegative(v int64, p *field.Path) bool {
	return r.merge(apivalidation.ValidateNonnegativeField(v, p))
}

// immutable says that the field p may not change.
func (r *report) immutable(v, old any, p *field.Path) bool {
	return r.merge(apivalidation.ValidateImmutableField(v, old, p))
}

// oneOf says that v must be one of the supported values.
func oneOf[T ~string](r *report, v T, p *field.Path, supported ...T) bool {
	if slices.Contains(supported, v) {
		return true
	}
	r.add(field.NotSupported(p, v, supported))
	return false
}

// requiredOneOf says that v must be set, and to one of the supported values.
func requiredOneOf[T ~string](r *report, v T, p *field.Path, supported ...T) bool {
	return r.required(string(v), p) && oneOf(r, v, p, supported...)
}

// optionalOneOf says that v must be one of the supported values if it is set.
func optionalOneOf[T ~string](r *report, v *T, p *field.Path, supported ...T) bool {
	return v == nil || oneOf(r, *v, p, supported...)
}

// duplicates says which keys at the given paths were seen before.
type duplicates[K comparable] map[K]bool

func (d duplicates[K]) check(r *report, key K, p *field.Path) bool {
	if d[key] {
		r.add(field.Duplicate(p, key))
		return false
	}
	d[key] = true
	return true
}

// ValidateObjectMeta says what is wrong with the metadata of a new object of any
// built-in kind.
func ValidateObjectMeta(o metav1.Object, namespaced bool, name apivalidation.ValidateNameFunc, p *field.Path) field.ErrorList {
	r := report{errs: apivalidation.ValidateObjectMetaAccessor(o, namespaced, name, p)}
	r.finalizers(o.GetFinalizers(), p.Child("finalizers"))
	return r.errs
}

// ValidateObjectMetaUpdate says what is wrong with an update of the metadata of an
// object of any built-in kind.
func ValidateObjectMetaUpdate(o, old metav1.Object, p *field.Path) field.ErrorList {
	r := report{errs: apivalidation.ValidateObjectMetaAccessorUpdate(o, old, p)}
	r.finalizers(o.GetFinalizers(), p.Child("finalizers"))
	return r.errs
}

// finalizers says that a finalizer is one of Kubernetes' own, or has a domain.
func (r *report) finalizers(names []string, p *field.Path) {
	for i, name := range names {
		r.finalizer(name, p.Index(i))
	}
}

func (r *report) finalizer(name string, p *field.Path) {
	r.merge(rules.Finalizer(name, p))
}

func (r *report) objectMeta(o metav1.Object, namespaced bool, name apivalidation.ValidateNameFunc, p *field.Path) bool {
	return r.merge(ValidateObjectMeta(o, namespaced, name, p))
}

func (r *report) objectMetaUpdate(o, old metav1.Object, p *field.Path) bool {
	return r.merge(ValidateObjectMetaUpdate(o, old, p))
}
