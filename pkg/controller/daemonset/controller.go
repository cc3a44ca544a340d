// Package daemonset runs a pod of a DaemonSet on each node that it is meant for.
package daemonset

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
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
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
	"github.com/leme-k8s/leme/pkg/controller/internal/revision"
)

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// burst bounds the pods that one reconciliation creates or deletes.
const burst = 250

// Controller reconciles DaemonSets.
type Controller struct {
	client client.Client
	live   client.Reader
	events record.EventRecorder
	clock  clock.PassiveClock
	// failed slows the replacement of pods that fail again and again on a node.
	failed *flowcontrol.Backoff
}

// New returns the controller.
func New(c client.Client, live client.Reader, events record.EventRecorder) *Controller {
	return &Controller{client: c, live: live, events: events, clock: clock.RealClock{}, failed: flowcontrol.NewBackOff(time.Second, 15*time.Minute)}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	selector := func(o client.Object) *metav1.LabelSelector { return o.(*appsv1.DaemonSet).Spec.Selector }
	return builder.ControllerManagedBy(mgr).Named("daemonset-controller").WithOptions(o).
		For(&appsv1.DaemonSet{}).
		Watches(&corev1.Pod{}, claim.OwnedOrWanted(kind, c.client, &appsv1.DaemonSetList{}, selector)).
		Watches(&appsv1.ControllerRevision{}, claim.OwnedBy(kind)).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(c.all), builder.WithPredicates(nodeMatters)).
		Complete(conflict.Ignored(ownwrites.Remembered(c)))
}

// nodeMatters passes the changes of nodes that can move a DaemonSet's pods; nodes
// write their status all the time.
var nodeMatters = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		a, b := e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)
		return !equality.Semantic.DeepEqual(a.Labels, b.Labels) || !equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints)
	},
}

// all returns every DaemonSet.
func (c *Controller) all(ctx context.Context, _ client.Object) []reconcile.Request {
	var list appsv1.DaemonSetList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing DaemonSets")
		return nil
	}
	reqs := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		reqs[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return reqs
}

// Reconcile puts the pods of one DaemonSet in place and writes its status.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	ds := &appsv1.DaemonSet{}
	if err := c.client.Get(ctx, req.NamespacedName, ds); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil {
		return reconcile.Result{}, reconcile.TerminalError(fmt.Errorf("spec.selector: %w", err))
	}
	if selector.Empty() {
		c.events.Eventf(ds, corev1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return reconcile.Result{}, nil
	}
	if ds.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	owner := claim.Owner{Object: ds, Kind: kind, Selector: selector, Client: c.client, Live: c.live}
	hash, history, err := c.history(ctx, ds, owner)
	if err != nil {
		return reconcile.Result{}, err
	}
	in, err := c.observe(ctx, ds, owner, hash)
	if err != nil {
		return reconcile.Result{}, err
	}
	p := in.plan()
	actErr := c.act(ctx, ds, hash, in, p)
	if actErr == nil && len(p.create)+len(p.remove) > 0 {
		// The status is that of what is there now, not of what was there before.
		if in, err = c.observe(ctx, ds, owner, hash); err != nil {
			return reconcile.Result{}, err
		}
	}
	if actErr == nil {
		used := sets.New(hash)
		for _, pod := range in.pods {
			used.Insert(pod.Labels[revision.HashLabel])
		}
		actErr = history.Trim(ctx, int(ptr.Deref(ds.Spec.RevisionHistoryLimit, 10)), used)
	}
	status, next := in.status()
	if !equality.Semantic.DeepEqual(ds.Status, status) {
		ds.Status = status
		if err := c.client.Status().Update(ctx, ds); err != nil {
			return reconcile.Result{}, errors.Join(actErr, client.IgnoreNotFound(err))
		}
	}
	if pods.IsNamespaceTerminating(actErr) {
		return reconcile.Result{}, nil
	}
	if p.again > 0 && (next == 0 || p.again < next) {
		next = p.again
	}
	return reconcile.Result{RequeueAfter: next}, actErr
}

// history returns the hash of the current template and the revisions.
func (c *Controller) history(ctx context.Context, ds *appsv1.DaemonSet, owner claim.Owner) (string, *revision.History, error) {
	all, err := claim.Claim[appsv1.ControllerRevision](ctx, owner, nil)
	if err != nil {
		return "", nil, err
	}
	h := &revision.History{Client: c.client, Live: c.live, Owner: ds, Kind: kind, Label: revision.HashLabel, All: all}
	data, err := revision.Patch(&ds.Spec.Template)
	if err != nil {
		return "", nil, err
	}
	current, err := h.Current(ctx, data, pods.TemplateHash(&ds.Spec.Template, ds.Status.CollisionCount), ds.Spec.Template.Labels)
	if errors.Is(err, revision.ErrCollision) {
		ds.Status.CollisionCount = ptr.To(ptr.Deref(ds.Status.CollisionCount, 0) + 1)
		return "", nil, errors.Join(err, c.client.Status().Update(ctx, ds))
	}
	if err != nil {
		return "", nil, err
	}
	return current.Labels[revision.HashLabel], h, nil
}

// observe gathers what the plan is made from.
func (c *Controller) observe(ctx context.Context, ds *appsv1.DaemonSet, owner claim.Owner, hash string) (*input, error) {
	owned, err := claim.Claim[corev1.Pod](ctx, owner, nil)
	if err != nil {
		return nil, err
	}
	var nodes corev1.NodeList
	if err := c.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	return newInput(ds, hash, nodes.Items, owned, c.clock.Now()), nil
}

// act carries out a plan.
func (c *Controller) act(ctx context.Context, ds *appsv1.DaemonSet, hash string, in *input, p *plan) error {
	control := pods.Control{Client: c.client, Events: c.events}
	for _, pod := range p.ended {
		if in.isFailed(pod) {
			key := string(ds.UID) + "/" + hash + "/" + pods.Target(pod)
			if c.failed.IsInBackOffSinceUpdate(key, c.clock.Now()) {
				p.wait(c.failed.Get(key))
				continue
			}
			c.failed.Next(key, c.clock.Now())
			c.events.Eventf(ds, corev1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", pod.Namespace, pod.Name, pods.Target(pod))
		} else {
			c.events.Eventf(ds, corev1.EventTypeNormal, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", pod.Namespace, pod.Name, pods.Target(pod))
		}
		p.remove = append(p.remove, pod)
	}
	remove := p.remove[:min(len(p.remove), burst)]
	errs := pods.InParallel(len(remove), func(i int) error { return control.Delete(ctx, ds, remove[i]) })
	create := p.create[:min(len(p.create), burst)]
	_, err := pods.SlowStart(len(create), func(i int) error {
		return control.Create(ctx, ds, newPod(ds, hash, create[i]))
	})
	return errors.Join(append(errs, err)...)
}
