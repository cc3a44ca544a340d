// Package review answers authorization.k8s.io: may somebody, may I, do this; and
// what may I do.
package review

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/leme-k8s/leme/pkg/api/authorization"
)

// Storage returns the resources of authorization.k8s.io/v1, answered by the
// server's whole authorizer and by what is known of its rules.
func Storage(a authorizer.UnconditionalAuthorizer, rules authorizer.RuleResolver) map[string]rest.Storage {
	return map[string]rest.Storage{
		"subjectaccessreviews": &storage{
			singular: "subjectaccessreview",
			empty:    func() runtime.Object { return &authorizationv1.SubjectAccessReview{} },
			answer:   func(ctx context.Context, obj runtime.Object) error { return subject(ctx, a, obj) },
		},
		"localsubjectaccessreviews": &storage{
			singular: "localsubjectaccessreview", namespaced: true,
			empty:  func() runtime.Object { return &authorizationv1.LocalSubjectAccessReview{} },
			answer: func(ctx context.Context, obj runtime.Object) error { return local(ctx, a, obj) },
		},
		"selfsubjectaccessreviews": &storage{
			singular: "selfsubjectaccessreview",
			empty:    func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} },
			answer:   func(ctx context.Context, obj runtime.Object) error { return self(ctx, a, obj) },
		},
		"selfsubjectrulesreviews": &storage{
			singular: "selfsubjectrulesreview",
			empty:    func() runtime.Object { return &authorizationv1.SelfSubjectRulesReview{} },
			answer:   func(ctx context.Context, obj runtime.Object) error { return selfRules(ctx, rules, obj) },
		},
	}
}

// storage is a kind of review: its creation is a question, and stores nothing.
type storage struct {
	singular   string
	namespaced bool
	empty      func() runtime.Object
	// answer checks the question and writes the answer into it.
	answer func(ctx context.Context, obj runtime.Object) error
}

var (
	_ rest.Creater              = &storage{}
	_ rest.Scoper               = &storage{}
	_ rest.SingularNameProvider = &storage{}
)

func (s *storage) New() runtime.Object     { return s.empty() }
func (s *storage) Destroy()                {}
func (s *storage) NamespaceScoped() bool   { return s.namespaced }
func (s *storage) GetSingularName() string { return s.singular }

func (s *storage) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	out := obj.DeepCopyObject()
	if err := s.answer(ctx, out); err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func subject(ctx context.Context, a authorizer.UnconditionalAuthorizer, obj runtime.Object) error {
	r, ok := obj.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("not a SubjectAccessReview: %T", obj))
	}
	if errs := authorization.ValidateSubjectAccessReview(r); len(errs) > 0 {
		return invalid(errs)
	}
	r.Status = ask(ctx, a, attributes(specUser(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
	return nil
}

func local(ctx context.Context, a authorizer.UnconditionalAuthorizer, obj runtime.Object) error {
	r, ok := obj.(*authorizationv1.LocalSubjectAccessReview)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("not a LocalSubjectAccessReview: %T", obj))
	}
	if errs := authorization.ValidateLocalSubjectAccessReview(r); len(errs) > 0 {
		return invalid(errs)
	}
	namespace := genericrequest.NamespaceValue(ctx)
	if namespace == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("namespace is required on this type: %v", namespace))
	}
	if namespace != r.Namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("spec.resourceAttributes.namespace must match namespace: %v", namespace))
	}
	r.Status = ask(ctx, a, attributes(specUser(&r.Spec), r.Spec.ResourceAttributes, nil))
	return nil
}

func self(ctx context.Context, a authorizer.UnconditionalAuthorizer, obj runtime.Object) error {
	r, ok := obj.(*authorizationv1.SelfSubjectAccessReview)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectAccessReview: %T", obj))
	}
	if errs := authorization.ValidateSelfSubjectAccessReview(r); len(errs) > 0 {
		return invalid(errs)
	}
	u, ok := genericrequest.UserFrom(ctx)
	if !ok {
		return apierrors.NewBadRequest("no user present on request")
	}
	r.Status = ask(ctx, a, attributes(u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
	return nil
}

func selfRules(ctx context.Context, rules authorizer.RuleResolver, obj runtime.Object) error {
	r, ok := obj.(*authorizationv1.SelfSubjectRulesReview)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectRulesReview: %T", obj))
	}
	u, ok := genericrequest.UserFrom(ctx)
	if !ok {
		return apierrors.NewBadRequest("no user present on request")
	}
	if r.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	resources, paths, incomplete, err := rules.RulesFor(ctx, u, r.Spec.Namespace)
	// The answer does not repeat the question.
	*r = authorizationv1.SelfSubjectRulesReview{Status: authorizationv1.SubjectRulesReviewStatus{
		ResourceRules:    []authorizationv1.ResourceRule{},
		NonResourceRules: []authorizationv1.NonResourceRule{},
		Incomplete:       incomplete,
	}}
	if err != nil {
		r.Status.EvaluationError = err.Error()
	}
	for _, rule := range resources {
		r.Status.ResourceRules = append(r.Status.ResourceRules, authorizationv1.ResourceRule{
			Verbs: rule.GetVerbs(), APIGroups: rule.GetAPIGroups(), Resources: rule.GetResources(), ResourceNames: rule.GetResourceNames(),
		})
	}
	for _, rule := range paths {
		r.Status.NonResourceRules = append(r.Status.NonResourceRules, authorizationv1.NonResourceRule{
			Verbs: rule.GetVerbs(), NonResourceURLs: rule.GetNonResourceURLs(),
		})
	}
	return nil
}

// invalid says what is wrong with a review. The original names the group alone here,
// without a kind, and clients may compare.
func invalid(errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName}, "", errs)
}

func ask(ctx context.Context, a authorizer.UnconditionalAuthorizer, attributes authorizer.AttributesRecord) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := a.Authorize(ctx, attributes)
	status := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow,
		Denied:  decision == authorizer.DecisionDeny,
		Reason:  reason,
	}
	var problems []string
	if err != nil {
		problems = append(problems, err.Error())
	}
	if attributes.FieldSelectorParsingErr != nil {
		problems = append(problems, "spec.resourceAttributes.fieldSelector ignored due to parse error")
	}
	if attributes.LabelSelectorParsingErr != nil {
		problems = append(problems, "spec.resourceAttributes.labelSelector ignored due to parse error")
	}
	status.EvaluationError = strings.Join(problems, "; ")
	return status
}

func specUser(s *authorizationv1.SubjectAccessReviewSpec) user.Info {
	u := &user.DefaultInfo{Name: s.User, Groups: s.Groups, UID: s.UID}
	for k, v := range s.Extra {
		if u.Extra == nil {
			u.Extra = map[string][]string{}
		}
		u.Extra[k] = v
	}
	return u
}
