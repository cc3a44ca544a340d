package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func AddDefaults(scheme *runtime.Scheme) error { return nil }

func AddFieldLabels(scheme *runtime.Scheme) error { return nil }

func ValidateSubjectAccessReview(obj *authorizationv1.SubjectAccessReview) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&obj.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}

func ValidateSelfSubjectAccessReview(obj *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&obj.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}

func ValidateLocalSubjectAccessReview(obj *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&obj.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}

func ValidateSelfSubjectRulesReview(obj *authorizationv1.SelfSubjectRulesReview) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&obj.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}
