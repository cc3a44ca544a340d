package core

import (
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// report collects what is wrong with an object. Its methods tell whether they
// found nothing wrong, so that one rule can depend on another.
type report struct{ errs field.ErrorList }

func (r *report) add(errs ...*field.Error) { r.errs = append(r.errs, errs...) }

// merge adds what another validator found.
func (r *report) merge(errs field.ErrorList) bool {
	r.errs = append(r.errs, errs...)
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
	for _, s := range supported {
		if v == s {
			return true
		}
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

// objectMeta validates the metadata of an object.
func (r *report) objectMeta(o metaObject, namespaced bool, name apivalidation.ValidateNameFunc, p *field.Path) bool {
	return r.merge(apivalidation.ValidateObjectMetaAccessor(o, namespaced, name, p))
}

// objectMetaUpdate validates what changed in the metadata of an object.
func (r *report) objectMetaUpdate(o, old metaObject, p *field.Path) bool {
	return r.merge(apivalidation.ValidateObjectMetaAccessorUpdate(o, old, p))
}
