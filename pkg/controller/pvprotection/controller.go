// Package pvprotection keeps PersistentVolumes that are bound to a claim from going.
package pvprotection

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/protection"
)

const finalizer = "kubernetes.io/pv-protection"

// Controller reconciles PersistentVolumes.
type Controller struct{ client client.Client }

// New returns the controller.
func New(c client.Client) *Controller { return &Controller{client: c} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	needed := predicate.NewPredicateFuncs(func(o client.Object) bool { return protection.Needed(o, finalizer) })
	return builder.ControllerManagedBy(mgr).Named("persistentvolume-protection-controller").WithOptions(o).
		For(&corev1.PersistentVolume{}, builder.WithPredicates(needed)).Complete(conflict.Ignored(c))
}

// Reconcile puts the finalizer on one volume or takes it off.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	pv := &corev1.PersistentVolume{}
	if err := c.client.Get(ctx, req.NamespacedName, pv); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	return reconcile.Result{}, protection.Apply(ctx, c.client, pv, finalizer, func() (bool, error) {
		return pv.Status.Phase == corev1.VolumeBound, nil
	})
}
