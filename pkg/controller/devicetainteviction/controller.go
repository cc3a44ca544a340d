// Package devicetainteviction deletes pods whose devices have got a taint that they do
// not tolerate, and says in DeviceTaintRules how far that is.
package devicetainteviction

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
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

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// period is how long a rule's condition stands at least.
const period = 10 * time.Second

// Controller reconciles pods and, in a queue of their own, rules.
type Controller struct {
	client client.Client
	events record.EventRecorder
	clock  clock.PassiveClock
	groups bool

	mu      sync.Mutex
	waiting map[types.NamespacedName]bool // pods that will have to go
	evicted map[types.UID]int             // pods that have gone, by rule
}

// New returns the controller. With groups, claims may be reserved for PodGroups (DRAWorkloadResourceClaims).
func New(c client.Client, events record.EventRecorder, groups bool) *Controller {
	return &Controller{client: c, events: events, groups: groups, clock: clock.RealClock{}, waiting: map[types.NamespacedName]bool{}, evicted: map[types.UID]int{}}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	uses := predicate.NewPredicateFuncs(func(o client.Object) bool { return len(index.PodsByResourceClaim().Values(o)) > 0 })
	every := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request { return c.users(ctx, "", "") })
	err := builder.ControllerManagedBy(mgr).Named("device-taint-eviction-controller").WithOptions(o).
		For(&corev1.Pod{}, builder.WithPredicates(uses)).
		Watches(&resourcev1.ResourceClaim{}, handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
			return c.users(ctx, o.GetNamespace(), o.GetName())
		})).
		Watches(&resourcev1.ResourceSlice{}, every).
		Watches(&resourcev1.DeviceTaintRule{}, every, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(conflict.Ignored(reconcile.Func(c.reconcilePod)))
	if err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).Named("device-taint-eviction-controller-rules").WithOptions(o).
		For(&resourcev1.DeviceTaintRule{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(conflict.Ignored(reconcile.Func(c.reconcileRule)))
}

// users returns the pods that use a claim, or any.
func (c *Controller) users(ctx context.Context, namespace, claim string) []reconcile.Request {
	list, err := index.WithResourceClaim(ctx, c.client, namespace, claim, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing pods")
		return nil
	}
	reqs := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		reqs[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return reqs
}

// look returns what decisions are made from: the claims of a namespace, or of all.
func (c *Controller) look(ctx context.Context, namespace string) (view, error) {
	var (
		claims resourcev1.ResourceClaimList
		sliced resourcev1.ResourceSliceList
		rules  resourcev1.DeviceTaintRuleList
	)
	if err := errors.Join(c.client.List(ctx, &claims, client.InNamespace(namespace), client.UnsafeDisableDeepCopy),
		c.client.List(ctx, &sliced, client.UnsafeDisableDeepCopy), c.client.List(ctx, &rules, client.UnsafeDisableDeepCopy)); err != nil {
		return view{}, fmt.Errorf("listing claims, slices and rules: %w", err)
	}
	v := view{claims: map[types.NamespacedName]*resourcev1.ResourceClaim{}, slices: sliced.Items, rules: rules.Items, groups: c.groups}
	for i := range claims.Items {
		v.claims[client.ObjectKeyFromObject(&claims.Items[i])] = &claims.Items[i]
	}
	return v, nil
}

// reconcilePod deletes one pod if its time with its devices is over.
func (c *Controller) reconcilePod(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	pod := &corev1.Pod{}
	if err := c.client.Get(ctx, req.NamespacedName, pod); err != nil {
		c.wait(req.NamespacedName, false)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	v, err := c.look(ctx, pod.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	e := v.evict(pod)
	if e == nil || pod.DeletionTimestamp != nil {
		if c.wait(req.NamespacedName, false) && pod.DeletionTimestamp == nil {
			c.events.Event(pod, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Cancelling deletion")
		}
		return reconcile.Result{}, nil
	}
	if left := e.at.Sub(c.clock.Now()); left > 0 {
		c.wait(req.NamespacedName, true)
		return reconcile.Result{RequeueAfter: left}, nil
	}
	c.wait(req.NamespacedName, false)
	c.events.Event(pod, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Marking for deletion")
	if pods.Disrupt(pod, "DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint", c.clock.Now()) {
		if err := c.client.Status().Update(ctx, pod); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	if err := c.client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID}); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for rule := range e.rules {
		c.evicted[rule]++
	}
	return reconcile.Result{}, nil
}

// wait notes whether a pod waits for its end, and returns whether it did before.
func (c *Controller) wait(pod types.NamespacedName, now bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.waiting[pod]
	if now {
		c.waiting[pod] = true
	} else {
		delete(c.waiting, pod)
	}
	return before
}

// forget drops what is known of rules that are no more.
func (c *Controller) forget(ctx context.Context) error {
	var rules resourcev1.DeviceTaintRuleList
	if err := c.client.List(ctx, &rules, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing rules: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.evicted, func(uid types.UID, _ int) bool {
		return !slices.ContainsFunc(rules.Items, func(r resourcev1.DeviceTaintRule) bool { return r.UID == uid })
	})
	return nil
}

// reconcileRule writes the condition of one rule, again and again as long as it changes.
func (c *Controller) reconcileRule(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	rule := &resourcev1.DeviceTaintRule{}
	if err := c.client.Get(ctx, req.NamespacedName, rule); apierrors.IsNotFound(err) {
		return reconcile.Result{}, c.forget(ctx)
	} else if err != nil {
		return reconcile.Result{}, err
	}
	old := meta.FindStatusCondition(rule.Status.Conditions, resourcev1.DeviceTaintConditionEvictionInProgress)
	evicts := rule.Spec.Taint.Effect == resourcev1.DeviceTaintEffectNoExecute
	if old != nil && old.ObservedGeneration == rule.Generation {
		if !evicts {
			return reconcile.Result{}, nil // it says so itself
		}
		if left := period - c.clock.Since(old.LastTransitionTime.Time); left > 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
	}
	v, err := c.look(ctx, "")
	if err != nil {
		return reconcile.Result{}, err
	}
	users, err := index.WithResourceClaim(ctx, c.client, "", "", client.UnsafeDisableDeepCopy)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("listing pods: %w", err)
	}
	n := v.count(rule, users.Items)
	c.mu.Lock()
	n.evicted = c.evicted[rule.UID]
	c.mu.Unlock()
	if meta.SetStatusCondition(&rule.Status.Conditions, progress(rule, n)) {
		if err := c.client.Status().Update(ctx, rule); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	if !evicts {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: period}, nil
}
