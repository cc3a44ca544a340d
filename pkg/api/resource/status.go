package resource

import (
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/dynamic-resource-allocation/structured/schedulerapi"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// ValidateResourceClaimStatusUpdate says what is wrong with an update of the status of
// a ResourceClaim: an allocation comes and goes whole.
func ValidateResourceClaimStatusUpdate(c, old *resourcev1.ResourceClaim) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metaPath)
	errs = append(errs, validateReservations(c, old, statusPath.Child("reservedFor"))...)
	allocated := Allocated(c.Status.Allocation)
	for i := range c.Status.Devices {
		errs = append(errs, validateDeviceStatus(&c.Status.Devices[i], allocated, statusPath.Child("devices").Index(i))...)
	}
	if c.Status.Allocation != nil && old.Status.Allocation == nil {
		errs = append(errs, validateAllocation(c.Status.Allocation, namesOf(&c.Spec.Devices), statusPath.Child("allocation"))...)
	}
	return append(errs, rules.Declared(resourcev1.Validate_ResourceClaimStatus, statusPath, &c.Status, &old.Status, nil)...)
}

// Allocated are the devices, or shares of devices, that a claim got.
func Allocated(a *resourcev1.AllocationResult) map[schedulerapi.SharedDeviceID]bool {
	if a == nil {
		return nil
	}
	devices := map[schedulerapi.SharedDeviceID]bool{}
	for _, r := range a.Devices.Results {
		devices[schedulerapi.MakeSharedDeviceID(schedulerapi.MakeDeviceID(r.Driver, r.Pool, r.Device), r.ShareID)] = true
	}
	return devices
}

// ReportedDevice is the device, or the share of a device, that a status is about.
func ReportedDevice(d *resourcev1.AllocatedDeviceStatus) schedulerapi.SharedDeviceID {
	return schedulerapi.MakeSharedDeviceID(schedulerapi.MakeDeviceID(d.Driver, d.Pool, d.Device), (*types.UID)(d.ShareID))
}

func validateReservations(c, old *resourcev1.ResourceClaim, p *field.Path) field.ErrorList {
	reserved := c.Status.ReservedFor
	errs := each(reserved, resourcev1.ResourceClaimReservedForMaxSize, p, func(r resourcev1.ResourceClaimConsumerReference, p *field.Path) field.ErrorList {
		var errs field.ErrorList
		for _, f := range [][2]string{{"resource", r.Resource}, {"name", r.Name}, {"uid", string(r.UID)}} {
			if f[1] == "" {
				errs = append(errs, field.Required(p.Child(f[0]), ""))
			}
		}
		return errs
	})
	isNew := func(r resourcev1.ResourceClaimConsumerReference) bool {
		return !slices.Contains(old.Status.ReservedFor, r)
	}
	switch {
	case len(reserved) > 0 && c.Status.Allocation == nil:
		errs = append(errs, field.Forbidden(p, "may not be specified when `allocated` is not set"))
	case c.DeletionTimestamp != nil && slices.ContainsFunc(reserved, isNew):
		errs = append(errs, field.Forbidden(p, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
	}
	return errs
}

func validateDeviceStatus(d *resourcev1.AllocatedDeviceStatus, allocated map[schedulerapi.SharedDeviceID]bool, p *field.Path) field.ErrorList {
	errs := rules.DriverName(d.Driver, p.Child("driver"))
	errs = append(errs, validatePoolName(d.Pool, p.Child("pool"))...)
	errs = append(errs, validateLabel(d.Device, p.Child("device"))...)
	if id := ReportedDevice(d); !allocated[id] {
		errs = append(errs, field.Invalid(p, id, "must be an allocated device in the claim"))
	}
	errs = append(errs, validateConditions(d.Conditions, resourcev1.AllocatedDeviceStatusMaxConditions, p.Child("conditions"))...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, validateObject(*d.Data, p.Child("data"), resourcev1.AllocatedDeviceStatusDataMaxLength, false)...)
	}
	if n := d.NetworkData; n != nil {
		errs = append(errs, each(n.IPs, resourcev1.NetworkDeviceDataMaxIPs, p.Child("networkData", "ips"), func(ip string, p *field.Path) field.ErrorList {
			return validation.IsValidInterfaceAddress(p, ip)
		})...)
	}
	return errs
}

func validateAllocation(a *resourcev1.AllocationResult, names requestNames, p *field.Path) field.ErrorList {
	devices := p.Child("devices")
	errs := each(a.Devices.Results, resourcev1.AllocationResultsMaxSize, devices.Child("results"), func(r resourcev1.DeviceRequestAllocationResult, p *field.Path) field.ErrorList {
		errs := names.validateRef(r.Request, p.Child("request"))
		errs = append(errs, validateLabel(r.Device, p.Child("device"))...)
		errs = append(errs, validateBindingConditions(r.BindingConditions, r.BindingFailureConditions, p)...)
		return append(errs, validateTolerations(r.Tolerations, p.Child("tolerations"))...)
	})
	// Both the class and the claim configure.
	errs = append(errs, each(a.Devices.Config, 2*resourcev1.DeviceConfigMaxSize, devices.Child("config"), func(c resourcev1.DeviceAllocationConfiguration, p *field.Path) field.ErrorList {
		return append(names.validateRefs(c.Requests, p.Child("requests")), validateConfiguration(&c.DeviceConfiguration, p, false)...)
	})...)
	if a.NodeSelector != nil {
		errs = append(errs, core.ValidateNodeSelector(a.NodeSelector, p.Child("nodeSelector"))...)
	}
	return errs
}

// validateConditions checks the conditions of a status and how many they are.
func validateConditions(conditions []metav1.Condition, most int, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(conditions) > most {
		errs = append(errs, field.TooMany(p, len(conditions), most))
	}
	return append(errs, metavalidation.ValidateConditions(conditions, p)...)
}
