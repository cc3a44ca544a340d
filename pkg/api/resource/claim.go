package resource

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apicel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	dracel "k8s.io/dynamic-resource-allocation/cel"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// ValidateResourceClaim says what is wrong with a new ResourceClaim.
func ValidateResourceClaim(c *resourcev1.ResourceClaim) field.ErrorList {
	errs := core.ValidateObjectMeta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, metaPath)
	errs = append(errs, validateDeviceClaim(&c.Spec.Devices, specPath.Child("devices"))...)
	return append(errs, rules.Declared(resourcev1.Validate_ResourceClaimSpec, specPath, &c.Spec, nil, nil)...)
}

// ValidateResourceClaimUpdate says what is wrong with an update of a ResourceClaim:
// what it asks for cannot change.
func ValidateResourceClaimUpdate(c, old *resourcev1.ResourceClaim) field.ErrorList {
	errs := core.ValidateObjectMeta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, metaPath)
	errs = append(errs, core.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metaPath)...)
	return append(errs, rules.Fixed(c.Spec, old.Spec, specPath)...)
}

// ValidateResourceClaimTemplate says what is wrong with a new ResourceClaimTemplate.
func ValidateResourceClaimTemplate(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
	return append(validateTemplate(t), rules.Declared(resourcev1.Validate_ResourceClaimTemplateSpec, specPath, &t.Spec, nil, nil)...)
}

// ValidateResourceClaimTemplateUpdate says what is wrong with an update of a
// ResourceClaimTemplate: its claim cannot change.
func ValidateResourceClaimTemplateUpdate(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
	errs := validateTemplate(t)
	errs = append(errs, core.ValidateObjectMetaUpdate(&t.ObjectMeta, &old.ObjectMeta, metaPath)...)
	errs = append(errs, rules.Immutable(t.Spec, old.Spec, specPath)...)
	return append(errs, rules.Declared(resourcev1.Validate_ResourceClaimTemplateSpec, specPath, &t.Spec, &old.Spec, nil)...)
}

func validateTemplate(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
	errs := core.ValidateObjectMeta(&t.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, metaPath)
	errs = append(errs, core.ValidateTemplateMeta(&t.Spec.ObjectMeta, specPath.Child("metadata"))...)
	return append(errs, validateDeviceClaim(&t.Spec.Spec.Devices, specPath.Child("spec", "devices"))...)
}

// requestNames are the names of a claim's requests, and of the alternatives of each.
type requestNames map[string][]string

func namesOf(c *resourcev1.DeviceClaim) requestNames {
	names := requestNames{}
	for _, r := range c.Requests {
		names[r.Name] = nil
		for _, alternative := range r.FirstAvailable {
			names[r.Name] = append(names[r.Name], alternative.Name)
		}
	}
	return names
}

// validateRef checks a reference to a request ("gpu") or one of its alternatives ("gpu/big").
func (n requestNames) validateRef(ref string, p *field.Path) field.ErrorList {
	unknown := field.Invalid(p, ref, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'")
	request, alternative, isAlternative := strings.Cut(ref, "/")
	if strings.Contains(alternative, "/") {
		return field.ErrorList{unknown}
	}
	errs := validateLabel(request, p)
	if isAlternative {
		errs = append(errs, validateLabel(alternative, p)...)
	}
	if alternatives, ok := n[request]; !ok || isAlternative && !slices.Contains(alternatives, alternative) {
		errs = append(errs, unknown)
	}
	return errs
}

func (n requestNames) validateRefs(refs []string, p *field.Path) field.ErrorList {
	return each(refs, resourcev1.DeviceRequestsMaxSize, p, n.validateRef)
}

func validateDeviceClaim(c *resourcev1.DeviceClaim, p *field.Path) field.ErrorList {
	names := namesOf(c)
	errs := each(c.Requests, resourcev1.DeviceRequestsMaxSize, p.Child("requests"), validateRequest)
	errs = append(errs, each(c.Constraints, resourcev1.DeviceConstraintsMaxSize, p.Child("constraints"), func(c resourcev1.DeviceConstraint, p *field.Path) field.ErrorList {
		errs := names.validateRefs(c.Requests, p.Child("requests"))
		if c.MatchAttribute == nil && c.DistinctAttribute == nil {
			errs = append(errs, field.Required(p, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
		}
		return errs
	})...)
	return append(errs, each(c.Config, resourcev1.DeviceConfigMaxSize, p.Child("config"), func(c resourcev1.DeviceClaimConfiguration, p *field.Path) field.ErrorList {
		return append(names.validateRefs(c.Requests, p.Child("requests")), validateConfiguration(&c.DeviceConfiguration, p, false)...)
	})...)
}

func validateRequest(r resourcev1.DeviceRequest, p *field.Path) field.ErrorList {
	errs := validateLabel(r.Name, p.Child("name"))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return append(errs, field.Required(p, "exactly one of `exactly` or `firstAvailable` is required"))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return append(errs, field.Invalid(p, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case r.Exactly == nil:
		return append(errs, each(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, p.Child("firstAvailable"), validateAlternative)...)
	}
	p = p.Child("exactly")
	if class := r.Exactly.DeviceClassName; class == "" {
		errs = append(errs, field.Required(p.Child("deviceClassName"), ""))
	} else {
		errs = append(errs, rules.Messages(p.Child("deviceClassName"), class, validation.IsDNS1123Subdomain(class))...)
	}
	errs = append(errs, validateSelectors(r.Exactly.Selectors, p.Child("selectors"), false)...)
	errs = append(errs, validateCount(r.Exactly.AllocationMode, r.Exactly.Count, p.Child("count"))...)
	return append(errs, validateTolerations(r.Exactly.Tolerations, p.Child("tolerations"))...)
}

func validateAlternative(r resourcev1.DeviceSubRequest, p *field.Path) field.ErrorList {
	errs := validateLabel(r.Name, p.Child("name"))
	errs = append(errs, validateSelectors(r.Selectors, p.Child("selectors"), false)...)
	errs = append(errs, validateCount(r.AllocationMode, r.Count, p.Child("count"))...)
	return append(errs, validateTolerations(r.Tolerations, p.Child("tolerations"))...)
}

func validateCount(mode resourcev1.DeviceAllocationMode, count int64, p *field.Path) field.ErrorList {
	switch {
	case mode == resourcev1.DeviceAllocationModeAll && count != 0:
		return field.ErrorList{field.Invalid(p, count, fmt.Sprintf("must not be specified when allocationMode is '%s'", mode))}
	case mode == resourcev1.DeviceAllocationModeExactCount && count <= 0:
		return field.ErrorList{field.Invalid(p, count, "must be greater than zero")}
	}
	return nil
}

// validateSelectors checks expressions over devices, but for those that are stored as
// they are: newer servers may have written them.
func validateSelectors(selectors []resourcev1.DeviceSelector, p *field.Path, stored bool) field.ErrorList {
	return each(selectors, resourcev1.DeviceSelectorsMaxSize, p, func(s resourcev1.DeviceSelector, p *field.Path) field.ErrorList {
		switch {
		case s.CEL == nil:
			return field.ErrorList{field.Required(p.Child("cel"), "")}
		case stored:
			return nil
		}
		return validateExpression(s.CEL.Expression, p.Child("cel", "expression"))
	})
}

func validateExpression(expression string, p *field.Path) field.ErrorList {
	if len(expression) > resourcev1.CELSelectorExpressionMaxLength {
		return field.ErrorList{field.TooLong(p, "" /*unused*/, resourcev1.CELSelectorExpressionMaxLength)}
	}
	env := environment.NewExpressions
	result := dracel.GetCompiler(dracel.Features{EnableConsumableCapacity: true}).CompileCELExpression(expression, dracel.Options{EnvType: &env})
	switch e := result.Error; {
	case e == nil && result.MaxCost > resourcev1.CELSelectorExpressionMaxCost:
		return field.ErrorList{field.Forbidden(p, "too complex, exceeds cost limit")}
	case e == nil:
		return nil
	case e.Type == apicel.ErrorTypeRequired:
		return field.ErrorList{field.Required(p, e.Detail)}
	case e.Type == apicel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(p, expression, e.Detail)}
	default:
		return field.ErrorList{field.InternalError(p, e)}
	}
}

func validateConfiguration(c *resourcev1.DeviceConfiguration, p *field.Path, stored bool) field.ErrorList {
	if c.Opaque == nil {
		return field.ErrorList{field.Required(p.Child("opaque"), "")}
	}
	return validateObject(c.Opaque.Parameters, p.Child("opaque", "parameters"), resourcev1.OpaqueParametersMaxLength, stored)
}

// validateObject checks a JSON object that means something to a driver alone. A stored
// one may be longer than new ones.
func validateObject(o runtime.RawExtension, p *field.Path, most int, stored bool) field.ErrorList {
	switch {
	case len(o.Raw) == 0:
		return field.ErrorList{field.Required(p, "")}
	case !stored && len(o.Raw) > most:
		return field.ErrorList{field.TooLong(p, "" /*unused*/, most)}
	}
	var content map[string]any
	err := json.Unmarshal(o.Raw, &content)
	if wrongType := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrongType) {
		return field.ErrorList{field.Invalid(p, "<value omitted>", "must be a valid JSON object")}
	}
	if err != nil {
		return field.ErrorList{field.Invalid(p, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	if content == nil { // null
		return field.ErrorList{field.Required(p, "")}
	}
	return nil
}

func validateTolerations(tolerations []resourcev1.DeviceToleration, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range tolerations {
		switch p := p.Index(i); t.Operator {
		case resourcev1.DeviceTolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(p.Child("value"), t.Value, "must be empty for operator `Exists`"))
			}
		case resourcev1.DeviceTolerationOpEqual:
			errs = append(errs, validateLabelValue(t.Value, p.Child("value"))...)
		}
	}
	return errs
}
