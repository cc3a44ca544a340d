// Package trustbundlepublisher publishes the certificates that the API server is to
// be trusted by as a ClusterTrustBundle.
package trustbundlepublisher

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"k8s.io/client-go/util/workqueue"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
)

const signer = "kubernetes.io/kube-apiserver-serving"

// Controller keeps one bundle; a request has no name.
type Controller struct {
	client client.Client
	bundle string
}

// New returns the controller that publishes bundle, certificates in PEM.
func New(c client.Client, bundle []byte) *Controller {
	return &Controller{client: c, bundle: string(bundle)}
}

// name is that of the bundle: of the signer, and of the content.
func (c *Controller) name() string {
	sum := sha256.Sum256([]byte(c.bundle))
	return fmt.Sprintf("%s:%x", strings.ReplaceAll(signer, "/", ":"), sum[:12])
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.(*certificatesv1.ClusterTrustBundle).Spec.SignerName == signer })
	return builder.ControllerManagedBy(mgr).Named("kube-apiserver-serving-clustertrustbundle-publisher-controller").WithOptions(o).
		Watches(&certificatesv1.ClusterTrustBundle{}, handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
			return []reconcile.Request{{}}
		}), builder.WithPredicates(ours)).
		WatchesRawSource(source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			q.Add(reconcile.Request{}) // there may be no bundle yet whose event would be seen
			return nil
		})).
		Complete(conflict.Ignored(c))
}

// Reconcile creates or corrects the bundle, and then deletes those of earlier certificates.
func (c *Controller) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	b := &certificatesv1.ClusterTrustBundle{}
	err := c.client.Get(ctx, client.ObjectKey{Name: c.name()}, b)
	switch {
	case apierrors.IsNotFound(err):
		b = &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: c.name()},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: c.bundle},
		}
		if err := c.client.Create(ctx, b); err != nil {
			return reconcile.Result{}, fmt.Errorf("creating ClusterTrustBundle %s: %w", b.Name, err)
		}
	case err != nil:
		return reconcile.Result{}, err
	case b.Spec.TrustBundle != c.bundle:
		b.Spec.TrustBundle = c.bundle
		if err := c.client.Update(ctx, b); err != nil {
			return reconcile.Result{}, err
		}
	}
	var list certificatesv1.ClusterTrustBundleList
	if err := c.client.List(ctx, &list); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing ClusterTrustBundles: %w", err)
	}
	var errs []error
	for i := range list.Items {
		old := &list.Items[i]
		if old.Spec.SignerName != signer || old.Name == c.name() {
			continue
		}
		if err := c.client.Delete(ctx, old, client.Preconditions{UID: &old.UID}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("deleting ClusterTrustBundle %s: %w", old.Name, err))
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
}
