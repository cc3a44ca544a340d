// Package review answers authentication.k8s.io: who is the bearer of a token, and
// who am I.
package review

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/klog/v2"
)

// Storage returns the resources of authentication.k8s.io/v1. a must be the
// server's whole authenticator, and audiences the server's own names.
func Storage(a authenticator.Request, audiences authenticator.Audiences) map[string]rest.Storage {
	return map[string]rest.Storage{
		"tokenreviews":       &tokenReviews{authenticator: a, audiences: audiences},
		"selfsubjectreviews": &selfSubjectReviews{},
	}
}

type tokenReviews struct {
	authenticator authenticator.Request
	audiences     authenticator.Audiences
}

var (
	_ rest.Creater              = &tokenReviews{}
	_ rest.Scoper               = &tokenReviews{}
	_ rest.SingularNameProvider = &tokenReviews{}
)

func (*tokenReviews) New() runtime.Object     { return &authenticationv1.TokenReview{} }
func (*tokenReviews) Destroy()                {}
func (*tokenReviews) NamespaceScoped() bool   { return false }
func (*tokenReviews) GetSingularName() string { return "tokenreview" }

func (r *tokenReviews) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	review, ok := obj.(*authenticationv1.TokenReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenReview: %T", obj))
	}
	if ns := genericrequest.NamespaceValue(ctx); ns != metav1.NamespaceNone {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace is not allowed on this type: %v", ns))
	}
	if review.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}

	audiences := authenticator.Audiences(review.Spec.Audiences)
	if len(audiences) == 0 {
		audiences = r.audiences
	}
	// The token goes the way of a request's: nothing can be valid here that is not there.
	probe, err := http.NewRequestWithContext(authenticator.WithAudiences(ctx, audiences), http.MethodGet, "/", nil)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	probe.Header.Set("Authorization", "Bearer "+review.Spec.Token)
	response, ok, err := r.authenticator.AuthenticateRequest(probe)
	review.Status.Authenticated = ok
	if err != nil {
		review.Status.Authenticated = false
		review.Status.Error = err.Error()
		return review, nil
	}
	if !ok || response == nil {
		review.Status.Authenticated = false
		return review, nil
	}
	if len(audiences) > 0 && response.Audiences != nil && len(audiences.Intersect(response.Audiences)) == 0 {
		klog.FromContext(ctx).Error(errors.New("an authenticator accepted a token for the wrong audience"), "Reviewing a token", "asked", audiences, "authenticated", response.Audiences)
		return nil, apierrors.NewInternalError(errors.New("token validated for the wrong audience"))
	}
	review.Status.User = userInfo(response.User)
	review.Status.Audiences = response.Audiences
	return review, nil
}

type selfSubjectReviews struct{}

var (
	_ rest.Creater              = &selfSubjectReviews{}
	_ rest.Scoper               = &selfSubjectReviews{}
	_ rest.SingularNameProvider = &selfSubjectReviews{}
)

func (*selfSubjectReviews) New() runtime.Object     { return &authenticationv1.SelfSubjectReview{} }
func (*selfSubjectReviews) Destroy()                {}
func (*selfSubjectReviews) NamespaceScoped() bool   { return false }
func (*selfSubjectReviews) GetSingularName() string { return "selfsubjectreview" }

func (*selfSubjectReviews) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if _, ok := obj.(*authenticationv1.SelfSubjectReview); !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectReview: %T", obj))
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	u, ok := genericrequest.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	return &authenticationv1.SelfSubjectReview{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Now()},
		Status:     authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(u)},
	}, nil
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[k] = v
	}
	return info
}
