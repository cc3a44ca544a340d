// Package deployment moves a Deployment from one version of its pods to the next:
// each version is a ReplicaSet, and a rollout is a sequence of their sizes.
package deployment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/claim"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/unhurried"
)

var kind = appsv1.SchemeGroupVersion.WithKind("Deployment")

// Controller reconciles Deployments.
type Controller struct {
	client client.Client
	live   client.Reader
	events record.EventRecorder
	clock  clock.PassiveClock
	late   unhurried.Statuses
	// terminating counts pods that are ending in the status (DeploymentReplicaSetTerminatingReplicas).
	terminating bool
}

// New returns the controller.
func New(c client.Client, live client.Reader, events record.EventRecorder, terminating bool) *Controller {
	return &Controller{client: c, live: live, events: events, clock: clock.RealClock{}, terminating: terminating}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	selector := func(o client.Object) *metav1.LabelSelector { return o.(*appsv1.Deployment).Spec.Selector }
	return builder.ControllerManagedBy(mgr).Named("deployment-controller").WithOptions(o).
		For(&appsv1.Deployment{}).
		Watches(&appsv1.ReplicaSet{}, claim.OwnedOrWanted(kind, c.client, &appsv1.DeploymentList{}, selector)).
		// The end of a pod lets a Recreate rollout go on.
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(c.recreatedBy), builder.WithPredicates(podEnds)).
		Complete(conflict.Ignored(ownwrites.Remembered(c)))
}

// podEnds passes the pods that have just ended.
var podEnds = predicate.Funcs{
	CreateFunc:  func(event.CreateEvent) bool { return false },
	GenericFunc: func(event.GenericEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
		return !pods.IsTerminated(before) && pods.IsTerminated(after)
	},
}

// Reconcile takes one Deployment a step further.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	d := &appsv1.Deployment{} // all that its fields refer to belongs to the cache, but for the annotations
	if err := c.client.Get(ctx, req.NamespacedName, d, client.UnsafeDisableDeepCopy); err != nil {
		c.late.Written(req.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	d.Annotations = maps.Clone(d.Annotations)
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(fmt.Errorf("spec.selector: %w", err))
	}
	if selector.Empty() {
		c.events.Eventf(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		return reconcile.Result{}, nil
	}
	sets, err := claim.Claim[appsv1.ReplicaSet](ctx, claim.Owner{Object: d, Kind: kind, Selector: selector, Borrow: true, Client: c.client, Live: c.live}, nil)
	if err != nil {
		return reconcile.Result{}, err
	}
	s := newState(d, resizable(sets), c.clock.Now())
	if d.DeletionTimestamp == nil {
		if err := c.act(ctx, s); err != nil {
			return reconcile.Result{}, err
		}
	}
	return c.writeStatus(ctx, s)
}

// act carries out the next step of the rollout.
func (c *Controller) act(ctx context.Context, s *state) error {
	paused := s.d.Spec.Paused
	if err := c.syncNew(ctx, s); err != nil {
		return err
	}
	if paused || s.resized() {
		if err := c.resize(ctx, s, s.proportional()); err != nil {
			return err
		}
		if paused {
			return c.cleanUp(ctx, s)
		}
		return nil
	}
	switch s.d.Spec.Strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if done, err := c.stopOld(ctx, s); err != nil || !done {
			return err
		}
		if err := c.createNew(ctx, s); err != nil {
			return err
		}
		if err := c.resize(ctx, s, []size{{s.new, *s.d.Spec.Replicas}}); err != nil {
			return err
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		if err := c.createNew(ctx, s); err != nil {
			return err
		}
		if steps := s.roll(); len(steps) > 0 {
			return c.resize(ctx, s, steps)
		}
	default:
		return reconcile.TerminalError(fmt.Errorf("spec.strategy.type: %q is not known", s.d.Spec.Strategy.Type))
	}
	if s.complete(s.d.Status) {
		return c.cleanUp(ctx, s)
	}
	return nil
}

// resize gives ReplicaSets their new sizes.
func (c *Controller) resize(ctx context.Context, s *state, sizes []size) error {
	for _, step := range sizes {
		rs, from := step.set, ptr.Deref(step.set.Spec.Replicas, 0)
		annotated := setSizeAnnotations(rs, *s.d.Spec.Replicas, s.most())
		if from == step.replicas && !annotated {
			continue
		}
		rs.Spec.Replicas = ptr.To(step.replicas)
		if err := c.client.Update(ctx, rs); err != nil {
			return fmt.Errorf("resizing ReplicaSet %s: %w", rs.Name, err)
		}
		if from != step.replicas {
			direction := "up"
			if step.replicas < from {
				direction = "down"
			}
			c.events.Eventf(s.d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", direction, rs.Name, from, step.replicas)
		}
	}
	return nil
}

// stopOld scales the old ReplicaSets down and reports whether their pods are gone.
func (c *Controller) stopOld(ctx context.Context, s *state) (bool, error) {
	var sizes []size
	for _, rs := range active(s.old) {
		sizes = append(sizes, size{rs, 0})
	}
	if len(sizes) > 0 {
		return false, c.resize(ctx, s, sizes)
	}
	for _, rs := range s.old {
		left, err := index.Controlled[corev1.Pod](ctx, c.client, rs.Namespace, rs.UID)
		if err != nil {
			return false, fmt.Errorf("listing pods of ReplicaSet %s: %w", rs.Name, err)
		}
		if slices.ContainsFunc(left, func(p *corev1.Pod) bool { return !pods.IsTerminated(p) }) {
			return false, nil
		}
	}
	return true, nil
}

// syncNew keeps revision numbers and what the Deployment passes on to its newest
// ReplicaSet up to date.
func (c *Controller) syncNew(ctx context.Context, s *state) error {
	if s.new == nil {
		return nil
	}
	changed := annotate(s.new, s.d, s.nextRevision(), true)
	if s.new.Spec.MinReadySeconds != s.d.Spec.MinReadySeconds {
		s.new.Spec.MinReadySeconds = s.d.Spec.MinReadySeconds
		changed = true
	}
	if changed {
		if err := c.client.Update(ctx, s.new); err != nil {
			return fmt.Errorf("updating ReplicaSet %s: %w", s.new.Name, err)
		}
	}
	if deadlineSet(s.d) && condition(s.d.Status, appsv1.DeploymentProgressing) == nil {
		s.progress = newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet",
			fmt.Sprintf("Found new replica set %q", s.new.Name), s.now)
	}
	return nil
}

// createNew creates the ReplicaSet for the current template unless there is one.
func (c *Controller) createNew(ctx context.Context, s *state) error {
	if s.new != nil {
		return nil
	}
	rs := s.wantNew()
	err := c.client.Create(ctx, rs)
	if apierrors.IsAlreadyExists(err) {
		return c.collision(ctx, s, rs, err)
	}
	if pods.IsNamespaceTerminating(err) {
		return reconcile.TerminalError(err)
	}
	if err != nil {
		msg := fmt.Sprintf("Failed to create new replica set %q: %v", rs.Name, err)
		c.events.Event(s.d, corev1.EventTypeWarning, "ReplicaSetCreateError", msg)
		if deadlineSet(s.d) {
			s.progress = newCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", msg, s.now)
			_, statusErr := c.writeStatus(ctx, s)
			err = errors.Join(err, statusErr)
		}
		return fmt.Errorf("creating ReplicaSet %s: %w", rs.Name, err)
	}
	if n := *rs.Spec.Replicas; n > 0 {
		c.events.Eventf(s.d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", rs.Name, n)
	}
	if deadlineSet(s.d) {
		s.progress = newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated",
			fmt.Sprintf("Created new replica set %q", rs.Name), s.now)
	}
	s.new = rs
	return nil
}

// collision handles a ReplicaSet that has the name of the new one. It is either the
// new one, which the cache did not show, or its name collides, and the next attempt
// mixes another number into the hash.
func (c *Controller) collision(ctx context.Context, s *state, want *appsv1.ReplicaSet, exists error) error {
	got := &appsv1.ReplicaSet{}
	if err := c.live.Get(ctx, client.ObjectKeyFromObject(want), got); err != nil {
		return fmt.Errorf("getting ReplicaSet %s: %w", want.Name, err)
	}
	if ref := metav1.GetControllerOf(got); ref != nil && ref.UID == s.d.UID && sameTemplate(&got.Spec.Template, &s.d.Spec.Template) {
		s.new = got
		return nil
	}
	s.d.Status.CollisionCount = ptr.To(ptr.Deref(s.d.Status.CollisionCount, 0) + 1)
	if err := c.client.Status().Update(ctx, s.d); err != nil {
		return fmt.Errorf("counting a name collision: %w", err)
	}
	return fmt.Errorf("creating ReplicaSet %s: %w", want.Name, exists)
}

// cleanUp deletes old ReplicaSets beyond the revision history limit.
func (c *Controller) cleanUp(ctx context.Context, s *state) error {
	for _, rs := range s.obsolete() {
		err := c.client.Delete(ctx, rs, client.Preconditions{UID: &rs.UID, ResourceVersion: &rs.ResourceVersion}, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting old ReplicaSet %s: %w", rs.Name, err)
		}
	}
	return nil
}

// writeStatus writes the status and the revision annotation if either has changed.
func (c *Controller) writeStatus(ctx context.Context, s *state) (reconcile.Result, error) {
	status, next := s.status(c.terminating)
	revision := s.d.Annotations[RevisionAnnotation]
	if s.new != nil && s.d.DeletionTimestamp == nil {
		revision = s.new.Annotations[RevisionAnnotation]
	}
	key := client.ObjectKeyFromObject(s.d)
	if revision == s.d.Annotations[RevisionAnnotation] {
		if equality.Semantic.DeepEqual(status, s.d.Status) {
			c.late.Written(key)
			return reconcile.Result{RequeueAfter: next}, nil
		}
		if s.unsettled() && onlyCounts(s.d.Status, status) {
			if wait := c.late.Wait(key, c.clock.Now()); wait > 0 {
				if next > 0 {
					wait = min(wait, next)
				}
				return reconcile.Result{RequeueAfter: wait}, nil
			}
		}
	}
	if revision != "" {
		metav1.SetMetaDataAnnotation(&s.d.ObjectMeta, RevisionAnnotation, revision)
	}
	s.d.Status = status
	if err := c.client.Status().Update(ctx, s.d); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	c.late.Written(key)
	return reconcile.Result{RequeueAfter: next}, nil
}

// resizable copies of borrowed ReplicaSets what a rollout changes: their annotations and, as a field of the struct, their size.
func resizable(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	copies := make([]*appsv1.ReplicaSet, len(sets))
	for i, rs := range sets {
		c := *rs
		c.Annotations = maps.Clone(rs.Annotations)
		copies[i] = &c
	}
	return copies
}

// recreatedBy returns the Deployment of a pod if it waits for its old pods to end.
func (c *Controller) recreatedBy(ctx context.Context, pod client.Object) []reconcile.Request {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return nil
	}
	rs := &appsv1.ReplicaSet{}
	if err := c.client.Get(ctx, client.ObjectKey{Namespace: pod.GetNamespace(), Name: ref.Name}, rs, client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	if ref = metav1.GetControllerOfNoCopy(rs); ref == nil || ref.Kind != kind.Kind {
		return nil
	}
	d := &appsv1.Deployment{}
	key := client.ObjectKey{Namespace: pod.GetNamespace(), Name: ref.Name}
	if err := c.client.Get(ctx, key, d, client.UnsafeDisableDeepCopy); err != nil || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// sortByAge sorts the oldest first.
func sortByAge(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	return slices.SortedStableFunc(slices.Values(sets), func(a, b *appsv1.ReplicaSet) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return cmp.Compare(a.Name, b.Name)
	})
}

func newCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) *appsv1.DeploymentCondition {
	return &appsv1.DeploymentCondition{
		Type: t, Status: status, Reason: reason, Message: message,
		LastUpdateTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
	}
}
