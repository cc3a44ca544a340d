package serviceaccount

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	apiserverserviceaccount "k8s.io/apiserver/pkg/authentication/serviceaccount"
	tokenjwt "k8s.io/apiserver/pkg/authentication/token/jwt"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/authentication"
)

var tokenRequestKind = authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")

// TokenREST is the serviceaccounts/token subresource: each creation returns a new
// token and stores nothing.
type TokenREST struct {
	issuer    *Issuer
	audiences authenticator.Audiences
	max       time.Duration
	extend    bool
	extension time.Duration
	objects   Storage
	now       func() time.Time
}

var (
	_ rest.NamedCreater                   = &TokenREST{}
	_ rest.GroupVersionKindProvider       = &TokenREST{}
	_ rest.SubresourceObjectMetaPreserver = &TokenREST{}
)

// Storage holds the registries that a token's subject and bound objects are read from.
type Storage struct {
	ServiceAccounts, Pods, Secrets, Nodes rest.Getter
}

// TokenOptions say how long tokens live.
type TokenOptions struct {
	// MaxExpiration caps what clients ask for; 0 does not.
	MaxExpiration time.Duration
	// Extend gives the tokens of injected volumes a year, and reports those that
	// are used beyond the hour they were asked for.
	Extend bool
	// MaxExtension is how long such tokens live if it is less than that; 0 is a year.
	MaxExtension time.Duration
}

// NewTokenREST returns the subresource. audiences are the API server's own: the
// default of a token that asks for none.
func NewTokenREST(issuer *Issuer, audiences authenticator.Audiences, o TokenOptions, objects Storage) *TokenREST {
	extension := extendedExpiration
	if o.MaxExtension > 0 {
		extension = min(extension, o.MaxExtension)
	}
	return &TokenREST{issuer: issuer, audiences: audiences, max: o.MaxExpiration, extend: o.Extend, extension: extension, objects: objects, now: time.Now}
}

// New returns an empty TokenRequest.
func (r *TokenREST) New() runtime.Object { return &authenticationv1.TokenRequest{} }

// Destroy has nothing to release.
func (r *TokenREST) Destroy() {}

// GroupVersionKind tells that the subresource's kind is of another group than its resource.
func (r *TokenREST) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return tokenRequestKind
}

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate keeps what the client says of the ServiceAccount, as its UID.
func (r *TokenREST) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// Create issues a token for the named ServiceAccount.
func (r *TokenREST) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	in, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("expected a TokenRequest, got %T", obj))
	}
	namespace := genericrequest.NamespaceValue(ctx)
	req := in.DeepCopy()
	switch {
	case req.Name == "":
		req.Name = name
	case req.Name != name:
		return nil, apierrors.NewInvalid(tokenRequestKind.GroupKind(), name, field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), req.Name, "must match the service account name if specified")})
	}
	switch {
	case req.Namespace == "":
		req.Namespace = namespace
	case req.Namespace != namespace:
		return nil, apierrors.NewInvalid(tokenRequestKind.GroupKind(), name, field.ErrorList{field.Invalid(field.NewPath("metadata", "namespace"), req.Namespace, "must match the service account namespace if specified")})
	}

	sa, err := get[*corev1.ServiceAccount](ctx, r.objects.ServiceAccounts, "serviceaccounts", name)
	if err != nil {
		return nil, err
	}
	// A client that knows the account's UID is told if it is another one by now.
	if req.UID != "" && req.UID != sa.UID {
		return nil, apierrors.NewConflict(schema.GroupResource{Group: tokenRequestKind.Group, Resource: tokenRequestKind.Kind}, name, fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", req.UID, sa.UID))
	}
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = r.audiences
	}
	if req.Spec.ExpirationSeconds == nil {
		req.Spec.ExpirationSeconds = ptr.To[int64](60 * 60)
	}
	if errs := authentication.ValidateTokenRequest(req); len(errs) > 0 {
		return nil, apierrors.NewInvalid(tokenRequestKind.GroupKind(), "", errs)
	}
	if validate != nil {
		if err := validate(ctx, req.DeepCopy()); err != nil {
			return nil, err
		}
	}

	var b binding
	if ref := req.Spec.BoundObjectRef; ref != nil {
		if b, err = r.bind(ctx, sa, ref); err != nil {
			return nil, err
		}
	}
	if limit := int64(r.max.Seconds()); limit > 0 && *req.Spec.ExpirationSeconds > limit {
		warning.AddWarning(ctx, "", fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", *req.Spec.ExpirationSeconds, limit))
		req.Spec.ExpirationSeconds = &limit
	}

	now := r.now()
	asked := time.Duration(*req.Spec.ExpirationSeconds) * time.Second
	validity, warnAfter := asked, time.Duration(0)
	if r.extend && *req.Spec.ExpirationSeconds == kubeletExpirationSeconds && b.pod != nil && r.ours(req.Spec.Audiences) {
		validity, warnAfter = r.extension, asked
	}
	c := newClaims(sa, b, req.Spec.Audiences, now, validity, warnAfter)
	token, err := r.issuer.issue(ctx, c)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to sign token: %w", err))
	}
	// The client is told the time that it asked for, so that it asks again then.
	req.UID, req.CreationTimestamp = sa.UID, metav1.NewTime(now)
	req.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(now.Add(asked))}
	audit.AddAuditAnnotation(ctx, apiserverserviceaccount.IssuedCredentialIDAuditAnnotationKey, tokenjwt.CredentialIDForJTI(c.ID))
	return req, nil
}

// ours tells whether all audiences are the API server's own.
func (r *TokenREST) ours(audiences []string) bool {
	return len(r.audiences.Intersect(audiences)) == len(audiences)
}

// bind finds the object that the token's life is to hang on.
func (r *TokenREST) bind(ctx context.Context, sa *corev1.ServiceAccount, ref *authenticationv1.BoundObjectReference) (b binding, err error) {
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	var uid types.UID
	switch {
	case kind.Group == "" && kind.Kind == "Pod":
		if b.pod, err = get[*corev1.Pod](ctx, r.objects.Pods, "pods", ref.Name); err != nil {
			return binding{}, err
		}
		if b.pod.Spec.ServiceAccountName != sa.Name {
			return binding{}, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sa.Name))
		}
		uid = b.pod.UID
		if node := b.pod.Spec.NodeName; node != "" {
			b.node, err = get[*corev1.Node](ctx, r.objects.Nodes, "nodes", node)
			if apierrors.IsNotFound(err) {
				// The pod decides over the token: a node that is not there is named without a UID.
				b.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
			} else if err != nil {
				return binding{}, err
			}
		}
	case kind.Group == "" && kind.Kind == "Node":
		if b.node, err = get[*corev1.Node](ctx, r.objects.Nodes, "nodes", ref.Name); err != nil {
			return binding{}, err
		}
		uid = b.node.UID
	case kind.Group == "" && kind.Kind == "Secret":
		if b.secret, err = get[*corev1.Secret](ctx, r.objects.Secrets, "secrets", ref.Name); err != nil {
			return binding{}, err
		}
		uid = b.secret.UID
	default:
		return binding{}, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", kind))
	}
	if ref.UID != "" && ref.UID != uid {
		return binding{}, apierrors.NewConflict(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, ref.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return b, nil
}

// get reads an object of a resource, whose name errors then have.
func get[T runtime.Object](ctx context.Context, from rest.Getter, resource, name string) (T, error) {
	var none T
	ctx = genericrequest.WithRequestInfo(ctx, &genericrequest.RequestInfo{
		IsResourceRequest: true, Verb: "get", APIVersion: "v1", Namespace: genericrequest.NamespaceValue(ctx), Resource: resource, Name: name,
	})
	o, err := from.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return none, err
	}
	t, ok := o.(T)
	if !ok {
		return none, apierrors.NewInternalError(fmt.Errorf("expected a %T, got %T", none, o))
	}
	return t, nil
}
