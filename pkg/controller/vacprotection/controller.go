// Package vacprotection keeps VolumeAttributesClasses that volumes or claims name
// from going.
package vacprotection

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/protection"
)

const finalizer = "kubernetes.io/vac-protection"

// Controller reconciles VolumeAttributesClasses.
type Controller struct{ client client.Client }

// New returns the controller.
func New(c client.Client) *Controller { return &Controller{client: c} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	needed := predicate.NewPredicateFuncs(func(o client.Object) bool { return protection.Needed(o, finalizer) })
	return builder.ControllerManagedBy(mgr).Named("volumeattributesclass-protection-controller").WithOptions(o).
		For(&storagev1.VolumeAttributesClass{}, builder.WithPredicates(needed)).
		Watches(&corev1.PersistentVolume{}, onRelease()).
		Watches(&corev1.PersistentVolumeClaim{}, onRelease()).
		Complete(conflict.Ignored(c))
}

// onRelease enqueues the classes that a volume or claim names no longer.
func onRelease() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	enqueue := func(q queue, before, after []string) {
		for _, class := range before {
			if !slices.Contains(after, class) {
				q.Add(reconcile.Request{NamespacedName: client.ObjectKey{Name: class}})
			}
		}
	}
	return handler.Funcs{
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			enqueue(q, classes(e.ObjectOld), classes(e.ObjectNew))
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { enqueue(q, classes(e.Object), nil) },
	}
}

// classes are those that a volume or claim has, is to have or is on the way to.
func classes(o client.Object) []string {
	var names []string
	add := func(name *string) {
		if name != nil && *name != "" {
			names = append(names, *name)
		}
	}
	switch o := o.(type) {
	case *corev1.PersistentVolume:
		add(o.Spec.VolumeAttributesClassName)
	case *corev1.PersistentVolumeClaim:
		add(o.Spec.VolumeAttributesClassName)
		add(o.Status.CurrentVolumeAttributesClassName)
		if m := o.Status.ModifyVolumeStatus; m != nil {
			add(&m.TargetVolumeAttributesClassName)
		}
	}
	return names
}

// Reconcile puts the finalizer on one class or takes it off.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	class := &storagev1.VolumeAttributesClass{}
	if err := c.client.Get(ctx, req.NamespacedName, class); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	return reconcile.Result{}, protection.Apply(ctx, c.client, class, finalizer, func() (bool, error) { return c.inUse(ctx, class.Name) })
}

func (c *Controller) inUse(ctx context.Context, class string) (bool, error) {
	var volumes corev1.PersistentVolumeList
	if err := c.client.List(ctx, &volumes, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing PersistentVolumes: %w", err)
	}
	for i := range volumes.Items {
		if slices.Contains(classes(&volumes.Items[i]), class) {
			return true, nil
		}
	}
	var claims corev1.PersistentVolumeClaimList
	if err := c.client.List(ctx, &claims, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing PersistentVolumeClaims: %w", err)
	}
	for i := range claims.Items {
		if slices.Contains(classes(&claims.Items[i]), class) {
			return true, nil
		}
	}
	return false, nil
}
