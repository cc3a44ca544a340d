// Package ttl tells kubelets, in an annotation of their nodes, for how long they may
// believe what they have read of Secrets and ConfigMaps: the longer, the more nodes there are.
package ttl

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Controller looks at all nodes at once; a request has no name.
type Controller struct {
	client client.Client
	step   int // used by the only worker
}

// New returns the controller.
func New(c client.Client) *Controller { return &Controller{client: c} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	o.MaxConcurrentReconciles = 1
	matters := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetAnnotations()[corev1.ObjectTTLAnnotationKey] != e.ObjectNew.GetAnnotations()[corev1.ObjectTTLAnnotationKey]
	}}
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{{}} })
	return builder.ControllerManagedBy(mgr).Named("ttl-controller").WithOptions(o).
		Watches(&corev1.Node{}, all, builder.WithPredicates(matters)).Complete(c)
}

// steps are the times, and for how many nodes each is meant. They overlap, so that a
// node more or less does not change all others.
var steps = []struct {
	min, max int
	ttl      time.Duration
}{
	{0, 100, 0},
	{90, 500, 15 * time.Second},
	{450, 1000, 30 * time.Second},
	{900, 2000, time.Minute},
	{1800, math.MaxInt, 5 * time.Minute},
}

// stepFor returns the step for a number of nodes, coming from another.
func stepFor(step, nodes int) int {
	for nodes > steps[step].max {
		step++
	}
	for nodes < steps[step].min {
		step--
	}
	return step
}

// Reconcile writes the annotation of all nodes that do not have the right one.
func (c *Controller) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var nodes corev1.NodeList
	if err := c.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing nodes: %w", err)
	}
	c.step = stepFor(c.step, len(nodes.Items))
	want := strconv.Itoa(int(steps[c.step].ttl.Seconds()))
	var errs []error
	for i := range nodes.Items {
		if nodes.Items[i].Annotations[corev1.ObjectTTLAnnotationKey] == want {
			continue
		}
		node := nodes.Items[i].DeepCopy()
		before := node.DeepCopy()
		metav1.SetMetaDataAnnotation(&node.ObjectMeta, corev1.ObjectTTLAnnotationKey, want)
		if err := c.client.Patch(ctx, node, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("annotating node %s: %w", node.Name, err))
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
}
