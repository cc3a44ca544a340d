package resource

import (
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

func setPoolStatusRequest(r *resourcev1alpha3.ResourcePoolStatusRequest) {
	rules.SetPtr(&r.Spec.Limit, resourcev1alpha3.ResourcePoolStatusRequestLimitDefault)
}

// DropDisabledPoolRequestFields clears what is asked for that belongs to features which
// are off (types of partitions), unless the stored request asks for it already. old is nil
// on creation.
func DropDisabledPoolRequestFields(r, old *resourcev1alpha3.ResourcePoolStatusRequest) {
	if old == nil || old.Spec.DefaultPartitionTypeAttribute == nil {
		r.Spec.DefaultPartitionTypeAttribute = nil
	}
}

// ValidateResourcePoolStatusRequest says what is wrong with a new ResourcePoolStatusRequest.
func ValidateResourcePoolStatusRequest(r *resourcev1alpha3.ResourcePoolStatusRequest) field.ErrorList {
	errs := core.ValidateObjectMeta(&r.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, metaPath)
	return append(errs, rules.Declared(Validate_ResourcePoolStatusRequestSpec, specPath, &r.Spec, nil, features)...)
}

// ValidateResourcePoolStatusRequestUpdate says what is wrong with an update of a
// ResourcePoolStatusRequest: what is asked for stays.
func ValidateResourcePoolStatusRequestUpdate(r, old *resourcev1alpha3.ResourcePoolStatusRequest) field.ErrorList {
	errs := core.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, metaPath)
	return append(errs, rules.Fixed(r.Spec, old.Spec, specPath)...)
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
	errs = append(errs, metavalidation.ValidateConditions(r.Status.Conditions, statusPath.Child("conditions"))...)
	return append(errs, rules.Declared(Validate_ResourcePoolStatusRequestStatus, statusPath, r.Status, nil, nil)...)
}
