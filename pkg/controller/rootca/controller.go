// Package rootca publishes in each namespace the certificates that pods trust the
// API server by.
package rootca

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Name is the name of the ConfigMap.
const Name = "kube-root-ca.crt"

const (
	key                   = "ca.crt"
	descriptionAnnotation = "kubernetes.io/description"
	description           = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Controller reconciles namespaces.
type Controller struct {
	client client.Client
	data   map[string]string
}

// New returns the controller that publishes bundle, certificates in PEM.
func New(c client.Client, bundle []byte) *Controller {
	return &Controller{client: c, data: map[string]string{key: string(bundle)}}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == Name })
	return builder.ControllerManagedBy(mgr).Named("root-ca-certificate-publisher-controller").WithOptions(o).
		For(&corev1.Namespace{}).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: o.GetNamespace()}}}
		}), builder.WithPredicates(ours)).
		Complete(c)
}

// Reconcile creates or corrects the ConfigMap of a namespace.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	ns := &corev1.Namespace{}
	if err := c.client.Get(ctx, req.NamespacedName, ns); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if ns.Status.Phase == corev1.NamespaceTerminating || ns.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	cm := &corev1.ConfigMap{}
	err := c.client.Get(ctx, client.ObjectKey{Namespace: ns.Name, Name: Name}, cm)
	switch {
	case apierrors.IsNotFound(err):
		cm = &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: Name, Annotations: map[string]string{descriptionAnnotation: description}},
			Data:       c.data,
		}
		if err := c.client.Create(ctx, cm); err != nil && !apierrors.IsAlreadyExists(err) && !pods.IsNamespaceTerminating(err) {
			return reconcile.Result{}, fmt.Errorf("creating ConfigMap %s/%s: %w", ns.Name, Name, err)
		}
	case err != nil:
		return reconcile.Result{}, err
	case !maps.Equal(cm.Data, c.data) || len(cm.BinaryData) > 0 || cm.Annotations[descriptionAnnotation] == "":
		cm.Data, cm.BinaryData = c.data, nil
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, descriptionAnnotation, description)
		if err := c.client.Update(ctx, cm); client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("updating ConfigMap %s/%s: %w", ns.Name, Name, err)
		}
	}
	return reconcile.Result{}, nil
}
