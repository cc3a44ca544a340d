// Package disruption keeps the count of how many pods of a PodDisruptionBudget may go. Those who make
// pods go, the eviction API above all, ask the budget's status and write down in it what they take.
package disruption

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Controller reconciles PodDisruptionBudgets, and pods that wait for a disruption in vain.
type Controller struct {
	client client.Client
	live   client.Client
	events record.EventRecorder
	clock  clock.PassiveClock
}

// New returns the controller.
func New(c, live client.Client, events record.EventRecorder) *Controller {
	return &Controller{client: c, live: live, events: events, clock: clock.RealClock{}}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	marked := predicate.NewPredicateFuncs(func(o client.Object) bool {
		_, ok := staleIn(o.(*corev1.Pod), c.clock.Now())
		return ok
	})
	return errors.Join(
		builder.ControllerManagedBy(mgr).Named("disruption-controller").WithOptions(o).
			For(&policyv1.PodDisruptionBudget{}).
			Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(c.guards)).
			Complete(conflict.Ignored(c)),
		builder.ControllerManagedBy(mgr).Named("stale-pod-disruption").WithOptions(o).
			For(&corev1.Pod{}, builder.WithPredicates(marked)).
			Complete(conflict.Ignored(reconcile.Func(c.clear))),
	)
}

// guards returns the budgets that select a pod.
func (c *Controller) guards(ctx context.Context, pod client.Object) []reconcile.Request {
	budgets, err := borrow.List[policyv1.PodDisruptionBudget](ctx, c.client, client.InNamespace(pod.GetNamespace()))
	if err != nil {
		klog.FromContext(ctx).Error(err, "Finding the budgets of a pod", "pod", klog.KObj(pod))
		return nil
	}
	var reqs []reconcile.Request
	for _, b := range budgets {
		if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && selector.Matches(labels.Set(pod.GetLabels())) {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(b)})
		}
	}
	return reqs
}

// Reconcile writes the status of one budget. One that cannot be counted lets nothing go.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	b := &policyv1.PodDisruptionBudget{}
	if err := c.client.Get(ctx, req.NamespacedName, b); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	p, err := c.count(ctx, b)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("A budget cannot be counted", "budget", klog.KObj(b), "err", err)
		p = &plan{status: refuse(b, err)}
	}
	for _, pod := range p.kept {
		c.events.Eventf(pod, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
	}
	if !equality.Semantic.DeepEqual(b.Status, p.status) {
		b.Status = p.status
		if err := c.client.Status().Update(ctx, b); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(fmt.Errorf("updating the status: %w", err))
		}
	}
	return reconcile.Result{RequeueAfter: p.again}, nil
}

// count gathers what a budget is about, and decides.
func (c *Controller) count(ctx context.Context, b *policyv1.PodDisruptionBudget) (*plan, error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("spec.selector: %w", err)
	}
	var list corev1.PodList
	if err := c.client.List(ctx, &list, client.InNamespace(b.Namespace), client.MatchingLabelsSelector{Selector: selector}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	selected := make([]*corev1.Pod, len(list.Items))
	for i := range list.Items {
		selected[i] = &list.Items[i]
	}
	if len(selected) == 0 {
		c.events.Eventf(b, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	scale := 0
	if needsScale(b) {
		n, unmanaged, err := c.scale(ctx, selected)
		if err != nil {
			c.events.Eventf(b, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
			return nil, err
		}
		if len(unmanaged) > 0 {
			c.events.Eventf(b, corev1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found "+
				"to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
				"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", b.Spec.Selector)
		}
		scale = n
	}
	return decide(b, selected, scale, c.clock.Now())
}

// clear takes back the announcement of a disruption that did not take place.
func (c *Controller) clear(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	pod := &corev1.Pod{}
	if err := c.client.Get(ctx, req.NamespacedName, pod); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	now := c.clock.Now()
	left, ok := staleIn(pod, now)
	if !ok || left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	*pods.Condition(pod, corev1.DisruptionTarget) = corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse, ObservedGeneration: pod.Generation, LastTransitionTime: metav1.NewTime(now),
	}
	if err := c.client.Status().Update(ctx, pod); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(fmt.Errorf("clearing %s of pod %s: %w", corev1.DisruptionTarget, pod.Name, err))
	}
	return reconcile.Result{}, nil
}
