package authorization

import (
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestSubjectAccessReview(t *testing.T) {
	apitest.Run(t, "testdata/subjectaccessreview.txtar", apitest.Kind[authorizationv1.SubjectAccessReview, *authorizationv1.SubjectAccessReview]{
		Path:   "/apis/authorization.k8s.io/v1/subjectaccessreviews",
		Create: ValidateSubjectAccessReview,
	})
}

func TestSelfSubjectAccessReview(t *testing.T) {
	apitest.Run(t, "testdata/selfsubjectaccessreview.txtar", apitest.Kind[authorizationv1.SelfSubjectAccessReview, *authorizationv1.SelfSubjectAccessReview]{
		Path:   "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
		Create: ValidateSelfSubjectAccessReview,
	})
}

func TestLocalSubjectAccessReview(t *testing.T) {
	apitest.Run(t, "testdata/localsubjectaccessreview.txtar", apitest.Kind[authorizationv1.LocalSubjectAccessReview, *authorizationv1.LocalSubjectAccessReview]{
		Path:   "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews",
		Create: ValidateLocalSubjectAccessReview,
	})
}
