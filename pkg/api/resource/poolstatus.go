package resource

import (
	"context"
	"slices"

	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// How much a ResourcePoolStatusRequest is answered with at most.
const (
	maxReportedPools      = 1000
	maxPoolConditions     = 10
	maxPoolErrorBytes     = 256
	maxPoolPartitionTypes = 32
	maxPoolCapacities     = 32
)

func setPoolStatusRequest(r *resourcev1alpha3.ResourcePoolStatusRequest) {
	if r.Spec.Limit == nil {
		r.Spec.Limit = new(resourcev1alpha3.ResourcePoolStatusRequestLimitDefault)
	}
}

// DropDisabledPoolRequestFields clears what is asked for that belongs to features which
// are off (types of partitions), unless the stored request asks for it already. old is nil
// on creation.
func DropDisabledPoolRequestFields(spec, old *resourcev1alpha3.ResourcePoolStatusRequestSpec) {
	if old == nil || old.DefaultPartitionTypeAttribute == nil {
		spec.DefaultPartitionTypeAttribute = nil
	}
}

// ValidateResourcePoolStatusRequest says what is wrong with a new ResourcePoolStatusRequest.
func ValidateResourcePoolStatusRequest(r *resourcev1alpha3.ResourcePoolStatusRequest) field.ErrorList {
	errs := core.ValidateObjectMeta(&r.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, metaPath)
	errs = append(errs, requiredDriver(r.Spec.Driver, specPath.Child("driver"))...)
	if r.Spec.PoolName != nil {
		errs = append(errs, published(validate.ResourcePoolName, *r.Spec.PoolName, specPath.Child("poolName"))...)
	}
	limit := specPath.Child("limit")
	errs = append(errs, atMost(*r.Spec.Limit, resourcev1alpha3.ResourcePoolStatusRequestLimitMax, limit)...)
	return append(errs, atLeast(*r.Spec.Limit, 1, limit)...)
}

// ValidateResourcePoolStatusRequestUpdate says what is wrong with an update of a
// ResourcePoolStatusRequest: what is asked for stays.
func ValidateResourcePoolStatusRequestUpdate(r, old *resourcev1alpha3.ResourcePoolStatusRequest) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metaPath)
	if !equality.Semantic.DeepEqual(r.Spec, old.Spec) {
		errs = append(errs, field.Invalid(specPath, nil, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}

// ValidateResourcePoolStatusRequestStatusUpdate says what is wrong with an update of the
// status of a ResourcePoolStatusRequest: it is answered once.
func ValidateResourcePoolStatusRequestStatusUpdate(r, old *resourcev1alpha3.ResourcePoolStatusRequest) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metaPath)
	switch {
	case old.Status != nil:
		return append(errs, rules.Immutable(r.Status, old.Status, statusPath)...)
	case r.Status == nil:
		return errs
	}
	errs = append(errs, countAt(r.Status.PoolCount, statusPath.Child("poolCount"))...)
	errs = append(errs, bounded(r.Status.Pools, maxReportedPools, statusPath.Child("pools"), validatePoolStatus)...)
	conditions := statusPath.Child("conditions")
	if len(r.Status.Conditions) > maxPoolConditions {
		errs = append(errs, field.TooMany(conditions, len(r.Status.Conditions), maxPoolConditions).WithOrigin("maxItems"))
	}
	return append(errs, metavalidation.ValidateConditions(r.Status.Conditions, conditions)...)
}

func validatePoolStatus(s resourcev1alpha3.PoolStatus, p *field.Path) field.ErrorList {
	errs := requiredDriver(s.Driver, p.Child("driver"))
	if s.PoolName == "" {
		errs = append(errs, field.Required(p.Child("poolName"), ""))
	} else {
		errs = append(errs, published(validate.ResourcePoolName, s.PoolName, p.Child("poolName"))...)
	}
	if s.Generation == 0 { // a required number is never zero
		errs = append(errs, field.Required(p.Child("generation"), ""))
	}
	errs = append(errs, atLeast(s.Generation, 0, p.Child("generation"))...)
	if s.ResourceSliceCount != nil {
		errs = append(errs, atLeast(*s.ResourceSliceCount, 1, p.Child("resourceSliceCount"))...)
	}
	for _, n := range []struct {
		name  string
		value *int32
	}{
		{"totalDevices", s.TotalDevices},
		{"allocatedDevices", s.AllocatedDevices},
		{"availableDevices", s.AvailableDevices},
		{"unavailableDevices", s.UnavailableDevices},
	} {
		if n.value != nil {
			errs = append(errs, atLeast(*n.value, 0, p.Child(n.name))...)
		}
	}
	if s.NodeName != nil {
		errs = append(errs, rules.Messages(p.Child("nodeName"), *s.NodeName, validation.IsDNS1123Subdomain(*s.NodeName))...)
	}
	if s.ValidationError != nil && len(*s.ValidationError) > maxPoolErrorBytes {
		errs = append(errs, field.TooLong(p.Child("validationError"), "" /*unused*/, maxPoolErrorBytes))
	}
	partitions := p.Child("partitionSummary")
	errs = append(errs, bounded(s.PartitionSummary, maxPoolPartitionTypes, partitions, validatePartitionType)...)
	for i, t := range s.PartitionSummary[:min(len(s.PartitionSummary), maxPoolPartitionTypes)] {
		same := func(o resourcev1alpha3.PartitionTypeStatus) bool {
			return o.Attribute == t.Attribute && o.Type == t.Type
		}
		if slices.ContainsFunc(s.PartitionSummary[:i], same) {
			errs = append(errs, field.Duplicate(partitions.Index(i), t))
		}
	}
	if s.ShareableSummary != nil {
		errs = append(errs, validateShareable(s.ShareableSummary, p.Child("shareableSummary"))...)
	}
	return errs
}

func validatePartitionType(t resourcev1alpha3.PartitionTypeStatus, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Attribute == "" {
		errs = append(errs, field.Required(p.Child("attribute"), ""))
	}
	if t.Type == "" {
		errs = append(errs, field.Required(p.Child("type"), ""))
	}
	errs = append(errs, countAt(t.Total, p.Child("total"))...)
	return append(errs, countAt(t.Allocatable, p.Child("allocatable"))...)
}

func validateShareable(s *resourcev1alpha3.ShareableSummaryStatus, p *field.Path) field.ErrorList {
	errs := countAt(s.FullyAvailableDevices, p.Child("fullyAvailableDevices"))
	errs = append(errs, countAt(s.PartiallyAvailableDevices, p.Child("partiallyAvailableDevices"))...)
	return append(errs, bounded(s.Capacity, maxPoolCapacities, p.Child("capacity"), func(c resourcev1alpha3.ShareableCapacityStatus, p *field.Path) field.ErrorList {
		var errs field.ErrorList
		for _, part := range []struct {
			name string
			has  bool
		}{{"name", c.Name != ""}, {"total", c.Total != nil}, {"consumed", c.Consumed != nil}, {"available", c.Available != nil}} {
			if !part.has {
				errs = append(errs, field.Required(p.Child(part.name), ""))
			}
		}
		return errs
	})...)
}

// requiredDriver checks the name of a driver by the declared rules, which allow longer
// ones than validateDriverName.
func requiredDriver(name string, p *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	return published(validate.LongNameCaseless, name, p)
}

// countAt is a number that must be there, and cannot be negative.
func countAt(n *int32, p *field.Path) field.ErrorList {
	if n == nil {
		return field.ErrorList{field.Required(p, "")}
	}
	return atLeast(*n, 0, p)
}

func atLeast[T int32 | int64](n, least T, p *field.Path) field.ErrorList {
	return validate.Minimum(context.Background(), operation.Operation{}, p, &n, nil, least)
}

func atMost[T int32 | int64](n, most T, p *field.Path) field.ErrorList {
	return validate.Maximum(context.Background(), operation.Operation{}, p, &n, nil, most)
}

// published checks a text by a rule that is published with the library.
func published(rule func(context.Context, operation.Operation, *field.Path, *string, *string) field.ErrorList, text string, p *field.Path) field.ErrorList {
	return rule(context.Background(), operation.Operation{}, p, &text, nil)
}
