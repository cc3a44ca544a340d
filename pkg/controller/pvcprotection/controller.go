// Package pvcprotection keeps claims that pods use from going, and says in their
// status since when no pod has used them.
package pvcprotection

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/api/core/podrefs"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/protection"
)

const finalizer = "kubernetes.io/pvc-protection"

// Controller reconciles PersistentVolumeClaims.
type Controller struct {
	client client.Client
	live   client.Reader
	clock  clock.PassiveClock
	// unused writes down which claims nobody uses (PersistentVolumeClaimUnusedSinceTime).
	unused bool
}

// New returns the controller.
func New(c client.Client, live client.Reader, unused bool) *Controller {
	return &Controller{client: c, live: live, clock: clock.RealClock{}, unused: unused}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	podMatters := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		a, b := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
		return a.Spec.NodeName != b.Spec.NodeName || pods.IsTerminated(a) != pods.IsTerminated(b) || isShutDown(a) != isShutDown(b)
	}}
	return builder.ControllerManagedBy(mgr).Named("persistentvolumeclaim-protection-controller").WithOptions(o).
		For(&corev1.PersistentVolumeClaim{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			var reqs []reconcile.Request
			for _, name := range podrefs.VolumeClaims(o.(*corev1.Pod)) {
				reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: name}})
			}
			return reqs
		}), builder.WithPredicates(podMatters)).
		Complete(conflict.Ignored(c))
}

// Reconcile looks at one claim.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	claim := &corev1.PersistentVolumeClaim{}
	if err := c.client.Get(ctx, req.NamespacedName, claim); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if c.unused && claim.DeletionTimestamp == nil && claim.Status.Phase == corev1.ClaimBound {
		used, err := c.anyPod(ctx, claim, refersTo)
		if err != nil {
			return reconcile.Result{}, err
		}
		if noteUse(claim, used, metav1.NewTime(c.clock.Now())) {
			if err := c.client.Status().Update(ctx, claim); apierrors.IsConflict(err) {
				return reconcile.Result{}, err
			} else if client.IgnoreNotFound(err) != nil {
				return reconcile.Result{}, fmt.Errorf("updating the status: %w", err)
			}
		}
	}
	return reconcile.Result{}, protection.Apply(ctx, c.client, claim, finalizer, func() (bool, error) {
		used, err := c.anyPod(ctx, claim, holds)
		if used || err != nil {
			return used, err
		}
		// A pod that the cache does not show yet may be about to start.
		var list corev1.PodList
		if err := c.live.List(ctx, &list, client.InNamespace(claim.Namespace)); err != nil {
			return false, fmt.Errorf("listing pods: %w", err)
		}
		return anyOf(list.Items, claim, holds), nil
	})
}

// anyPod reports whether the cache has a pod that uses the claim in the given sense.
func (c *Controller) anyPod(ctx context.Context, claim *corev1.PersistentVolumeClaim, uses func(*corev1.Pod, *corev1.PersistentVolumeClaim) bool) (bool, error) {
	list, err := index.WithClaim(ctx, c.client, claim.Namespace, claim.Name)
	if err != nil {
		return false, fmt.Errorf("listing pods: %w", err)
	}
	return anyOf(list.Items, claim, uses), nil
}

func anyOf(list []corev1.Pod, claim *corev1.PersistentVolumeClaim, uses func(*corev1.Pod, *corev1.PersistentVolumeClaim) bool) bool {
	for i := range list {
		if uses(&list[i], claim) {
			return true
		}
	}
	return false
}

// holds reports whether a pod keeps the claim from going. A pod that has no node yet
// does not: with the claim going, it will not get one. A claim that was made for the pod may go before it, once the
// pod has stopped.
func holds(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	if pod.Spec.NodeName == "" {
		return false
	}
	direct, own := mounts(pod, claim)
	return direct || own && !isShutDown(pod)
}

// refersTo reports whether a pod uses the claim, or will.
func refersTo(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	direct, own := mounts(pod, claim)
	return !pods.IsTerminated(pod) && (direct || own)
}

// mounts says whether a pod names the claim, and whether the claim was made for it.
func mounts(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) (direct, own bool) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		direct = direct || v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name
		own = own || v.Ephemeral != nil && ephemeral.VolumeClaimName(pod, v) == claim.Name && ephemeral.VolumeIsForPod(pod, claim) == nil
	}
	return direct, own
}

func isShutDown(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0
}

// noteUse writes the condition Unused, and reports whether it has changed.
func noteUse(claim *corev1.PersistentVolumeClaim, used bool, now metav1.Time) bool {
	want := corev1.PersistentVolumeClaimCondition{
		Type: corev1.PersistentVolumeClaimUnused, Status: corev1.ConditionTrue, LastTransitionTime: now,
		Reason: "NoPodsUsingPVC", Message: "No pods are currently referencing this PVC",
	}
	if used {
		want.Status, want.Reason, want.Message = corev1.ConditionFalse, "PodUsingPVC", "A pod is currently referencing this PVC"
	}
	for i := range claim.Status.Conditions {
		c := &claim.Status.Conditions[i]
		if c.Type == want.Type {
			if c.Status == want.Status {
				return false
			}
			*c = want
			return true
		}
	}
	claim.Status.Conditions = append(claim.Status.Conditions, want)
	return true
}
