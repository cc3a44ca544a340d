// Package ephemeralvolume creates the claims that pods describe in themselves. The
// garbage collector deletes them with their pods.
package ephemeralvolume

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/component-helpers/storage/ephemeral"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Controller reconciles pods.
type Controller struct {
	client          client.Client
	events          record.EventRecorder
	created, failed *metrics.Counter
}

// New returns the controller.
func New(c client.Client, events record.EventRecorder, registry metrics.KubeRegistry) *Controller {
	counter := func(name, help string) *metrics.Counter {
		return metrics.NewCounter(&metrics.CounterOpts{Subsystem: "ephemeral_volume_controller", Name: name, Help: help, StabilityLevel: metrics.ALPHA})
	}
	created := counter("create_total", "Number of times that a PersistentVolumeClaim was to be created")
	failed := counter("create_failures_total", "Number of times that a PersistentVolumeClaim could not be created")
	registry.MustRegister(created, failed)
	return &Controller{client: c, events: events, created: created, failed: failed}
}

// Register adds the controller to mgr. A pod's volumes do not change; a claim that
// is deleted before its pod is made again.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	isNew := predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return describes(e.Object.(*corev1.Pod)) },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	gone := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
	return builder.ControllerManagedBy(mgr).Named("ephemeral-volume-controller").WithOptions(o).
		For(&corev1.Pod{}, builder.WithPredicates(isNew)).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(c.usersOf), builder.WithPredicates(gone)).
		Complete(c)
}

func describes(p *corev1.Pod) bool {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Ephemeral != nil {
			return true
		}
	}
	return false
}

// usersOf returns the pods that use a claim.
func (c *Controller) usersOf(ctx context.Context, claim client.Object) []reconcile.Request {
	list, err := index.WithClaim(ctx, c.client, claim.GetNamespace(), claim.GetName(), client.DisableReadYourWritesConsistency)
	if err != nil {
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return reqs
}

// Reconcile creates the claims of one pod that are not there.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	pod := &corev1.Pod{}
	if err := c.client.Get(ctx, req.NamespacedName, pod); err != nil || pod.DeletionTimestamp != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Ephemeral != nil {
			if err := c.ensure(ctx, pod, v); err != nil {
				c.events.Eventf(pod, corev1.EventTypeWarning, "FailedBinding", "ephemeral volume %s: %v", v.Name, err)
				errs = append(errs, fmt.Errorf("volume %s: %w", v.Name, err))
			}
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
}

func (c *Controller) ensure(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) error {
	name := ephemeral.VolumeClaimName(pod, v)
	claim := &corev1.PersistentVolumeClaim{}
	err := c.client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: name}, claim)
	if err == nil {
		return ephemeral.VolumeIsForPod(pod, claim)
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	claim = &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: name, Labels: v.Ephemeral.VolumeClaimTemplate.Labels, Annotations: v.Ephemeral.VolumeClaimTemplate.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: *v.Ephemeral.VolumeClaimTemplate.Spec.DeepCopy(),
	}
	c.created.Inc()
	err = c.client.Create(ctx, claim)
	if err != nil {
		c.failed.Inc()
	}
	if err != nil && !pods.IsNamespaceTerminating(err) {
		return fmt.Errorf("create PVC %s: %w", name, err)
	}
	return nil
}
