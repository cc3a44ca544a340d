// Package resourceclaim makes the ResourceClaims that pods describe by templates, and
// frees claims whose pods have ended.
package resourceclaim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Controller reconciles pods and, in a queue of their own, claims.
type Controller struct {
	client client.Client
	live   client.Reader
	events record.EventRecorder
}

// New returns the controller.
func New(c client.Client, live client.Reader, events record.EventRecorder, registry metrics.KubeRegistry) *Controller {
	register(registry, c)
	return &Controller{client: c, live: live, events: events}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	asks := predicate.NewPredicateFuncs(func(o client.Object) bool { return len(o.(*corev1.Pod).Spec.ResourceClaims) > 0 })
	err := builder.ControllerManagedBy(mgr).Named("resourceclaim-controller").WithOptions(o).
		For(&corev1.Pod{}, builder.WithPredicates(asks)).
		Watches(&resourcev1.ResourceClaim{}, handler.EnqueueRequestsFromMapFunc(c.podsOf)).
		Watches(&resourcev1.ResourceClaimTemplate{}, handler.EnqueueRequestsFromMapFunc(c.podsFrom)).
		Complete(conflict.Ignored(reconcile.Func(c.reconcilePod)))
	if err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).Named("resourceclaim-controller-claims").WithOptions(o).
		For(&resourcev1.ResourceClaim{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			var reqs []reconcile.Request
			for _, name := range podrefs.ResourceClaims(o.(*corev1.Pod)) {
				reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: name}})
			}
			return reqs
		})).
		Complete(conflict.Ignored(reconcile.Func(c.reconcileClaim)))
}

// podsOf returns the pods that use a claim.
func (c *Controller) podsOf(ctx context.Context, claim client.Object) []reconcile.Request {
	return c.pods(ctx, claim.GetNamespace(), claim.GetName(), func(*corev1.Pod) bool { return true })
}

// podsFrom returns the pods that want a claim made from a template.
func (c *Controller) podsFrom(ctx context.Context, template client.Object) []reconcile.Request {
	return c.pods(ctx, template.GetNamespace(), "", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Spec.ResourceClaims, func(r corev1.PodResourceClaim) bool {
			return r.ResourceClaimTemplateName != nil && *r.ResourceClaimTemplateName == template.GetName()
		})
	})
}

func (c *Controller) pods(ctx context.Context, namespace, claim string, want func(*corev1.Pod) bool) []reconcile.Request {
	list, err := index.WithResourceClaim(ctx, c.client, namespace, claim, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing pods")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		if want(&list.Items[i]) {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return reqs
}

// reconcilePod makes the claims of one pod.
func (c *Controller) reconcilePod(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	pod := &corev1.Pod{}
	if err := c.client.Get(ctx, req.NamespacedName, pod); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var claims resourcev1.ResourceClaimList
	var templates resourcev1.ResourceClaimTemplateList
	if err := errors.Join(c.client.List(ctx, &claims, client.InNamespace(pod.Namespace)), c.client.List(ctx, &templates, client.InNamespace(pod.Namespace))); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing claims and templates: %w", err)
	}
	all := make([]*resourcev1.ResourceClaim, len(claims.Items))
	for i := range claims.Items {
		all[i] = &claims.Items[i]
	}
	byName := map[string]*resourcev1.ResourceClaimTemplate{}
	for i := range templates.Items {
		byName[templates.Items[i].Name] = &templates.Items[i]
	}
	p, err := planPod(pod, all, byName)
	if err != nil {
		c.events.Event(pod, corev1.EventTypeWarning, "FailedResourceClaimCreation", err.Error())
		return reconcile.Result{}, err
	}
	for _, called := range slices.Sorted(maps.Keys(p.create)) {
		claim := p.create[called]
		if err := c.client.Create(ctx, claim); err != nil {
			if pods.IsNamespaceTerminating(err) {
				return reconcile.Result{}, nil
			}
			c.events.Eventf(pod, corev1.EventTypeWarning, "FailedResourceClaimCreation", "PodResourceClaim %s: %v", called, err)
			return reconcile.Result{}, fmt.Errorf("creating ResourceClaim %s: %w", called, err)
		}
		p.found[called] = claim.Name
	}
	if err := c.note(ctx, pod, p.found); err != nil {
		return reconcile.Result{}, err
	}
	for _, claim := range p.reserve {
		claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		if err := c.client.Status().Update(ctx, claim); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// note writes into the pod's status which claims are its.
func (c *Controller) note(ctx context.Context, pod *corev1.Pod, found map[string]string) error {
	if len(found) == 0 {
		return nil
	}
	before := pod.DeepCopy()
	pod.Status.ResourceClaimStatuses = slices.DeleteFunc(pod.Status.ResourceClaimStatuses, func(s corev1.PodResourceClaimStatus) bool { _, ok := found[s.Name]; return ok })
	for _, called := range slices.Sorted(maps.Keys(found)) {
		name := found[called]
		pod.Status.ResourceClaimStatuses = append(pod.Status.ResourceClaimStatuses, corev1.PodResourceClaimStatus{Name: called, ResourceClaimName: &name})
	}
	err := c.client.Status().Patch(ctx, pod, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	return client.IgnoreNotFound(err)
}

// reconcileClaim frees one claim, or deletes it, when no one uses it any more.
func (c *Controller) reconcileClaim(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	claim := &resourcev1.ResourceClaim{}
	if err := c.client.Get(ctx, req.NamespacedName, claim); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var owner *corev1.Pod
	if ref := metav1.GetControllerOfNoCopy(claim); ref != nil && ref.Kind == "Pod" {
		pod := &corev1.Pod{}
		if err := c.client.Get(ctx, client.ObjectKey{Namespace: claim.Namespace, Name: ref.Name}, pod); err == nil {
			owner = pod
		} else if !apierrors.IsNotFound(err) {
			return reconcile.Result{}, err
		}
	}
	p, err := planClaim(claim, func(r resourcev1.ResourceClaimConsumerReference) (bool, error) {
		return c.gone(ctx, claim.Namespace, r)
	}, owner)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(p.consumers) < len(claim.Status.ReservedFor) || p.deallocate {
		claim.Status.ReservedFor = p.consumers
		if p.deallocate {
			claim.Status.Allocation = nil
		}
		if err := c.client.Status().Update(ctx, claim); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	if p.release && controllerutil.RemoveFinalizer(claim, resourcev1.Finalizer) {
		if err := c.client.Update(ctx, claim); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	if p.remove {
		if err := c.client.Delete(ctx, claim, client.Preconditions{UID: &claim.UID}); client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("deleting the claim: %w", err)
		}
	}
	return reconcile.Result{}, nil
}

// gone reports whether a pod that a claim is reserved for has ended. What the cache does not know may be new.
func (c *Controller) gone(ctx context.Context, namespace string, r resourcev1.ResourceClaimConsumerReference) (bool, error) {
	for _, from := range []client.Reader{c.client, c.live} {
		pod := &corev1.Pod{}
		err := from.Get(ctx, client.ObjectKey{Namespace: namespace, Name: r.Name}, pod)
		if err == nil {
			return pod.UID != r.UID || isDone(pod), nil
		}
		if !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("getting pod %s: %w", r.Name, err)
		}
	}
	return true, nil
}
