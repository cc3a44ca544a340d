package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func AddDefaults(scheme *runtime.Scheme) error { return nil }

func AddFieldLabels(scheme *runtime.Scheme) error { return nil }

func ValidateTokenReview(obj *authenticationv1.TokenReview) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&obj.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}

func ValidateTokenRequest(obj *authenticationv1.TokenRequest) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&obj.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}

func ValidateSelfSubjectReview(obj *authenticationv1.SelfSubjectReview) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&obj.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
}
