package review

import (
	"context"
	"errors"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// only ann may get pods in "a"; paths that end in "broken" cannot be decided.
var ann = authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch {
	case a.GetPath() == "/broken":
		return authorizer.DecisionNoOpinion, "", errors.New("broken")
	case a.GetUser().GetName() == "ann" && a.GetVerb() == "get" && a.GetResource() == "pods" && a.GetNamespace() == "a":
		return authorizer.DecisionAllow, "she is ann", nil
	case a.GetUser().GetName() == "eve":
		return authorizer.DecisionDeny, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
})

func TestAccessReviews(t *testing.T) {
	pods := &authorizationv1.ResourceAttributes{Namespace: "a", Verb: "get", Resource: "pods"}
	sar := func(spec authorizationv1.SubjectAccessReviewSpec) *authorizationv1.SubjectAccessReview {
		return &authorizationv1.SubjectAccessReview{Spec: spec}
	}
	local := func(namespace string, spec authorizationv1.SubjectAccessReviewSpec) *authorizationv1.LocalSubjectAccessReview {
		return &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: spec}
	}
	twoValues := &authorizationv1.ResourceAttributes{Verb: "list", Resource: "pods", FieldSelector: &authorizationv1.FieldSelectorAttributes{
		Requirements: []metav1.FieldSelectorRequirement{{Key: "x", Operator: metav1.FieldSelectorOpIn, Values: []string{"1", "2"}}}}}
	named := sar(authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: pods})
	named.Name = "x"

	for name, test := range map[string]struct {
		resource string
		obj      runtime.Object
		want     authorizationv1.SubjectAccessReviewStatus
		refused  string
	}{
		"allowed":            {"subjectaccessreviews", sar(authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: pods}), authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "she is ann"}, ""},
		"no opinion":         {"subjectaccessreviews", sar(authorizationv1.SubjectAccessReviewSpec{User: "bob", ResourceAttributes: pods}), authorizationv1.SubjectAccessReviewStatus{}, ""},
		"denied":             {"subjectaccessreviews", sar(authorizationv1.SubjectAccessReviewSpec{User: "eve", ResourceAttributes: pods}), authorizationv1.SubjectAccessReviewStatus{Denied: true}, ""},
		"error":              {"subjectaccessreviews", sar(authorizationv1.SubjectAccessReviewSpec{User: "bob", NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/broken"}}), authorizationv1.SubjectAccessReviewStatus{EvaluationError: "broken"}, ""},
		"selector not known": {"subjectaccessreviews", sar(authorizationv1.SubjectAccessReviewSpec{User: "bob", ResourceAttributes: twoValues}), authorizationv1.SubjectAccessReviewStatus{EvaluationError: "spec.resourceAttributes.fieldSelector ignored due to parse error"}, ""},
		"nothing asked":      {"subjectaccessreviews", sar(authorizationv1.SubjectAccessReviewSpec{User: "ann"}), authorizationv1.SubjectAccessReviewStatus{}, "spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"},
		"nobody asked about": {"subjectaccessreviews", sar(authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: pods}), authorizationv1.SubjectAccessReviewStatus{}, `spec.user: Invalid value: "": at least one of user or group must be specified`},
		"with a name":        {"subjectaccessreviews", named, authorizationv1.SubjectAccessReviewStatus{}, "metadata: Invalid value"},
		"of another kind":    {"subjectaccessreviews", local("a", authorizationv1.SubjectAccessReviewSpec{}), authorizationv1.SubjectAccessReviewStatus{}, "not a SubjectAccessReview"},
		"local":              {"localsubjectaccessreviews", local("a", authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: pods}), authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "she is ann"}, ""},
		"local, other place": {"localsubjectaccessreviews", local("b", authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: pods}), authorizationv1.SubjectAccessReviewStatus{}, "spec.resourceAttributes.namespace: Invalid value: \"a\": must match metadata.namespace"},
		"local, a path":      {"localsubjectaccessreviews", local("a", authorizationv1.SubjectAccessReviewSpec{User: "ann", NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/"}}), authorizationv1.SubjectAccessReviewStatus{}, "disallowed on this kind of request"},
		"of oneself":         {"selfsubjectaccessreviews", &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: pods}}, authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "she is ann"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := genericrequest.WithNamespace(genericrequest.WithUser(t.Context(), &user.DefaultInfo{Name: "ann"}), "a")
			out, err := Storage(ann, nil)[test.resource].(rest.Creater).Create(ctx, test.obj, nil, nil)
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Fatalf("got %v, want %s", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got authorizationv1.SubjectAccessReviewStatus
			switch o := out.(type) {
			case *authorizationv1.SubjectAccessReview:
				got = o.Status
			case *authorizationv1.LocalSubjectAccessReview:
				got = o.Status
			case *authorizationv1.SelfSubjectAccessReview:
				got = o.Status
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
