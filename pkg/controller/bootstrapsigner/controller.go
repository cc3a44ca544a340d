// Package bootstrapsigner signs what joining nodes are told about the cluster with
// each bootstrap token, so that who knows a token can trust it.
package bootstrapsigner

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"
	bootstraputil "k8s.io/cluster-bootstrap/util/secrets"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
)

var info = client.ObjectKey{Namespace: metav1.NamespacePublic, Name: bootstrapapi.ConfigMapClusterInfo}

// Controller reconciles the one ConfigMap that nodes read before they trust anyone.
type Controller struct {
	client client.Client
	live   client.Reader
}

// New returns the controller.
func New(c client.Client, live client.Reader) *Controller { return &Controller{client: c, live: live} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	// The shared cache does not hold this ConfigMap.
	one, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		DefaultNamespaces:    map[string]cache.Config{info.Namespace: {}},
		DefaultFieldSelector: fields.OneTermEqualSelector("metadata.name", info.Name),
	})
	if err != nil {
		return fmt.Errorf("building the cache of %s: %w", info, err)
	}
	if err := mgr.Add(one); err != nil {
		return err
	}
	always := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: info}}
	})
	return builder.ControllerManagedBy(mgr).Named("bootstrap-signer-controller").WithOptions(o).
		Watches(&corev1.Secret{}, always).
		WatchesRawSource(source.Kind[client.Object](one, &corev1.ConfigMap{}, always)).
		Complete(conflict.Ignored(c))
}

// Reconcile brings the signatures up to date.
func (c *Controller) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	cm := &corev1.ConfigMap{}
	if err := c.live.Get(ctx, info, cm); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	content, ok := cm.Data[bootstrapapi.KubeConfigKey]
	if !ok {
		return reconcile.Result{}, nil
	}
	var secrets corev1.SecretList
	if err := c.client.List(ctx, &secrets, client.InNamespace(metav1.NamespaceSystem)); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing bootstrap tokens: %w", err)
	}
	data := maps.Clone(cm.Data)
	maps.DeleteFunc(data, func(k, _ string) bool { return strings.HasPrefix(k, bootstrapapi.JWSSignatureKeyPrefix) })
	for i := range secrets.Items {
		id, secret, ok := signs(&secrets.Items[i])
		if !ok {
			continue
		}
		signature, err := jws.ComputeDetachedSignature(content, id, secret)
		if err != nil {
			return reconcile.Result{}, fmt.Errorf("signing with token %s: %w", id, err)
		}
		data[bootstrapapi.JWSSignatureKeyPrefix+id] = signature
	}
	if maps.Equal(data, cm.Data) {
		return reconcile.Result{}, nil
	}
	cm.Data = data
	if err := c.client.Update(ctx, cm, client.DisableReadYourWritesConsistency); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("updating ConfigMap %s: %w", info, err)
	}
	return reconcile.Result{}, nil
}

// signs returns the two parts of a token that may sign and has not expired. Its name
// must be that of the token, so that nobody signs with another one's.
func signs(s *corev1.Secret) (id, secret string, ok bool) {
	if s.Type != bootstrapapi.SecretTypeBootstrapToken || s.DeletionTimestamp != nil {
		return "", "", false
	}
	name, ok := bootstraputil.ParseName(s.Name)
	id = bootstraputil.GetData(s, bootstrapapi.BootstrapTokenIDKey)
	secret = bootstraputil.GetData(s, bootstrapapi.BootstrapTokenSecretKey)
	if !ok || id != name || secret == "" || bootstraputil.GetData(s, bootstrapapi.BootstrapTokenUsageSigningKey) != "true" {
		return "", "", false
	}
	if _, expired := bootstraputil.GetExpiration(s, time.Now()); expired {
		return "", "", false
	}
	return id, secret, true
}
