// Package resourceclaim makes the ResourceClaims that pods, and groups of pods, describe by templates, and
// frees claims that nobody uses any more.
package resourceclaim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/wake"
)

// Controller reconciles pods and, in queues of their own, claims and PodGroups.
type Controller struct {
	client client.Client
	live   client.Reader
	events record.EventRecorder
	gates  Gates

	creates *metrics.CounterVec
}

// New returns the controller.
func New(c client.Client, live client.Reader, events record.EventRecorder, registry metrics.KubeRegistry, gates Gates) *Controller {
	return &Controller{client: c, live: live, events: events, gates: gates, creates: register(registry, c)}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	asks := predicate.NewPredicateFuncs(func(o client.Object) bool { return len(o.(*corev1.Pod).Spec.ResourceClaims) > 0 })
	pods := builder.ControllerManagedBy(mgr).Named("resourceclaim-controller").WithOptions(o).
		For(&corev1.Pod{}, builder.WithPredicates(asks)).
		Watches(&resourcev1.ResourceClaim{}, handler.EnqueueRequestsFromMapFunc(c.podsOf)).
		Watches(&resourcev1.ResourceClaimTemplate{}, handler.EnqueueRequestsFromMapFunc(c.podsFrom))
	claims := builder.ControllerManagedBy(mgr).Named("resourceclaim-controller-claims").WithOptions(o).
		For(&resourcev1.ResourceClaim{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			return named(o.GetNamespace(), podrefs.ResourceClaims(o.(*corev1.Pod)))
		}))
	if c.gates.Groups {
		pods.Watches(&schedulingv1beta1.PodGroup{}, handler.EnqueueRequestsFromMapFunc(c.podsIn), builder.WithPredicates(predicate.Funcs{UpdateFunc: claimsMade}))
	}
	if c.gates.GroupClaims {
		claims.Watches(&schedulingv1beta1.PodGroup{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			return named(o.GetNamespace(), claimsOf(o.(*schedulingv1beta1.PodGroup)))
		}))
		groups := builder.ControllerManagedBy(mgr).Named("resourceclaim-controller-groups").WithOptions(o).
			For(&schedulingv1beta1.PodGroup{}, builder.WithPredicates(predicate.NewPredicateFuncs(hasClaims))).
			Owns(&resourcev1.ResourceClaim{}).
			Watches(&resourcev1.ResourceClaimTemplate{}, wake.Those(c.client, wantsFrom))
		if err := groups.Complete(conflict.Ignored(reconcile.Func(c.reconcileGroup))); err != nil {
			return err
		}
	}
	return errors.Join(pods.Complete(conflict.Ignored(reconcile.Func(c.reconcilePod))), claims.Complete(conflict.Ignored(reconcile.Func(c.reconcileClaim))))
}

func named(namespace string, names []string) []reconcile.Request {
	var reqs []reconcile.Request
	for _, name := range names {
		reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}})
	}
	return reqs
}

func hasClaims(o client.Object) bool {
	return len(o.(*schedulingv1beta1.PodGroup).Spec.ResourceClaims) > 0
}

// claimsMade reports whether a group has other claims than before.
func claimsMade(e event.UpdateEvent) bool {
	return !slices.Equal(claimsOf(e.ObjectOld.(*schedulingv1beta1.PodGroup)), claimsOf(e.ObjectNew.(*schedulingv1beta1.PodGroup)))
}

// claimsOf returns the names of the claims that a group has.
func claimsOf(g *schedulingv1beta1.PodGroup) []string {
	var names []string
	for i := range g.Spec.ResourceClaims {
		if name, _, err := resourceclaim.NameFromPodGroup(g, &g.Spec.ResourceClaims[i]); err == nil && name != nil {
			names = append(names, *name)
		}
	}
	return names
}

// wantsFrom reports whether a group wants a claim made from a template.
func wantsFrom(g *schedulingv1beta1.PodGroup, template client.Object) bool {
	return slices.ContainsFunc(g.Spec.ResourceClaims, func(r schedulingv1beta1.PodGroupResourceClaim) bool {
		return r.ResourceClaimTemplateName != nil && *r.ResourceClaimTemplateName == template.GetName()
	})
}

// podsIn returns the pods of a group that ask for claims.
func (c *Controller) podsIn(ctx context.Context, group client.Object) []reconcile.Request {
	list, err := index.InGroup(ctx, c.client, group.GetNamespace(), group.GetName(), client.DisableReadYourWritesConsistency)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing pods")
		return nil
	}
	var names []string
	for i := range list.Items {
		if len(list.Items[i].Spec.ResourceClaims) > 0 {
			names = append(names, list.Items[i].Name)
		}
	}
	return named(group.GetNamespace(), names)
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
	there, err := c.stock(ctx, pod.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	p, err := planPod(pod, there, c.gates, func(pod *corev1.Pod) (*schedulingv1beta1.PodGroup, error) { return c.groupOf(ctx, pod) })
	if err != nil {
		if !errors.As(err, new(groupError)) {
			c.events.Event(pod, corev1.EventTypeWarning, "FailedResourceClaimCreation", err.Error())
		}
		return reconcile.Result{}, err
	}
	if err := c.create(ctx, pod, "PodResourceClaim", p.made); err != nil {
		return reconcile.Result{}, err
	}
	if err := c.note(ctx, pod, p.found); err != nil {
		return reconcile.Result{}, err
	}
	for _, r := range p.reserve {
		r.claim.Status.ReservedFor = append(r.claim.Status.ReservedFor, r.by)
		if err := c.client.Status().Update(ctx, r.claim); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// reconcileGroup makes the claims that the pods of one group share.
func (c *Controller) reconcileGroup(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	group := &schedulingv1beta1.PodGroup{}
	if err := c.client.Get(ctx, req.NamespacedName, group); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	there, err := c.stock(ctx, group.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	m, err := planGroup(group, there)
	if err != nil {
		c.events.Event(group, corev1.EventTypeWarning, "FailedResourceClaimCreation", err.Error())
		return reconcile.Result{}, err
	}
	if err := c.create(ctx, group, "PodGroupResourceClaim", m); err != nil || len(m.found) == 0 {
		return reconcile.Result{}, err
	}
	before := group.DeepCopy()
	s := &group.Status
	s.ResourceClaimStatuses = slices.DeleteFunc(s.ResourceClaimStatuses, func(s schedulingv1beta1.PodGroupResourceClaimStatus) bool { return m.found[s.Name] != "" })
	for _, called := range slices.Sorted(maps.Keys(m.found)) {
		s.ResourceClaimStatuses = append(s.ResourceClaimStatuses, schedulingv1beta1.PodGroupResourceClaimStatus{Name: called, ResourceClaimName: ptr.To(m.found[called])})
	}
	err = c.client.Status().Patch(ctx, group, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	return reconcile.Result{}, client.IgnoreNotFound(err)
}

// stock reads what there is in a namespace.
func (c *Controller) stock(ctx context.Context, namespace string) (*stock, error) {
	var claims resourcev1.ResourceClaimList
	var templates resourcev1.ResourceClaimTemplateList
	if err := errors.Join(c.client.List(ctx, &claims, client.InNamespace(namespace)), c.client.List(ctx, &templates, client.InNamespace(namespace))); err != nil {
		return nil, fmt.Errorf("listing claims and templates: %w", err)
	}
	s := &stock{claims: map[string]*resourcev1.ResourceClaim{}, templates: map[string]*resourcev1.ResourceClaimTemplate{}}
	for i := range claims.Items {
		s.claims[claims.Items[i].Name] = &claims.Items[i]
	}
	for i := range templates.Items {
		s.templates[templates.Items[i].Name] = &templates.Items[i]
	}
	return s, nil
}

// groupOf is the controller's groupOf.
func (c *Controller) groupOf(ctx context.Context, pod *corev1.Pod) (*schedulingv1beta1.PodGroup, error) {
	if pod.Spec.SchedulingGroup == nil || pod.Spec.SchedulingGroup.PodGroupName == nil {
		return nil, nil
	}
	if !c.gates.Groups {
		return nil, errors.New("the pod belongs to a PodGroup, but the GenericWorkload feature is disabled")
	}
	group := &schedulingv1beta1.PodGroup{}
	return group, c.client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: *pod.Spec.SchedulingGroup.PodGroupName}, group)
}

// create makes the claims of an owner, and adds their names to those that were found.
func (c *Controller) create(ctx context.Context, owner client.Object, what string, m made) error {
	for _, called := range slices.Sorted(maps.Keys(m.create)) {
		claim := m.create[called]
		err := c.client.Create(ctx, claim)
		c.count(claim, err)
		if err != nil {
			if pods.IsNamespaceTerminating(err) {
				return nil
			}
			c.events.Eventf(owner, corev1.EventTypeWarning, "FailedResourceClaimCreation", "%s %s: %v", what, called, err)
			return fmt.Errorf("creating ResourceClaim %s: %w", called, err)
		}
		m.found[called] = claim.Name
	}
	return nil
}

// note writes into the pod's status which claims are its.
func (c *Controller) note(ctx context.Context, pod *corev1.Pod, found map[string]string) error {
	if len(found) == 0 {
		return nil
	}
	before := pod.DeepCopy()
	s := &pod.Status
	s.ResourceClaimStatuses = slices.DeleteFunc(s.ResourceClaimStatuses, func(s corev1.PodResourceClaimStatus) bool { return found[s.Name] != "" })
	for _, called := range slices.Sorted(maps.Keys(found)) {
		s.ResourceClaimStatuses = append(s.ResourceClaimStatuses, corev1.PodResourceClaimStatus{Name: called, ResourceClaimName: ptr.To(found[called])})
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

// gone reports whether a consumer that a claim is reserved for has no use for it any more: a pod that has ended, or a group that is no more. What the cache
// does not know may be new. Of other consumers nothing is known.
func (c *Controller) gone(ctx context.Context, namespace string, r resourcev1.ResourceClaimConsumerReference) (bool, error) {
	var consumer client.Object
	switch {
	case isPod(r):
		consumer = &corev1.Pod{}
	case isGroup(r) && c.gates.GroupClaims:
		consumer = &schedulingv1beta1.PodGroup{}
	default:
		return false, nil
	}
	for _, from := range []client.Reader{c.client, c.live} {
		err := from.Get(ctx, client.ObjectKey{Namespace: namespace, Name: r.Name}, consumer)
		if err == nil {
			pod, ok := consumer.(*corev1.Pod)
			return consumer.GetUID() != r.UID || ok && isDone(pod), nil
		}
		if !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("getting %s %s: %w", r.Resource, r.Name, err)
		}
	}
	return true, nil
}
