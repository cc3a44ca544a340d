package storage

import (
	"slices"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	maxNodeID              = 256
	minTokenSeconds        = 10 * 60
	maxTokenSeconds        = 1 << 32
	minUpdatePeriodSeconds = 10
)

func setCSIDriver(d *storagev1.CSIDriver) {
	rules.SetPtr(&d.Spec.AttachRequired, true)
	rules.SetPtr(&d.Spec.PodInfoOnMount, false)
	rules.SetPtr(&d.Spec.StorageCapacity, false)
	rules.SetPtr(&d.Spec.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	rules.SetPtr(&d.Spec.RequiresRepublish, false)
	rules.SetPtr(&d.Spec.SELinuxMount, false)
	rules.SetPtr(&d.Spec.PreventPodSchedulingIfMissing, false)
	if len(d.Spec.VolumeLifecycleModes) == 0 {
		d.Spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

// ValidateCSIDriver says what is wrong with a new CSIDriver.
func ValidateCSIDriver(d *storagev1.CSIDriver) field.ErrorList {
	errs := rules.ClusterScoped(&d.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, validateCSIDriverSpec(&d.Spec)...)
}

// ValidateCSIDriverUpdate says what is wrong with an update of a CSIDriver.
func ValidateCSIDriverUpdate(d, old *storagev1.CSIDriver) field.ErrorList {
	errs := rules.MetaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateCSIDriverSpec(&d.Spec)...)
	errs = append(errs, rules.Immutable(d.Spec.AttachRequired, old.Spec.AttachRequired, specPath.Child("attachedRequired"))...)
	return append(errs, rules.Immutable(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, specPath.Child("volumeLifecycleModes"))...)
}

func validateCSIDriverSpec(spec *storagev1.CSIDriverSpec) field.ErrorList {
	var errs field.ErrorList
	required := func(name string, set bool) {
		if !set {
			errs = append(errs, field.Required(specPath.Child(name), ""))
		}
	}
	required("attachedRequired", spec.AttachRequired != nil)
	required("podInfoOnMount", spec.PodInfoOnMount != nil)
	required("storageCapacity", spec.StorageCapacity != nil)
	required("fsGroupPolicy", spec.FSGroupPolicy != nil)
	required("seLinuxMount", spec.SELinuxMount != nil)
	if spec.FSGroupPolicy != nil {
		errs = append(errs, rules.OneOf(*spec.FSGroupPolicy, specPath.Child("fsGroupPolicy"),
			storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	for i, mode := range spec.VolumeLifecycleModes {
		if slices.Contains(spec.VolumeLifecycleModes[:i], mode) {
			continue // said once
		}
		errs = append(errs, rules.OneOf(mode, specPath.Child("volumeLifecycleModes"), storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if period := spec.NodeAllocatableUpdatePeriodSeconds; period != nil && *period < minUpdatePeriodSeconds {
		errs = append(errs, field.Invalid(specPath.Child("nodeAllocatableUpdatePeriodSeconds"), *period, "must be greater than or equal to 10 seconds"))
	}
	if in := spec.ServiceAccountTokenInSecrets; in != nil && len(spec.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(specPath.Child("serviceAccountTokenInSecrets"), *in, "serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return append(errs, validateTokenRequests(spec.TokenRequests)...)
}

func validateTokenRequests(requests []storagev1.TokenRequest) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, r := range requests {
		p := specPath.Child("tokenRequests").Index(i)
		if seen[r.Audience] {
			errs = append(errs, field.Duplicate(p.Child("audience"), r.Audience))
			continue
		}
		seen[r.Audience] = true
		if r.ExpirationSeconds == nil {
			continue
		}
		switch seconds, p := *r.ExpirationSeconds, p.Child("expirationSeconds"); {
		case seconds < minTokenSeconds:
			errs = append(errs, field.Invalid(p, seconds, "may not specify a duration less than 10 minutes"))
		case seconds > maxTokenSeconds:
			errs = append(errs, field.Invalid(p, seconds, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}

// ValidateCSINode says what is wrong with a new CSINode.
func ValidateCSINode(n *storagev1.CSINode) field.ErrorList {
	errs := rules.ClusterScoped(&n.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, validateCSINodeSpec(&n.Spec)...)
}

// ValidateCSINodeUpdate says what is wrong with an update of a CSINode: a driver
// comes and goes whole, but for how many volumes it takes.
func ValidateCSINodeUpdate(n, old *storagev1.CSINode) field.ErrorList {
	errs := rules.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	for i := range n.Spec.Drivers {
		driver := n.Spec.Drivers[i]
		for _, was := range old.Spec.Drivers {
			was.Allocatable = driver.Allocatable
			if was.Name == driver.Name && !equality.Semantic.DeepEqual(was, driver) {
				errs = append(errs, field.Invalid(specPath.Child("drivers"), driver, "field is immutable"))
			}
		}
	}
	return append(errs, validateCSINodeSpec(&n.Spec)...)
}

func validateCSINodeSpec(spec *storagev1.CSINodeSpec) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range spec.Drivers {
		driver, p := &spec.Drivers[i], specPath.Child("drivers").Index(i)
		if seen[driver.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), driver.Name))
		}
		seen[driver.Name] = true
		errs = append(errs, rules.DriverName(driver.Name, p.Child("name"))...)
		switch {
		case driver.NodeID == "":
			errs = append(errs, field.Required(p.Child("nodeID"), ""))
		case len(driver.NodeID) > maxNodeID:
			errs = append(errs, field.Invalid(p.Child("nodeID"), driver.NodeID, "must be 256 characters or less"))
		}
		if driver.Allocatable != nil {
			errs = append(errs, rules.NonNegativePtr(driver.Allocatable.Count, p.Child("allocatable", "count"))...)
		}
		for j, key := range driver.TopologyKeys {
			if slices.Contains(driver.TopologyKeys[:j], key) {
				errs = append(errs, field.Duplicate(p, key))
			}
			if key == "" {
				errs = append(errs, field.Required(p, ""))
			}
			errs = append(errs, rules.QualifiedName(key, p)...)
		}
	}
	return errs
}

// ValidateCSIStorageCapacity says what is wrong with a new CSIStorageCapacity.
func ValidateCSIStorageCapacity(c *storagev1.CSIStorageCapacity) field.ErrorList {
	errs := rules.Namespaced(&c.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, rules.LabelSelector(c.NodeTopology, field.NewPath("nodeTopology"))...)
	return append(errs, validateCapacity(c)...)
}

// ValidateCSIStorageCapacityUpdate says what is wrong with an update of a CSIStorageCapacity.
func ValidateCSIStorageCapacityUpdate(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
	errs := rules.Namespaced(&c.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
	errs = append(errs, metavalidation.ValidateLabelSelector(c.NodeTopology, metavalidation.LabelSelectorValidationOptions{
		AllowInvalidLabelValueInSelector: metavalidation.LabelSelectorHasInvalidLabelValue(old.NodeTopology),
	}, field.NewPath("nodeTopology"))...)
	errs = append(errs, validateCapacity(c)...)
	errs = append(errs, rules.Immutable(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))...)
	return append(errs, rules.Immutable(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
}

func validateCapacity(c *storagev1.CSIStorageCapacity) field.ErrorList {
	errs := rules.Messages(field.NewPath("storageClassName"), c.StorageClassName, apivalidation.NameIsDNSSubdomain(c.StorageClassName, false))
	// The original does not look at maximumVolumeSize.
	if c.Capacity != nil && c.Capacity.Sign() < 0 {
		errs = append(errs, field.Invalid(field.NewPath("capacity"), c.Capacity.String(), apivalidation.IsNegativeErrorMsg))
	}
	return errs
}

// WarningsCSIStorageCapacity are what the author of a CSIStorageCapacity should know. old is nil on creation.
func WarningsCSIStorageCapacity(c, _ *storagev1.CSIStorageCapacity) []string {
	return rules.NodeSelectorWarnings(c.NodeTopology, field.NewPath("nodeTopology"))
}

// WarningsCSIDriver are what the author of a CSIDriver should know. old is nil on creation.
func WarningsCSIDriver(d, old *storagev1.CSIDriver) []string {
	changed := old == nil || !equality.Semantic.DeepEqual(d.Spec.TokenRequests, old.Spec.TokenRequests)
	if changed && len(d.Spec.TokenRequests) > 0 && d.Spec.ServiceAccountTokenInSecrets == nil {
		return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
	}
	return nil
}
