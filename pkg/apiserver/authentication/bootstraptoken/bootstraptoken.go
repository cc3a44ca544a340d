// Package bootstraptoken authenticates the tokens with which machines join a
// cluster: "id.secret", kept in a Secret of kube-system named after the id.
package bootstraptoken

import (
	"context"
	"crypto/subtle"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/util/secrets"
	"k8s.io/cluster-bootstrap/util/tokens"
	"k8s.io/klog/v2"
)

// New returns the authenticator of the bootstrap tokens among the Secrets. Those
// that are expired, being deleted, malformed or not meant for authentication are
// refused; why is logged, never told to the client.
func New(client corev1client.SecretsGetter) authenticator.Token {
	return &bootstrap{secrets: client, now: time.Now}
}

type bootstrap struct {
	secrets corev1client.SecretsGetter
	now     func() time.Time
}

func (b *bootstrap) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	id, secretPart, err := tokens.ParseToken(token)
	if err != nil {
		return nil, false, nil // another kind of token
	}
	name := bootstrapapi.BootstrapTokenSecretPrefix + id
	secret, err := b.secrets.Secrets(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}

	if why := refusal(secret, id, secretPart, b.now()); why != "" {
		klog.FromContext(ctx).V(3).Info("Refused a bootstrap token", "secret", klog.KObj(secret), "reason", why)
		return nil, false, nil
	}
	groups, err := secrets.GetGroups(secret)
	if err != nil {
		klog.FromContext(ctx).V(3).Info("Refused a bootstrap token", "secret", klog.KObj(secret), "reason", "its extra groups are invalid")
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: bootstrapapi.BootstrapUserPrefix + id, Groups: groups}}, true, nil
}

// refusal says why the Secret does not make the token valid; "" if it does.
func refusal(secret *corev1.Secret, id, secretPart string, now time.Time) string {
	held := secrets.GetData(secret, bootstrapapi.BootstrapTokenSecretKey)
	switch {
	case secret.DeletionTimestamp != nil:
		return "it is being deleted"
	case secret.Type != bootstrapapi.SecretTypeBootstrapToken:
		return "it has another type"
	case held == "" || subtle.ConstantTimeCompare([]byte(held), []byte(secretPart)) != 1:
		return "the token's secret part differs"
	case secrets.GetData(secret, bootstrapapi.BootstrapTokenIDKey) != id:
		return "it holds another token ID"
	case secrets.HasExpired(secret, now):
		return "it has expired"
	case secrets.GetData(secret, bootstrapapi.BootstrapTokenUsageAuthentication) != "true":
		return "it is not meant for authentication"
	}
	return ""
}
