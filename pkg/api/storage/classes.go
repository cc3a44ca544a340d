package storage

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

func setStorageClass(c *storagev1.StorageClass) {
	rules.SetPtr(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	rules.SetPtr(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
}

// ValidateStorageClass says what is wrong with a new StorageClass.
func ValidateStorageClass(c *storagev1.StorageClass) field.ErrorList {
	errs := rules.ClusterScoped(&c.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, rules.LowerQualifiedName(c.Provisioner, field.NewPath("provisioner"))...)
	errs = append(errs, validateParameters(c.Parameters, true, field.NewPath("parameters"))...)
	if c.ReclaimPolicy != nil && *c.ReclaimPolicy != "" {
		errs = append(errs, rules.OneOf(*c.ReclaimPolicy, field.NewPath("reclaimPolicy"), corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else {
		errs = append(errs, rules.OneOf(*c.VolumeBindingMode, field.NewPath("volumeBindingMode"), storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, validateTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

// ValidateStorageClassUpdate says what is wrong with an update of a StorageClass.
func ValidateStorageClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	errs := append(ValidateStorageClass(c), rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
	errs = append(errs, rules.Fixed(c.Parameters, old.Parameters, field.NewPath("parameters"))...)
	errs = append(errs, rules.Fixed(c.Provisioner, old.Provisioner, field.NewPath("provisioner"))...)
	errs = append(errs, rules.Fixed(c.ReclaimPolicy, old.ReclaimPolicy, field.NewPath("reclaimPolicy"))...)
	return append(errs, rules.Fixed(c.VolumeBindingMode, old.VolumeBindingMode, field.NewPath("volumeBindingMode"))...)
}

// validateTopologies checks the terms of which one has to match. A term that matches
// nothing, or says the same as another, is reported as a duplicate.
func validateTopologies(terms []corev1.TopologySelectorTerm, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	var seen []map[string][]string
	for i, term := range terms {
		expressions := p.Index(i).Child("matchLabelExpressions")
		wanted := map[string][]string{}
		for j, e := range term.MatchLabelExpressions {
			errs = append(errs, validateTopologyExpression(&e, expressions.Index(j))...)
			if _, ok := wanted[e.Key]; ok {
				errs = append(errs, field.Duplicate(expressions.Index(j).Child("key"), e.Key))
			}
			values := slices.Clone(e.Values)
			slices.Sort(values)
			wanted[e.Key] = slices.Compact(values)
		}
		if len(wanted) == 0 || slices.ContainsFunc(seen, func(other map[string][]string) bool {
			return equality.Semantic.DeepEqual(wanted, other)
		}) {
			errs = append(errs, field.Duplicate(expressions, ""))
		}
		seen = append(seen, wanted)
	}
	return errs
}

func validateTopologyExpression(e *corev1.TopologySelectorLabelRequirement, p *field.Path) field.ErrorList {
	errs := rules.QualifiedName(e.Key, p.Child("key"))
	if len(e.Values) == 0 {
		errs = append(errs, field.Required(p.Child("values"), ""))
	}
	for i, value := range e.Values {
		if slices.Contains(e.Values[:i], value) {
			errs = append(errs, field.Duplicate(p.Child("values").Index(i), value))
		}
	}
	return errs
}

// ValidateVolumeAttributesClass says what is wrong with a new VolumeAttributesClass.
func ValidateVolumeAttributesClass(c *storagev1.VolumeAttributesClass) field.ErrorList {
	errs := rules.ClusterScoped(&c.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, rules.LowerQualifiedName(c.DriverName, field.NewPath("driverName"))...)
	return append(errs, validateParameters(c.Parameters, false, field.NewPath("parameters"))...)
}

// ValidateVolumeAttributesClassUpdate says what is wrong with an update of a VolumeAttributesClass.
func ValidateVolumeAttributesClassUpdate(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
	errs := rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, ValidateVolumeAttributesClass(c)...)
	if c.DriverName != old.DriverName {
		errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
	}
	if !equality.Semantic.DeepEqual(c.Parameters, old.Parameters) {
		errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
	}
	return errs
}

// WarningsStorageClass are what the author of a StorageClass should know. old is nil on creation.
func WarningsStorageClass(c, _ *storagev1.StorageClass) []string {
	var warnings []string
	for i, term := range c.AllowedTopologies {
		for j, e := range term.MatchLabelExpressions {
			p := field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions").Index(j).Child("key")
			warnings = append(warnings, rules.NodeLabelWarnings(e.Key, p)...)
		}
	}
	return warnings
}
