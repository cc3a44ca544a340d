// Package serviceaccounttoken fills Secrets of type kubernetes.io/service-account-token
// with a token of their account, and deletes them when the account is gone.
package serviceaccounttoken

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"slices"

	jose "gopkg.in/go-jose/go-jose.v2"
	"gopkg.in/go-jose/go-jose.v2/jwt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiserverserviceaccount "k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/api/authentication/signing"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
)

// issuer is in the tokens of Secrets, whatever other tokens name.
const issuer = "kubernetes/serviceaccount"

// Controller reconciles Secrets.
type Controller struct {
	client client.Client
	live   client.Reader
	signer jose.Signer
	rootCA []byte
}

// New returns the controller, which signs with key and puts the certificates of rootCA beside each token.
func New(c client.Client, live client.Reader, key crypto.Signer, rootCA []byte) (*Controller, error) {
	signer, err := signing.NewSigner(key)
	if err != nil {
		return nil, err
	}
	return &Controller{client: c, live: live, signer: signer, rootCA: rootCA}, nil
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	token := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.(*corev1.Secret).Type == corev1.SecretTypeServiceAccountToken })
	return builder.ControllerManagedBy(mgr).Named("serviceaccount-token-controller").WithOptions(o).
		For(&corev1.Secret{}, builder.WithPredicates(token)).
		Watches(&corev1.ServiceAccount{}, handler.EnqueueRequestsFromMapFunc(c.tokensOf)).
		Complete(conflict.Ignored(c))
}

// tokensOf returns the Secrets that are for a service account.
func (c *Controller) tokensOf(ctx context.Context, sa client.Object) []reconcile.Request {
	var list corev1.SecretList
	if err := c.client.List(ctx, &list, client.InNamespace(sa.GetNamespace()), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing Secrets")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		s := &list.Items[i]
		if s.Type == corev1.SecretTypeServiceAccountToken && s.Annotations[corev1.ServiceAccountNameKey] == sa.GetName() {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)})
		}
	}
	return reqs
}

// Reconcile looks at one Secret.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	s := &corev1.Secret{}
	err := c.client.Get(ctx, req.NamespacedName, s)
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, c.dropReferences(ctx, req.Namespace, req.Name)
	}
	if err != nil || s.DeletionTimestamp != nil {
		return reconcile.Result{}, err
	}
	sa, err := c.account(ctx, s)
	if err != nil {
		return reconcile.Result{}, err
	}
	if sa == nil {
		klog.FromContext(ctx).V(2).Info("Deleting the token of a service account that is gone")
		if err := c.client.Delete(ctx, s, client.Preconditions{UID: &s.UID}); client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("deleting the Secret: %w", err)
		}
		return reconcile.Result{}, nil
	}
	changed, err := c.fill(s, sa)
	if err != nil || !changed {
		return reconcile.Result{}, err
	}
	if err := c.client.Update(ctx, s); apierrors.IsConflict(err) {
		return reconcile.Result{}, err
	} else if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("writing the token: %w", err)
	}
	return reconcile.Result{}, nil
}

// account returns the service account that a Secret is for, or nil if there is none any more.
func (c *Controller) account(ctx context.Context, s *corev1.Secret) (*corev1.ServiceAccount, error) {
	key := client.ObjectKey{Namespace: s.Namespace, Name: s.Annotations[corev1.ServiceAccountNameKey]}
	uid := s.Annotations[corev1.ServiceAccountUIDKey]
	// The cache may not know it yet, and a deletion cannot be undone.
	for _, from := range []client.Reader{c.client, c.live} {
		sa := &corev1.ServiceAccount{}
		err := from.Get(ctx, key, sa)
		if err == nil && (uid == "" || uid == string(sa.UID)) {
			return sa, nil
		}
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("getting service account %s: %w", key.Name, err)
		}
	}
	return nil, nil
}

// legacyClaims say whom a token is for, as they have since long before tokens were bound to anything.
type legacyClaims struct {
	Namespace          string `json:"kubernetes.io/serviceaccount/namespace"`
	SecretName         string `json:"kubernetes.io/serviceaccount/secret.name"`
	ServiceAccountName string `json:"kubernetes.io/serviceaccount/service-account.name"`
	ServiceAccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// fill writes into a Secret what is missing, and reports whether something was.
func (c *Controller) fill(s *corev1.Secret, sa *corev1.ServiceAccount) (bool, error) {
	needsCA := len(c.rootCA) > 0 && !bytes.Equal(s.Data[corev1.ServiceAccountRootCAKey], c.rootCA)
	needsNamespace := len(s.Data[corev1.ServiceAccountNamespaceKey]) == 0
	needsToken := len(s.Data[corev1.ServiceAccountTokenKey]) == 0
	if !needsCA && !needsNamespace && !needsToken {
		return false, nil
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	if needsCA {
		s.Data[corev1.ServiceAccountRootCAKey] = c.rootCA
	}
	if needsNamespace {
		s.Data[corev1.ServiceAccountNamespaceKey] = []byte(s.Namespace)
	}
	if needsToken {
		token, err := jwt.Signed(c.signer).
			Claims(jwt.Claims{Issuer: issuer, Subject: apiserverserviceaccount.MakeUsername(sa.Namespace, sa.Name)}).
			Claims(legacyClaims{sa.Namespace, s.Name, sa.Name, string(sa.UID)}).CompactSerialize()
		if err != nil {
			return false, fmt.Errorf("signing a token: %w", err)
		}
		s.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	}
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, corev1.ServiceAccountNameKey, sa.Name)
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, corev1.ServiceAccountUIDKey, string(sa.UID))
	return true, nil
}

// dropReferences takes the name of a Secret that is gone out of the service accounts that list it.
func (c *Controller) dropReferences(ctx context.Context, namespace, secret string) error {
	var list corev1.ServiceAccountList
	if err := c.client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("listing service accounts: %w", err)
	}
	named := func(r corev1.ObjectReference) bool { return r.Name == secret }
	for i := range list.Items {
		sa := &list.Items[i]
		if !slices.ContainsFunc(sa.Secrets, named) {
			continue
		}
		sa.Secrets = slices.DeleteFunc(sa.Secrets, named)
		if err := c.client.Update(ctx, sa); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}
