package resource

import (
	"fmt"
	"math"
	"reflect"
	"regexp"

	resourcev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxValidValues is how many parts of a capacity can be named one by one.
const maxValidValues = 10

// semver is a version as semver.org 2.0.0 defines it.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}` +
	`(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?` +
	`(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

func validateAttribute(a resourcev1.DeviceAttribute, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	short := func(value string, p *field.Path) {
		if len(value) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(p, "" /*unused*/, resourcev1.DeviceAttributeMaxValueLength))
		}
	}
	if v := a.StringValue; v != nil {
		short(*v, p.Child("string"))
	}
	if v := a.VersionValue; v != nil {
		if !semver.MatchString(*v) {
			errs = append(errs, field.Invalid(p.Child("version"), *v, "must be a string compatible with semver.org spec 2.0.0"))
		}
		short(*v, p.Child("version"))
	}
	return errs
}

// validateOneValue says whether an attribute has none or several values.
func validateOneValue(a resourcev1.DeviceAttribute, p *field.Path) field.ErrorList {
	const detail = "exactly one value must be specified"
	values, fields := reflect.ValueOf(a), 0
	for i := range values.NumField() {
		if !values.Field(i).IsZero() {
			fields++
		}
	}
	switch fields {
	case 0:
		return field.ErrorList{field.Invalid(p, "", detail)}
	case 1:
		return nil
	}
	return field.ErrorList{field.Invalid(p, a, detail)}
}

// validateCapacities checks how much of a device there is, and which parts of it can be
// asked for when several claims share it.
func validateCapacities(d *resourcev1.Device, p *field.Path) field.ErrorList {
	shared := d.AllowMultipleAllocations != nil && *d.AllowMultipleAllocations
	var errs field.ErrorList
	for _, name := range ordered(d.Capacity) {
		errs = append(errs, validateQualifiedName(name, p)...)
		c := d.Capacity[name]
		at := key(p, string(name)).Child("requestPolicy")
		switch policy := c.RequestPolicy; {
		case policy == nil:
		case !shared:
			errs = append(errs, field.Forbidden(at, "allowMultipleAllocations must be true"))
		case len(policy.ValidValues) > 0 && policy.ValidRange != nil:
			errs = append(errs, field.Forbidden(at, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`))
		case len(policy.ValidValues) > 0 && policy.Default == nil:
			errs = append(errs, field.Required(at.Child("default"), "required when validValues is defined"))
		case len(policy.ValidValues) > 0:
			errs = append(errs, validateValues(policy.ValidValues, *policy.Default, c.Value, at.Child("validValues"))...)
		case policy.ValidRange != nil && policy.Default == nil:
			errs = append(errs, field.Required(at.Child("default"), "required when validRange is defined"))
		case policy.ValidRange != nil:
			errs = append(errs, validateRange(policy.ValidRange, *policy.Default, c.Value, at.Child("validRange"))...)
		}
	}
	return errs
}

// validateValues checks the parts of a capacity that can be asked for, one by one.
func validateValues(values []apiresource.Quantity, standard, capacity apiresource.Quantity, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := 1; i < len(values); i++ {
		if values[i-1].Cmp(values[i]) > 0 {
			errs = append(errs, field.Invalid(p.Index(i), values[i].String(), "values must be sorted in ascending order"))
		}
	}
	found := false
	tooMany := len(values) > maxValidValues
	errs = append(errs, bounded(values, maxValidValues, p, func(v apiresource.Quantity, p *field.Path) field.ErrorList {
		found = found || v.Cmp(standard) == 0
		if v.Cmp(capacity) > 0 {
			return field.ErrorList{field.Invalid(p, v.String(), "option is larger than capacity value: "+capacity.String())}
		}
		return nil
	})...)
	if !tooMany {
		errs = append(errs, unique(values, p, func(v apiresource.Quantity) string { return fmt.Sprint(v.Value()) })...)
	}
	if !found {
		errs = append(errs, field.Invalid(p, standard.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

// validateRange checks the parts of a capacity that can be asked for, from the least to
// the most in steps.
func validateRange(r *resourcev1.CapacityRequestPolicyRange, standard, capacity apiresource.Quantity, p *field.Path) field.ErrorList {
	if r.Min == nil {
		return field.ErrorList{field.Required(p.Child("min"), "required when validRange is defined")}
	}
	var errs field.ErrorList
	refuse := func(bad bool, name string, v *apiresource.Quantity, what string, limit *apiresource.Quantity) {
		if bad {
			errs = append(errs, field.Invalid(p.Child(name), v.String(), what+": "+limit.String()))
		}
	}
	refuse(r.Min.Cmp(capacity) > 0, "min", r.Min, "min is larger than capacity value", &capacity)
	refuse(standard.Cmp(*r.Min) < 0, "default", &standard, "default is less than min", r.Min)
	if r.Max != nil {
		refuse(r.Min.Cmp(*r.Max) > 0, "max", r.Min, "min is larger than max", r.Max)
		refuse(r.Max.Cmp(capacity) > 0, "max", r.Max, "max is larger than capacity value", &capacity)
		refuse(standard.Cmp(*r.Max) > 0, "default", &standard, "default is more than max", r.Max)
	}
	if r.Step == nil {
		return errs
	}
	step := p.Child("step")
	if r.Step.Sign() <= 0 {
		return append(errs, field.Invalid(step, r.Step.String(), "must be greater than zero"))
	}
	next := r.Min.DeepCopy()
	next.Add(*r.Step)
	refuse(next.Cmp(capacity) > 0, "step", r.Step, fmt.Sprintf("one step %s is larger than capacity value", next.String()), &capacity)
	return append(errs, validateSteps(r, standard, p)...)
}

// validateSteps checks that the standard and the most are whole steps from the least.
func validateSteps(r *resourcev1.CapacityRequestPolicyRange, standard apiresource.Quantity, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		q    *apiresource.Quantity
	}{{"default", &standard}, {"min", r.Min}, {"max", r.Max}, {"step", r.Step}} {
		switch { // beyond these bounds numbers wrap around
		case f.q == nil:
		case f.q.Sign() < 0:
			errs = append(errs, field.Invalid(p.Child(f.name), f.q.String(), apivalidation.IsNegativeErrorMsg))
		case f.q.CmpInt64(math.MaxInt64) > 0:
			errs = append(errs, field.Invalid(p.Child(f.name), f.q.String(), fmt.Sprintf("must not be larger than %d", math.MaxInt64)))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	for _, q := range []*apiresource.Quantity{&standard, r.Max} {
		if q != nil && (q.Value()-r.Min.Value())%r.Step.Value() != 0 {
			errs = append(errs, field.Invalid(p.Child("step"), q.String(), fmt.Sprintf("value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String())))
		}
	}
	return errs
}
