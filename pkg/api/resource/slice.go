package resource

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// features are those that the declared rules depend on, which are off.
var features = map[string]bool{"DRAPartitionableDevicesType": false}

// ValidateResourceSlice says what is wrong with a new ResourceSlice.
func ValidateResourceSlice(s *resourcev1.ResourceSlice) field.ErrorList {
	errs := core.ValidateObjectMeta(&s.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, metaPath)
	errs = append(errs, validateSliceSpec(&s.Spec, nil)...)
	return append(errs, rules.Declared(resourcev1.Validate_ResourceSliceSpec, specPath, &s.Spec, nil, features)...)
}

// ValidateResourceSliceUpdate says what is wrong with an update of a ResourceSlice: it
// stays in its pool.
func ValidateResourceSliceUpdate(s, old *resourcev1.ResourceSlice) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, metaPath)
	errs = append(errs, validateSliceSpec(&s.Spec, &old.Spec)...)
	errs = append(errs, rules.Immutable(s.Spec.Pool.Name, old.Spec.Pool.Name, specPath.Child("pool", "name"))...)
	errs = append(errs, rules.Immutable(s.Spec.Driver, old.Spec.Driver, specPath.Child("driver"))...)
	errs = append(errs, rules.Immutable(s.Spec.NodeName, old.Spec.NodeName, specPath.Child("nodeName"))...)
	return append(errs, rules.Declared(resourcev1.Validate_ResourceSliceSpec, specPath, &s.Spec, &old.Spec, features)...)
}

// WarningsResourceSlice are what the author of a ResourceSlice should know.
func WarningsResourceSlice(s, _ *resourcev1.ResourceSlice) []string {
	if driver := s.Spec.Driver; driver != strings.ToLower(driver) {
		return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", driver)}
	}
	return nil
}

func validateSliceSpec(spec, old *resourcev1.ResourceSliceSpec) field.ErrorList {
	errs := rules.DriverName(spec.Driver, specPath.Child("driver"))
	errs = append(errs, validatePool(&spec.Pool, specPath.Child("pool"))...)
	errs = append(errs, validateSliceNodes(spec)...)
	if spec.SharedCounters != nil && spec.Devices != nil {
		errs = append(errs, field.Invalid(specPath, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	most := resourcev1.ResourceSliceMaxDevices
	before := map[string]*resourcev1.Device{}
	for i := range spec.Devices {
		if len(spec.Devices[i].Taints) > 0 || len(spec.Devices[i].ConsumesCounters) > 0 {
			most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	if old != nil {
		for i := range old.Devices {
			before[old.Devices[i].Name] = &old.Devices[i]
		}
	}
	perDevice := spec.PerDeviceNodeSelection != nil && *spec.PerDeviceNodeSelection
	devices := specPath.Child("devices")
	errs = append(errs, bounded(spec.Devices, most, devices, func(d resourcev1.Device, p *field.Path) field.ErrorList {
		return validateDevice(&d, before[d.Name], perDevice, p)
	})...)
	if len(spec.Devices) <= most {
		errs = append(errs, unique(spec.Devices, devices, func(d resourcev1.Device) string { return d.Name })...)
	}
	return append(errs, each(spec.SharedCounters, resourcev1.ResourceSliceMaxCounterSets, specPath.Child("sharedCounters"), func(s resourcev1.CounterSet, p *field.Path) field.ErrorList {
		return validateCounters(s.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, p.Child("counters"))
	})...)
}

func validatePool(pool *resourcev1.ResourcePool, p *field.Path) field.ErrorList {
	errs := validatePoolName(pool.Name, p.Child("name"))
	if n := pool.ResourceSliceCount; n <= 0 {
		errs = append(errs, field.Invalid(p.Child("resourceSliceCount"), n, "must be greater than zero"))
	}
	if n := pool.Generation; n < 0 {
		errs = append(errs, field.Invalid(p.Child("generation"), n, "must be greater than or equal to zero"))
	}
	return errs
}

func validateCounters(counters map[string]resourcev1.Counter, most int, p *field.Path) field.ErrorList {
	if len(counters) > most {
		return field.ErrorList{field.TooMany(p, len(counters), most)}
	}
	return nil
}

// A nodeChoice collects which of several ways to choose nodes are taken.
type nodeChoice struct {
	taken []string
	errs  field.ErrorList
}

func (c *nodeChoice) node(name *string, p *field.Path, empty string) {
	switch {
	case name == nil:
	case *name == "":
		c.errs = append(c.errs, field.Invalid(p, *name, empty))
	default:
		c.taken = append(c.taken, "`nodeName`")
		c.errs = append(c.errs, validateNodeName(*name, p)...)
	}
}

func (c *nodeChoice) selector(s *corev1.NodeSelector, p *field.Path) {
	if s != nil {
		c.taken = append(c.taken, "`nodeSelector`")
		c.errs = append(c.errs, core.ValidateNodeSelector(s, p)...)
	}
}

func (c *nodeChoice) flag(name string, value *bool, p *field.Path) {
	switch {
	case value == nil:
	case *value:
		c.taken = append(c.taken, "`"+name+"`")
	default:
		c.errs = append(c.errs, field.Invalid(p.Child(name), *value, "must be either unset or set to true"))
	}
}

// result is what is wrong, where the choice must be one.
func (c *nodeChoice) result(p *field.Path, none, several string) field.ErrorList {
	switch len(c.taken) {
	case 0:
		return append(c.errs, field.Required(p, none))
	case 1:
		return c.errs
	}
	return append(c.errs, field.Invalid(p, "{"+strings.Join(c.taken, ", ")+"}", several))
}

func validateSliceNodes(spec *resourcev1.ResourceSliceSpec) field.ErrorList {
	var c nodeChoice
	c.node(spec.NodeName, specPath.Child("nodeName"), "must be either unset or set to a non-empty string")
	selector := specPath.Child("nodeSelector")
	c.selector(spec.NodeSelector, selector)
	// Devices of several slices get one selector, which is simple if each has one term.
	if s := spec.NodeSelector; s != nil && len(s.NodeSelectorTerms) != 1 {
		c.errs = append(c.errs, field.Invalid(selector.Child("nodeSelectorTerms"), s.NodeSelectorTerms, "must have exactly one node selector term"))
	}
	c.flag("allNodes", spec.AllNodes, specPath)
	c.flag("perDeviceNodeSelection", spec.PerDeviceNodeSelection, specPath)
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	return c.result(specPath, one, one+", but multiple fields are set")
}

func validateDeviceNodes(d *resourcev1.Device, perDevice bool, p *field.Path) field.ErrorList {
	if !perDevice {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			return field.ErrorList{field.Invalid(p, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")}
		}
		return nil
	}
	var c nodeChoice
	c.node(d.NodeName, p.Child("nodeName"), "must not be empty")
	c.selector(d.NodeSelector, p.Child("nodeSelector"))
	c.flag("allNodes", d.AllNodes, p)
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	return c.result(p, one, one)
}

// validateDevice checks a device; old is what was stored under its name.
func validateDevice(d, old *resourcev1.Device, perDevice bool, p *field.Path) field.ErrorList {
	errs := validateLabel(d.Name, p.Child("name"))
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(p, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	if n := len(d.Attributes); n > resourcev1.ResourceSliceMaxAttributeValuesPerDevice {
		errs = append(errs, field.Invalid(p, n, fmt.Sprintf("the total number of attribute values must not exceed %d", resourcev1.ResourceSliceMaxAttributeValuesPerDevice)))
	}
	attributes := p.Child("attributes")
	for _, name := range ordered(d.Attributes) {
		errs = append(errs, validateQualifiedName(name, attributes)...)
		at := key(attributes, string(name))
		errs = append(errs, validateAttribute(d.Attributes[name], at)...)
		if at.String() != attributes.Key(string(name)).String() { // the declared rules are not at this path
			errs = append(errs, validateOneValue(d.Attributes[name], at)...)
		}
	}
	if old == nil || !equality.Semantic.DeepEqual(d.Capacity, old.Capacity) {
		errs = append(errs, validateCapacities(d, p.Child("capacity"))...)
	}
	if old == nil || !equality.Semantic.DeepEqual(d.Taints, old.Taints) {
		errs = append(errs, bounded(d.Taints, resourcev1.DeviceTaintsMaxLength, p.Child("taints"), validateTaint)...)
	}
	errs = append(errs, each(d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, p.Child("consumesCounters"),
		func(c resourcev1.DeviceCounterConsumption, p *field.Path) field.ErrorList {
			return validateCounters(c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, p.Child("counters"))
		})...)
	errs = append(errs, validateDeviceNodes(d, perDevice, p)...)
	return append(errs, validateBindingConditions(d.BindingConditions, d.BindingFailureConditions, p)...)
}
