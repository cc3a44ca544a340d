package resource

import (
	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// ValidateDeviceTaintRule says what is wrong with a new DeviceTaintRule.
func ValidateDeviceTaintRule(r *resourcev1.DeviceTaintRule) field.ErrorList {
	errs := core.ValidateObjectMeta(&r.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, metaPath)
	return append(errs, validateTaintRuleSpec(&r.Spec, nil)...)
}

// ValidateDeviceTaintRuleUpdate says what is wrong with an update of a DeviceTaintRule.
func ValidateDeviceTaintRuleUpdate(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metaPath)
	return append(errs, validateTaintRuleSpec(&r.Spec, &old.Spec)...)
}

// ValidateDeviceTaintRuleStatusUpdate says what is wrong with an update of the status
// of a DeviceTaintRule.
func ValidateDeviceTaintRuleStatusUpdate(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metaPath)
	errs = append(errs, validateConditions(r.Status.Conditions, resourcev1.DeviceTaintRuleStatusMaxConditions, statusPath.Child("conditions"))...)
	return append(errs, rules.Declared(resourcev1.Validate_DeviceTaintRuleStatus, statusPath, &r.Status, &old.Status, nil)...)
}

func validateTaintRuleSpec(spec, old *resourcev1.DeviceTaintRuleSpec) field.ErrorList {
	var errs field.ErrorList
	if s := spec.DeviceSelector; s != nil {
		p := specPath.Child("deviceSelector")
		if s.Driver != nil {
			errs = append(errs, rules.DriverName(*s.Driver, p.Child("driver"))...)
		}
		if s.Pool != nil {
			errs = append(errs, validatePoolName(*s.Pool, p.Child("pool"))...)
		}
		if s.Device != nil {
			errs = append(errs, validateLabel(*s.Device, p.Child("device"))...)
		}
	}
	errs = append(errs, validateTaint(spec.Taint, specPath.Child("taint"))...)
	return append(errs, rules.Declared(resourcev1.Validate_DeviceTaintRuleSpec, specPath, spec, old, nil)...)
}

func validateTaint(t resourcev1.DeviceTaint, p *field.Path) field.ErrorList {
	return append(metavalidation.ValidateLabelName(t.Key, p.Child("key")), validateLabelValue(t.Value, p.Child("value"))...)
}
