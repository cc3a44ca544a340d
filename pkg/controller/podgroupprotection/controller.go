// Package podgroupprotection lets PodGroups go that are being deleted, once all their pods have ended. The finalizer
// that keeps them till then is put on by an admission plugin when they are created.
package podgroupprotection

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/protection"
)

const finalizer = schedulingv1beta1.GroupName + "/podgroup-protection"

// Controller reconciles PodGroups.
type Controller struct {
	client client.Client
	live   client.Reader
}

// New returns the controller.
func New(c client.Client, live client.Reader) *Controller { return &Controller{client: c, live: live} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	going := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetDeletionTimestamp() != nil })
	return builder.ControllerManagedBy(mgr).Named("podgroup-protection-controller").WithOptions(o).
		For(&schedulingv1beta1.PodGroup{}, builder.WithPredicates(going)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(group), builder.WithPredicates(leaves())).
		Complete(conflict.Ignored(c))
}

// leaves passes what may leave a group without pods.
func leaves() predicate.Predicate {
	ended := func(o client.Object) bool { return pods.IsTerminated(o.(*corev1.Pod)) }
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return ended(e.Object) },
		// A pod of the same name may have come in the place of the one that is known.
		UpdateFunc: func(e event.UpdateEvent) bool {
			return ended(e.ObjectNew) || e.ObjectOld.GetUID() != e.ObjectNew.GetUID()
		},
		DeleteFunc: func(event.DeleteEvent) bool { return true },
	}
}

// group returns the PodGroup of a pod.
func group(_ context.Context, o client.Object) []reconcile.Request {
	var reqs []reconcile.Request
	for _, name := range index.PodsByGroup().Values(o) {
		reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: name}})
	}
	return reqs
}

// Reconcile looks at one PodGroup.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	g := &schedulingv1beta1.PodGroup{}
	if err := c.client.Get(ctx, req.NamespacedName, g); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	return reconcile.Result{}, protection.Release(ctx, c.client, g, finalizer, func() (bool, error) {
		members, err := index.InGroup(ctx, c.client, g.Namespace, g.Name)
		if err != nil {
			return false, fmt.Errorf("listing pods: %w", err)
		}
		if slices.ContainsFunc(members.Items, atWork) {
			return true, nil
		}
		// A pod that the cache does not show yet may belong to it.
		var all corev1.PodList
		if err := c.live.List(ctx, &all, client.InNamespace(g.Namespace)); err != nil {
			return false, fmt.Errorf("listing pods: %w", err)
		}
		return slices.ContainsFunc(all.Items, func(p corev1.Pod) bool {
			return atWork(p) && slices.Contains(index.PodsByGroup().Values(&p), g.Name)
		}), nil
	})
}

func atWork(p corev1.Pod) bool { return !pods.IsTerminated(&p) }
