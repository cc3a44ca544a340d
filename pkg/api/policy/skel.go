package policy

import (
	policyv1 "k8s.io/api/policy/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func AddDefaults(scheme *runtime.Scheme) error { return nil }

func AddFieldLabels(scheme *runtime.Scheme) error { return nil }

func ValidatePodDisruptionBudget(obj *policyv1.PodDisruptionBudget) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&obj.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}

func ValidatePodDisruptionBudgetUpdate(obj, old *policyv1.PodDisruptionBudget) field.ErrorList {
	return apivalidation.ValidateObjectMetaUpdate(&obj.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
}

func ValidatePodDisruptionBudgetStatusUpdate(obj, old *policyv1.PodDisruptionBudget) field.ErrorList {
	return apivalidation.ValidateObjectMetaUpdate(&obj.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
}
