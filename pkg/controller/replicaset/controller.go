// Package replicaset keeps the number of pods that a ReplicaSet, or its older
// cousin the ReplicationController, asks for.
package replicaset

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/claim"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/unhurried"
)

// burst bounds the pods that one reconciliation creates or deletes.
const burst = 500

// Controller reconciles the objects of one kind.
type Controller struct {
	kind   kind
	gates  Gates
	counts *Metrics
	client client.Client
	live   client.Reader
	events record.EventRecorder
	clock  clock.PassiveClock
	late   unhurried.Statuses
}

// Gates are Kubernetes' feature gates of these names.
type Gates struct {
	// TerminatingReplicas counts pods that are ending in the status (DeploymentReplicaSetTerminatingReplicas).
	TerminatingReplicas bool
	// PodDeletionCost lets pods say what losing them costs.
	PodDeletionCost bool
}

// New returns the controller of ReplicaSets.
func New(c client.Client, live client.Reader, events record.EventRecorder, gates Gates, m *Metrics) *Controller {
	return &Controller{kind: replicaSet, gates: gates, counts: m, client: c, live: live, events: events, clock: clock.RealClock{}}
}

// NewReplication returns the controller of ReplicationControllers.
func NewReplication(c client.Client, live client.Reader, events record.EventRecorder, gates Gates, m *Metrics) *Controller {
	return &Controller{kind: replicationController, gates: gates, counts: m, client: c, live: live, events: events, clock: clock.RealClock{}}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	selector := func(o client.Object) *metav1.LabelSelector { return c.kind.view(o).Spec.Selector }
	return builder.ControllerManagedBy(mgr).Named(c.kind.controller).WithOptions(o).
		For(c.kind.new()).
		Watches(&corev1.Pod{}, claim.OwnedOrWanted(c.kind.gvk, c.client, c.kind.list, selector)).
		Complete(conflict.Ignored(ownwrites.Remembered(c)))
}

// Reconcile brings one set to its number of pods and writes its status.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	obj := c.kind.new() // all that its fields refer to belongs to the cache
	if err := c.client.Get(ctx, req.NamespacedName, obj, client.UnsafeDisableDeepCopy); err != nil {
		c.late.Written(req.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	set := c.kind.view(obj)
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(fmt.Errorf("spec.selector: %w", err))
	}
	owned, err := claim.Claim(ctx, claim.Owner{Object: obj, Kind: c.kind.gvk, Selector: selector, Borrow: true, Client: c.client, Live: c.live}, pods.IsActive)
	if err != nil {
		return reconcile.Result{}, err
	}
	var active []*corev1.Pod
	var terminating *int32
	if c.gates.TerminatingReplicas {
		terminating = ptr.To[int32](0)
	}
	for _, p := range owned {
		switch {
		case pods.IsActive(p):
			active = append(active, p)
		case !pods.IsTerminated(p) && terminating != nil:
			*terminating++
		}
	}
	var scaleErr error
	if set.DeletionTimestamp == nil {
		active, scaleErr = c.scale(ctx, obj, set, active)
	}
	status, next := c.kind.status(set, active, terminating, scaleErr, c.clock.Now())
	if scaleErr == nil && onlyFewerEnd(&set.Status, &status) {
		if wait := c.late.Wait(req.NamespacedName, c.clock.Now()); wait > 0 {
			if next > 0 {
				wait = min(wait, next)
			}
			return reconcile.Result{RequeueAfter: wait}, nil
		}
	}
	if err := c.kind.writeStatus(ctx, c.client, obj, status); err != nil {
		return reconcile.Result{}, errors.Join(scaleErr, client.IgnoreNotFound(err))
	}
	c.late.Written(req.NamespacedName)
	if pods.IsNamespaceTerminating(scaleErr) {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: next}, scaleErr
}

// onlyFewerEnd reports whether a status only says that some of the pods that were ending have ended, but not all. They end one by one, and
// nobody decides by how many are left.
func onlyFewerEnd(before, after *appsv1.ReplicaSetStatus) bool {
	was, is := ptr.Deref(before.TerminatingReplicas, 0), ptr.Deref(after.TerminatingReplicas, 0)
	if is == 0 || is >= was {
		return false
	}
	same := *after
	same.TerminatingReplicas = before.TerminatingReplicas
	return equality.Semantic.DeepEqual(before, &same)
}

// scale creates what is missing or deletes what is too much, and returns the pods
// that are active afterwards.
func (c *Controller) scale(ctx context.Context, obj client.Object, set *appsv1.ReplicaSet, active []*corev1.Pod) ([]*corev1.Pod, error) {
	control := pods.Control{Client: c.client, Events: c.events}
	switch missing := int(ptr.Deref(set.Spec.Replicas, 1)) - len(active); {
	case missing > 0:
		n := min(missing, burst)
		created := make([]*corev1.Pod, n)
		_, err := pods.SlowStart(n, func(i int) error {
			p := pods.FromTemplate(&set.Spec.Template, obj, c.kind.gvk)
			if err := control.Create(ctx, obj, p); err != nil {
				return err
			}
			created[i] = p
			return nil
		})
		for _, p := range created {
			if p != nil {
				active = append(active, p)
			}
		}
		return active, scaleError("FailedCreate", err)
	case missing < 0:
		related, err := c.related(ctx, set, active)
		if err != nil {
			return active, err
		}
		doomed := pods.ToDelete(active, related, min(-missing, burst), c.gates.PodDeletionCost, c.clock.Now())
		c.counts.deleted(active, doomed, c.clock.Now())
		gone := make([]types.UID, len(doomed))
		failed := pods.InParallel(len(doomed), func(i int) error {
			if err := control.Delete(ctx, obj, doomed[i]); err != nil {
				return err
			}
			gone[i] = doomed[i].UID
			return nil
		})
		return without(active, gone), scaleError("FailedDelete", errors.Join(failed...))
	}
	return active, nil
}

// related returns the active pods of all sets that share set's controller, such as
// the ReplicaSets of one Deployment.
func (c *Controller) related(ctx context.Context, set *appsv1.ReplicaSet, active []*corev1.Pod) ([]*corev1.Pod, error) {
	ref := metav1.GetControllerOfNoCopy(set)
	if ref == nil || c.kind.gvk != replicaSet.gvk {
		return active, nil
	}
	// They only say who goes first, for which the cache is new enough.
	siblings, err := index.Controlled[appsv1.ReplicaSet](ctx, c.client, set.Namespace, ref.UID, client.DisableReadYourWritesConsistency)
	if err != nil {
		return nil, fmt.Errorf("listing ReplicaSets of %s: %w", ref.Name, err)
	}
	related := active
	for _, sibling := range siblings {
		if sibling.UID == set.UID {
			continue
		}
		theirs, err := index.Controlled[corev1.Pod](ctx, c.client, set.Namespace, sibling.UID, client.DisableReadYourWritesConsistency)
		if err != nil {
			return nil, fmt.Errorf("listing pods of %s: %w", sibling.Name, err)
		}
		for _, p := range theirs {
			if pods.IsActive(p) {
				related = append(related, p)
			}
		}
	}
	return related, nil
}

func without(active []*corev1.Pod, gone []types.UID) []*corev1.Pod {
	dead := map[types.UID]bool{}
	for _, uid := range gone {
		dead[uid] = true
	}
	var rest []*corev1.Pod
	for _, p := range active {
		if !dead[p.UID] {
			rest = append(rest, p)
		}
	}
	return rest
}

// manageError is a failure to create or delete pods; the status shows its reason.
type manageError struct {
	reason string
	error
}

func (e *manageError) Unwrap() error { return e.error }

func scaleError(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &manageError{reason, err}
}

// status returns what the status of set should be, and when to look again because
// a pod becomes available by the mere passing of time.
func status(set *appsv1.ReplicaSet, active []*corev1.Pod, scaleErr error, now time.Time) (appsv1.ReplicaSetStatus, time.Duration) {
	s := appsv1.ReplicaSetStatus{
		Replicas:           int32(len(active)),
		ObservedGeneration: set.Generation,
	}
	var next time.Duration
	templateLabels := labels.Set(set.Spec.Template.Labels).AsSelectorPreValidated()
	for _, p := range active {
		if templateLabels.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		switch in := pods.AvailableIn(p, set.Spec.MinReadySeconds, now); {
		case in == 0:
			s.ReadyReplicas++
			s.AvailableReplicas++
		case in > 0:
			s.ReadyReplicas++
			if next == 0 || in < next {
				next = in
			}
		}
	}
	s.Conditions = conditions(set.Status.Conditions, scaleErr, now)
	return s, next
}

func conditions(old []appsv1.ReplicaSetCondition, scaleErr error, now time.Time) []appsv1.ReplicaSetCondition {
	var conds []appsv1.ReplicaSetCondition
	var before *appsv1.ReplicaSetCondition
	for i := range old {
		if old[i].Type == appsv1.ReplicaSetReplicaFailure {
			before = &old[i]
		} else {
			conds = append(conds, old[i])
		}
	}
	var failed *manageError
	switch {
	case !errors.As(scaleErr, &failed):
	case before != nil:
		conds = append(conds, *before)
	default:
		conds = append(conds, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.NewTime(now), Reason: failed.reason, Message: message(failed.error),
		})
	}
	return conds
}

// message is what the API server said, without what the way up has added.
func message(err error) string {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return status.Status().Message
	}
	return err.Error()
}
