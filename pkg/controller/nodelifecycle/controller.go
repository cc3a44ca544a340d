// Package nodelifecycle notices that a node has fallen silent, and tells with
// conditions and taints what the scheduler and the eviction of pods act on.
//
// A node is alive while its Lease or its status is renewed. The time of the renewal is
// taken from this process's clock: nodes' clocks may be wrong.
package nodelifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/component-base/metrics"
	"k8s.io/component-helpers/node/topology"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Config says when a node counts as lost, and how fast lost nodes lose their pods.
type Config struct {
	// GracePeriod is how long a node may be silent; StartupGracePeriod how long one
	// that has never been heard of.
	GracePeriod, StartupGracePeriod time.Duration
	// EvictionRate is how many nodes a second get a NoExecute taint in a zone, and
	// SecondaryEvictionRate in a zone of which too much is down at once.
	EvictionRate, SecondaryEvictionRate float32
	// UnhealthyZoneThreshold is the share of a zone that is too much; LargeCluster the
	// number of nodes up to which such a zone gets no taints at all.
	UnhealthyZoneThreshold float32
	LargeCluster           int
}

// Controller reconciles nodes.
type Controller struct {
	counts *measures
	client client.Client
	events record.EventRecorder
	clock  clock.PassiveClock
	config Config

	mu     sync.Mutex
	health map[string]*health                 // by node
	pace   map[string]flowcontrol.RateLimiter // by zone and rate
}

// health is when and how a node was last heard of.
type health struct {
	heard     time.Time
	heartbeat metav1.Time
	renewed   metav1.MicroTime
	// known is what events name the node by.
	known *corev1.ObjectReference
	// untold says that the pods of a silent node are still to be marked.
	untold bool
}

// New returns the controller.
func New(c client.Client, events record.EventRecorder, config Config, registry metrics.KubeRegistry) *Controller {
	return &Controller{counts: newMeasures(registry, c), client: c, events: events, clock: clock.RealClock{}, config: config, health: map[string]*health{}, pace: map[string]flowcontrol.RateLimiter{}}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	nodeLease := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetNamespace() == corev1.NamespaceNodeLease })
	byName := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: o.GetName()}}}
	})
	return builder.ControllerManagedBy(mgr).Named("node-lifecycle-controller").WithOptions(o).
		For(&corev1.Node{}).
		Watches(&coordinationv1.Lease{}, byName, builder.WithPredicates(nodeLease)).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(c.troubled), builder.WithPredicates(readinessChanges)).
		Complete(conflict.Ignored(c))
}

// readinessChanges passes what can change the state of a zone.
var readinessChanges = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		return ready(e.ObjectOld.(*corev1.Node)) != ready(e.ObjectNew.(*corev1.Node))
	},
}

// troubled returns the nodes that are not ready: what their zones allow may have changed.
func (c *Controller) troubled(ctx context.Context, _ client.Object) []reconcile.Request {
	var list corev1.NodeList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing nodes")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		if ready(&list.Items[i]) != corev1.ConditionTrue {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKey{Name: list.Items[i].Name}})
		}
	}
	return reqs
}

// Reconcile brings the conditions and taints of one node up to date.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	node := &corev1.Node{}
	if err := c.client.Get(ctx, req.NamespacedName, node); err != nil {
		if client.IgnoreNotFound(err) == nil {
			c.forget(req.Name)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	lease := &coordinationv1.Lease{}
	if err := c.client.Get(ctx, client.ObjectKey{Namespace: corev1.NamespaceNodeLease, Name: node.Name}, lease); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	due := c.hear(node, lease)
	now := c.clock.Now()
	defer func() { c.counts.took.Observe(c.clock.Since(now).Seconds()) }()
	if !due.After(now) {
		if err := c.silence(ctx, node, now); err != nil {
			return reconcile.Result{}, err
		}
	}
	errs := []error{c.label(ctx, node), c.tellPods(ctx, node)}
	wait, err := c.taint(ctx, node)
	errs = append(errs, err)
	if left := due.Sub(now); left > 0 && (wait == 0 || left < wait) {
		wait = left
	}
	return reconcile.Result{RequeueAfter: wait}, errors.Join(errs...)
}

func (c *Controller) forget(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.health[node]; h != nil {
		c.events.Eventf(h.known, corev1.EventTypeNormal, "RemovingNode", "Node %s event: Removing Node %s from Controller", node, node)
	}
	delete(c.health, node)
}

// silence writes down that nothing is heard of a node.
func (c *Controller) silence(ctx context.Context, node *corev1.Node, now time.Time) error {
	conds, changed := silent(node, now)
	if !changed {
		return nil
	}
	wasReady := ready(node) == corev1.ConditionTrue
	node.Status.Conditions = conds
	if err := c.client.Status().Update(ctx, node); err != nil {
		return fmt.Errorf("updating the conditions: %w", err)
	}
	if wasReady {
		c.events.Eventf(reference(node), corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", node.Name)
		c.setUntold(node.Name, true)
	}
	return nil
}

func (c *Controller) setUntold(node string, untold bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.health[node]; h != nil {
		h.untold = untold
	}
}

// label keeps the labels of old clients equal to those that have taken their place.
func (c *Controller) label(ctx context.Context, node *corev1.Node) error {
	labels := oldLabels(node)
	if len(labels) == 0 {
		return nil
	}
	before := node.DeepCopy()
	maps.Copy(node.Labels, labels)
	if err := c.client.Patch(ctx, node, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("updating the labels: %w", err)
	}
	return nil
}

// reference returns how events name a node.
func reference(node *corev1.Node) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}

// hear takes note of a renewal and returns when the node counts as silent without
// another one.
func (c *Controller) hear(node *corev1.Node, lease *coordinationv1.Lease) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	r := condition(node, corev1.NodeReady)
	h := c.health[node.Name]
	if h == nil {
		// A node that was silent before this process has begun: its pods may not have been told.
		h = &health{heard: now, known: reference(node), untold: r != nil && r.Status == corev1.ConditionUnknown}
		if r == nil {
			h.heard = node.CreationTimestamp.Time
		}
		c.health[node.Name] = h
		c.events.Eventf(h.known, corev1.EventTypeNormal, "RegisteredNode", "Node %s event: Registered Node %s in Controller", node.Name, node.Name)
	}
	if r != nil && r.Reason != reasonUnknown && r.Reason != reasonNever && !r.LastHeartbeatTime.Equal(&h.heartbeat) {
		h.heartbeat, h.heard = r.LastHeartbeatTime, now
	}
	if t := lease.Spec.RenewTime; t != nil && t.After(h.renewed.Time) {
		h.renewed, h.heard = *t, now
	}
	grace := c.config.GracePeriod
	if r == nil {
		grace = c.config.StartupGracePeriod
	}
	return h.heard.Add(grace)
}

// tellPods marks the pods of a node that is not heard of any more: whoever sends them
// requests must not wait for their eviction. What a kubelet says of a node that is not
// ready, it says of its pods as well.
func (c *Controller) tellPods(ctx context.Context, node *corev1.Node) error {
	c.mu.Lock()
	untold := c.health[node.Name].untold
	c.mu.Unlock()
	if !untold {
		return nil
	}
	if ready(node) != corev1.ConditionTrue {
		if err := c.markPods(ctx, node); err != nil {
			return err // and again
		}
	}
	c.setUntold(node.Name, false)
	return nil
}

func (c *Controller) markPods(ctx context.Context, node *corev1.Node) error {
	list, err := index.OnNode(ctx, c.client, node.Name)
	if err != nil {
		return fmt.Errorf("listing pods of the node: %w", err)
	}
	var errs []error
	for i := range list.Items {
		p := &list.Items[i]
		cond := pods.Condition(p, corev1.PodReady)
		if cond == nil || cond.Status != corev1.ConditionTrue {
			continue
		}
		cond.Status, cond.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(c.clock.Now())
		if err := c.client.Status().Update(ctx, p); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("marking pod %s/%s: %w", p.Namespace, p.Name, err))
			continue
		}
		c.events.Event(p, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return errors.Join(errs...)
}

// taint gives the node the taints that follow from its state. It returns when a
// taint that must wait for others may follow.
func (c *Controller) taint(ctx context.Context, node *corev1.Node) (time.Duration, error) {
	var list corev1.NodeList
	if ready(node) != corev1.ConditionTrue {
		if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
			return 0, fmt.Errorf("listing nodes: %w", err)
		}
	}
	zone := topology.GetZoneKey(node)
	rate := rateOf(zone, list.Items, c.config)
	taints, evicts := wantedTaints(node, rate >= 0, metav1.NewTime(c.clock.Now()))
	wait := time.Duration(0)
	if evicts && !c.mayEvict(zone, rate) {
		taints = keepEvictions(taints, node.Spec.Taints)
		if rate > 0 {
			wait = time.Second
		}
	}
	if equality.Semantic.DeepEqual(taints, node.Spec.Taints) {
		return wait, nil
	}
	before := node.DeepCopy()
	node.Spec.Taints = taints
	if err := c.client.Patch(ctx, node, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return wait, fmt.Errorf("updating the taints: %w", err)
	}
	if evicting(taints) && !evicting(before.Spec.Taints) {
		c.counts.evictions.WithLabelValues(zone).Inc()
	}
	return wait, nil
}

// evicting reports whether taints that follow from a node's state make its pods go.
func evicting(taints []corev1.Taint) bool {
	return slices.ContainsFunc(taints, func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute && (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable)
	})
}

// mayEvict takes the zone's turn to lose another node.
func (c *Controller) mayEvict(zone string, rate float32) bool {
	if rate <= 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := fmt.Sprint(zone, rate)
	if c.pace[key] == nil {
		c.pace[key] = flowcontrol.NewTokenBucketRateLimiter(rate, 1)
	}
	return c.pace[key].TryAccept()
}
