// Package statefulset runs pods that each have a name, a number and volumes of their own, which
// their successors inherit.
package statefulset

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/controller/internal/claim"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/revision"
)

var kind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

// hashLabel is the one that revisions carry their hash in.
const hashLabel = "controller.kubernetes.io/hash"

// Controller reconciles StatefulSets.
type Controller struct {
	client client.Client
	live   client.Reader
	events record.EventRecorder
	clock  clock.PassiveClock
	// maxUnavailable lets a rolling update take down several pods at a time (MaxUnavailableStatefulSet).
	maxUnavailable bool
}

// New returns the controller.
func New(c client.Client, live client.Reader, events record.EventRecorder, maxUnavailable bool, registry metrics.KubeRegistry) *Controller {
	n := &Controller{client: c, live: live, events: events, clock: clock.RealClock{}, maxUnavailable: maxUnavailable}
	n.register(registry)
	return n
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	selector := func(o client.Object) *metav1.LabelSelector { return o.(*appsv1.StatefulSet).Spec.Selector }
	return builder.ControllerManagedBy(mgr).Named("statefulset-controller").WithOptions(o).
		For(&appsv1.StatefulSet{}).
		Watches(&corev1.Pod{}, claim.OwnedOrWanted(kind, c.client, &appsv1.StatefulSetList{}, selector)).
		Watches(&appsv1.ControllerRevision{}, claim.OwnedBy(kind)).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(c.mounts)).
		Complete(conflict.Ignored(ownwrites.Remembered(c)))
}

// mounts returns the sets that have a use for a claim.
func (c *Controller) mounts(ctx context.Context, claim client.Object) []reconcile.Request {
	return c.which(ctx, claim, func(set *appsv1.StatefulSet) bool { return isClaimOf(set, claim.GetName()) })
}

func (c *Controller) which(ctx context.Context, of client.Object, ok func(*appsv1.StatefulSet) bool) []reconcile.Request {
	var list appsv1.StatefulSetList
	if err := c.client.List(ctx, &list, client.InNamespace(of.GetNamespace()), client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing StatefulSets")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		if ok(&list.Items[i]) {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return reqs
}

// Reconcile takes one StatefulSet a step further and writes its status.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	set := &appsv1.StatefulSet{}
	if err := c.client.Get(ctx, req.NamespacedName, set); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(fmt.Errorf("spec.selector: %w", err))
	}
	owner := claim.Owner{Object: set, Kind: kind, Selector: selector, Client: c.client, Live: c.live}
	h, current, update, err := c.history(ctx, set, owner)
	if err != nil {
		return reconcile.Result{}, err
	}
	in, err := c.observe(ctx, set, owner, current, update)
	if err != nil {
		return reconcile.Result{}, err
	}
	done, actErr := c.act(ctx, in, in.plan())
	if done > 0 {
		// The status is that of what is there now, not of what was there before.
		if in, err = c.observe(ctx, set, owner, current, update); err != nil {
			return reconcile.Result{}, errors.Join(actErr, err)
		}
	}
	status, next := in.status()
	if !equality.Semantic.DeepEqual(set.Status, status) {
		set.Status = status
		if err := c.client.Status().Update(ctx, set); err != nil {
			return reconcile.Result{}, errors.Join(actErr, client.IgnoreNotFound(err))
		}
	}
	if set.DeletionTimestamp == nil {
		used := sets.New(status.CurrentRevision, status.UpdateRevision)
		for _, p := range in.pods {
			used.Insert(p.Labels[revision.HashLabel])
		}
		actErr = errors.Join(actErr, h.Trim(ctx, int(ptr.Deref(set.Spec.RevisionHistoryLimit, 10)), used.Delete("")))
	}
	if pods.IsNamespaceTerminating(actErr) {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: next}, actErr
}

// history returns the revisions, and which of them is the current one and which the one that
// the spec asks for.
func (c *Controller) history(ctx context.Context, set *appsv1.StatefulSet, owner claim.Owner) (h *revision.History, current, update version, err error) {
	all, err := claim.Claim[appsv1.ControllerRevision](ctx, owner, nil)
	if err != nil {
		return nil, current, update, err
	}
	h = &revision.History{Client: c.client, Live: c.live, Owner: set, Kind: kind, Label: hashLabel, Same: same, All: all}
	data, err := revision.Patch(&set.Spec.Template)
	if err != nil {
		return nil, current, update, err
	}
	r, err := h.Current(ctx, data, revision.DataHash(data, ptr.Deref(set.Status.CollisionCount, 0)), set.Spec.Template.Labels)
	if errors.Is(err, revision.ErrCollision) {
		set.Status.CollisionCount = ptr.To(ptr.Deref(set.Status.CollisionCount, 0) + 1)
		return nil, current, update, errors.Join(err, c.client.Status().Update(ctx, set))
	}
	if err != nil {
		return nil, current, update, err
	}
	update = version{r.Name, &set.Spec.Template}
	for _, r := range h.All {
		if r.Name != set.Status.CurrentRevision || r.Name == update.name {
			continue
		}
		t, err := revision.Template(r.Data.Raw)
		if err != nil {
			return nil, current, update, fmt.Errorf("revision %s: %w", r.Name, err)
		}
		return h, version{r.Name, t}, update, nil
	}
	return h, update, update, nil
}

// same reports whether a stored template differs from another only in how it is written, or in fields
// that have been given a default since.
func same(stored, data []byte) bool {
	t, err := revision.Template(stored)
	if err != nil {
		return false
	}
	core.SetDefaultsPodTemplateSpec(t)
	again, err := revision.Patch(t)
	return err == nil && bytes.Equal(again, data)
}

// observe gathers what the plan is made from.
func (c *Controller) observe(ctx context.Context, set *appsv1.StatefulSet, owner claim.Owner, current, update version) (*input, error) {
	owned, err := claim.Claim(ctx, owner, func(p *corev1.Pod) bool {
		_, ok := ordinalOf(set, p.Name)
		return ok
	})
	if err != nil {
		return nil, err
	}
	claims := map[string]*corev1.PersistentVolumeClaim{}
	in := newInput(set, current, update, owned, claims, c.clock.Now())
	in.oneByOne = !c.maxUnavailable
	for _, members := range [][]*member{in.replicas, in.surplus} {
		for _, m := range members {
			for _, want := range newClaims(set, m.ordinal) {
				have := &corev1.PersistentVolumeClaim{}
				err := c.client.Get(ctx, client.ObjectKeyFromObject(want), have)
				if err == nil {
					claims[have.Name] = have
				} else if !apierrors.IsNotFound(err) {
					return nil, fmt.Errorf("getting claim %s: %w", want.Name, err)
				}
			}
		}
	}
	return in, nil
}
