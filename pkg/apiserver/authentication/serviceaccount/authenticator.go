package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gopkg.in/go-jose/go-jose.v2/jwt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	apiserverserviceaccount "k8s.io/apiserver/pkg/authentication/serviceaccount"
	tokenjwt "k8s.io/apiserver/pkg/authentication/token/jwt"
	"k8s.io/klog/v2"
)

// NewAuthenticator returns the authenticator of bound tokens that one of the
// issuers has signed for at least one of the audiences. Tokens of other issuers
// are left to other authenticators.
func NewAuthenticator(issuers []string, keys KeySource, audiences authenticator.Audiences, objects Getter) authenticator.Token {
	b := &bound{objects: objects, now: time.Now}
	return newVerifier(issuers, keys, audiences, b.user)
}

// newVerifier checks signature, issuer and audience, and leaves the claims to user.
func newVerifier(issuers []string, keys KeySource, audiences authenticator.Audiences, user userFunc) authenticator.Token {
	return authenticator.TokenFunc(func(ctx context.Context, data string) (*authenticator.Response, bool, error) {
		token, err := jwt.ParseSigned(data)
		if err != nil {
			return nil, false, nil // not a JWT
		}
		var unverified jwt.Claims
		if err := token.UnsafeClaimsWithoutVerification(&unverified); err != nil || !slices.Contains(issuers, unverified.Issuer) {
			return nil, false, nil // somebody else's
		}

		public, verified, err := verify(ctx, token, keys)
		if err != nil {
			return nil, false, err
		}
		// Legacy tokens name no audience: they are meant for the API server.
		tokenAudiences := authenticator.Audiences(public.Audience)
		if len(tokenAudiences) == 0 {
			tokenAudiences = audiences
		}
		requested, ok := authenticator.AudiencesFrom(ctx)
		if !ok {
			requested = audiences
		}
		matched := tokenAudiences.Intersect(requested)
		if len(matched) == 0 && len(audiences) > 0 {
			return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", tokenAudiences, requested)
		}

		info, err := user(ctx, data, public, verified)
		if err != nil {
			return nil, false, err
		}
		return &authenticator.Response{User: info.UserInfo(), Audiences: matched}, true, nil
	})
}

// userFunc decides who the bearer of a token is, whose signature has been
// verified. decode reads further claims from it.
type userFunc func(ctx context.Context, data string, public jwt.Claims, decode func(any) error) (*apiserverserviceaccount.ServiceAccountInfo, error)

func verify(ctx context.Context, token *jwt.JSONWebToken, keys KeySource) (public jwt.Claims, decode func(any) error, err error) {
	var id string
	if len(token.Headers) > 0 {
		id = token.Headers[0].KeyID
	}
	candidates := keys.Candidates(ctx, id)
	if len(candidates) == 0 {
		return jwt.Claims{}, nil, errors.New("invalid signature, no keys found")
	}
	var errs []error
	for _, key := range candidates {
		public = jwt.Claims{}
		if err := token.Claims(key.Key, &public); err != nil {
			errs = append(errs, err)
			continue
		}
		return public, func(into any) error { return token.Claims(key.Key, into) }, nil
	}
	return jwt.Claims{}, nil, utilerrors.NewAggregate(errs)
}

// bound checks the claims of bound tokens against the time and the live objects.
type bound struct {
	objects Getter
	now     func() time.Time
}

func (b *bound) user(ctx context.Context, _ string, public jwt.Claims, decode func(any) error) (*apiserverserviceaccount.ServiceAccountInfo, error) {
	var private privateClaims
	if err := decode(&private); err != nil {
		return nil, fmt.Errorf("reading the token's claims: %w", err)
	}
	k := private.Kubernetes
	now := b.now()

	switch err := public.Validate(jwt.Expected{Time: now}); {
	case errors.Is(err, jwt.ErrExpired):
		return nil, errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return nil, errors.New("service account token is not valid yet")
	case err != nil:
		return nil, fmt.Errorf("service account token claims could not be validated: %w", err)
	case public.Expiry == nil:
		return nil, errors.New("service account token has no expiry")
	}

	// What is being deleted keeps its tokens valid until its grace period is over,
	// and for as long as clocks may differ.
	gone := now.Add(-jwt.DefaultLeeway)
	sa, err := b.objects.ServiceAccount(ctx, k.Namespace, k.ServiceAccount.Name)
	switch {
	case err != nil:
		return nil, err
	case string(sa.UID) != k.ServiceAccount.UID:
		return nil, fmt.Errorf("service account UID (%s) does not match claim (%s)", sa.UID, k.ServiceAccount.UID)
	case deletedBefore(sa, gone):
		return nil, fmt.Errorf("service account %s/%s has been deleted", k.Namespace, k.ServiceAccount.Name)
	}
	info := &apiserverserviceaccount.ServiceAccountInfo{
		Namespace:    k.Namespace,
		Name:         k.ServiceAccount.Name,
		UID:          k.ServiceAccount.UID,
		CredentialID: tokenjwt.CredentialIDForJTI(public.ID),
	}
	if k.Secret != nil {
		secret, err := b.objects.Secret(ctx, k.Namespace, k.Secret.Name)
		if err := alive(ctx, "secret", k.Secret, secret, err, gone); err != nil {
			return nil, err
		}
	}
	if k.Pod != nil {
		pod, err := b.objects.Pod(ctx, k.Namespace, k.Pod.Name)
		if err := alive(ctx, "pod", k.Pod, pod, err, gone); err != nil {
			return nil, err
		}
		info.PodName, info.PodUID = k.Pod.Name, k.Pod.UID
	}
	if k.Node != nil {
		// In a pod's token the node is told, not bound to: the pod's own life decides.
		if k.Pod == nil {
			node, err := b.objects.Node(ctx, k.Node.Name)
			if err := alive(ctx, "node", k.Node, node, err, gone); err != nil {
				return nil, err
			}
		}
		info.NodeName, info.NodeUID = k.Node.Name, k.Node.UID
	}

	if k.WarnAfter != nil && now.After(k.WarnAfter.Time()) {
		over := now.Sub(k.WarnAfter.Time()).Seconds()
		audit.AddAuditAnnotation(ctx, "authentication.k8s.io/stale-token", fmt.Sprintf("subject: %s, seconds after warning threshold: %.0f", public.Subject, over))
		klog.FromContext(ctx).V(4).Info("A client does not read its rotated token", "subject", public.Subject, "secondsAfterWarningThreshold", over)
	}
	return info, nil
}

// alive reports why a token that is bound to ref must be refused: what it is bound to
// is not there, is another object of the same name, or was to be gone before the time.
func alive[T metav1.Object](ctx context.Context, kind string, ref *reference, o T, err error, before time.Time) error {
	log := klog.FromContext(ctx).V(4)
	switch {
	case err != nil:
		log.Info("A token's object cannot be found", "kind", kind, "name", ref.Name, "err", err)
		return errors.New("service account token has been invalidated")
	case string(o.GetUID()) != ref.UID:
		return fmt.Errorf("%s UID (%s) does not match service account %s ref claim (%s)", kind, o.GetUID(), kind, ref.UID)
	case deletedBefore(o, before):
		log.Info("A token's object has been deleted", "kind", kind, "name", ref.Name)
		return errors.New("service account token has been invalidated")
	}
	return nil
}

func deletedBefore(o metav1.Object, t time.Time) bool {
	deleted := o.GetDeletionTimestamp()
	return deleted != nil && deleted.Time.Before(t)
}
