package resource

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// className is the rule for names of DeviceClasses. What one is generated from is not
// looked at, only what came of it.
func className(name string, prefix bool) []string {
	if prefix {
		return nil
	}
	return content.IsDNS1123Subdomain(name)
}

// ValidateDeviceClass says what is wrong with a new DeviceClass.
func ValidateDeviceClass(c *resourcev1.DeviceClass) field.ErrorList {
	errs := core.ValidateObjectMeta(&c.ObjectMeta, false, className, metaPath)
	return append(errs, validateDeviceClassSpec(&c.Spec, nil)...)
}

// ValidateDeviceClassUpdate says what is wrong with an update of a DeviceClass.
func ValidateDeviceClassUpdate(c, old *resourcev1.DeviceClass) field.ErrorList {
	errs := core.ValidateObjectMeta(&c.ObjectMeta, false, className, metaPath)
	errs = append(errs, core.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metaPath)...)
	return append(errs, validateDeviceClassSpec(&c.Spec, &old.Spec)...)
}

func validateDeviceClassSpec(spec, old *resourcev1.DeviceClassSpec) field.ErrorList {
	stored := func(part func(*resourcev1.DeviceClassSpec) any) bool {
		return old != nil && equality.Semantic.DeepEqual(part(spec), part(old))
	}
	errs := validateSelectors(spec.Selectors, specPath.Child("selectors"), stored(func(s *resourcev1.DeviceClassSpec) any { return s.Selectors }))
	same := stored(func(s *resourcev1.DeviceClassSpec) any { return s.Config })
	errs = append(errs, each(spec.Config, resourcev1.DeviceConfigMaxSize, specPath.Child("config"), func(c resourcev1.DeviceClassConfiguration, p *field.Path) field.ErrorList {
		return validateConfiguration(&c.DeviceConfiguration, p, same)
	})...)
	return append(errs, rules.Declared(resourcev1.Validate_DeviceClassSpec, specPath, spec, old, nil)...)
}
