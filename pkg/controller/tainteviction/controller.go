// Package tainteviction deletes pods from nodes with NoExecute taints that they do
// not tolerate, or no longer.
package tainteviction

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
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

	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Controller reconciles pods.
type Controller struct {
	client client.Client
	events record.EventRecorder
	clock  clock.PassiveClock

	mu sync.Mutex
	// since is when a pod was first seen under taints that it tolerates for a while.
	since map[types.NamespacedName]sighting

	deleted *metrics.Counter
	latency *metrics.Histogram
}

type sighting struct {
	uid types.UID
	at  time.Time
}

// New returns the controller.
func New(c client.Client, events record.EventRecorder, registry metrics.KubeRegistry) *Controller {
	const subsystem = "taint_eviction_controller"
	deleted := metrics.NewCounter(&metrics.CounterOpts{Subsystem: subsystem, Name: "pod_deletions_total", Help: "Number of pods that were deleted", StabilityLevel: metrics.ALPHA})
	latency := metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: subsystem, Name: "pod_deletion_duration_seconds", StabilityLevel: metrics.ALPHA,
		Help:    "Time between when a pod was to be deleted and when it was",
		Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30, 60, 120, 180, 240},
	})
	registry.MustRegister(deleted, latency)
	return &Controller{client: c, events: events, clock: clock.RealClock{}, since: map[types.NamespacedName]sighting{}, deleted: deleted, latency: latency}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	bound := predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return e.Object.(*corev1.Pod).Spec.NodeName != "" },
		UpdateFunc: func(e event.UpdateEvent) bool {
			a, b := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
			return b.Spec.NodeName != "" && (a.Spec.NodeName != b.Spec.NodeName || !equality.Semantic.DeepEqual(a.Spec.Tolerations, b.Spec.Tolerations))
		},
	}
	tainted := predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return len(noExecute(e.Object.(*corev1.Node))) > 0 },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return !equality.Semantic.DeepEqual(noExecute(e.ObjectOld.(*corev1.Node)), noExecute(e.ObjectNew.(*corev1.Node)))
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	return builder.ControllerManagedBy(mgr).Named("taint-eviction-controller").WithOptions(o).
		For(&corev1.Pod{}, builder.WithPredicates(bound)).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(c.podsOf), builder.WithPredicates(tainted)).
		Complete(c)
}

func (c *Controller) podsOf(ctx context.Context, node client.Object) []reconcile.Request {
	list, err := index.OnNode(ctx, c.client, node.GetName())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing the pods of a tainted node", "node", klog.KObj(node))
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return reqs
}

// Reconcile deletes one pod if its time on its node is over.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	p := &corev1.Pod{}
	if err := c.client.Get(ctx, req.NamespacedName, p, client.UnsafeDisableDeepCopy); err != nil {
		c.forget(req.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if p.Spec.NodeName == "" || p.DeletionTimestamp != nil || pods.IsTerminated(p) {
		c.forget(req.NamespacedName)
		return reconcile.Result{}, nil
	}
	node := &corev1.Node{}
	if err := c.client.Get(ctx, client.ObjectKey{Name: p.Spec.NodeName}, node, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	now := c.clock.Now()
	stay, forever := patience(ctx, p, noExecute(node))
	if forever {
		if c.forget(req.NamespacedName) {
			c.events.Eventf(p, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s/%s", p.Namespace, p.Name)
		}
		return reconcile.Result{}, nil
	}
	due := c.firstSeen(p, node, now).Add(stay)
	if left := due.Sub(now); stay > 0 && left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if err := c.evict(ctx, p.DeepCopy()); err != nil {
		return reconcile.Result{}, err
	}
	c.deleted.Inc()
	c.latency.Observe(c.clock.Since(due).Seconds())
	return reconcile.Result{}, nil
}

func (c *Controller) evict(ctx context.Context, p *corev1.Pod) error {
	c.events.Eventf(p, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", p.Namespace, p.Name)
	if pods.Disrupt(p, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", c.clock.Now()) {
		if err := c.client.Status().Update(ctx, p); err != nil {
			return client.IgnoreNotFound(fmt.Errorf("marking the pod: %w", err))
		}
	}
	if err := c.client.Delete(ctx, p, client.Preconditions{UID: &p.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the pod: %w", err)
	}
	return nil
}

// firstSeen returns when the pod's time began: with the taint, if that says when it
// came, or when it was first seen here.
func (c *Controller) firstSeen(p *corev1.Pod, node *corev1.Node, now time.Time) time.Time {
	key := client.ObjectKeyFromObject(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.since[key]; ok && s.uid == p.UID {
		return s.at
	}
	at := now
	for _, t := range noExecute(node) {
		if t.TimeAdded == nil || t.TimeAdded.IsZero() {
			continue
		}
		began := t.TimeAdded.Time
		if p.CreationTimestamp.After(began) {
			began = p.CreationTimestamp.Time
		}
		if began.Before(at) {
			at = began
		}
	}
	c.since[key] = sighting{p.UID, at}
	return at
}

func (c *Controller) forget(key types.NamespacedName) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, was := c.since[key]
	delete(c.since, key)
	return was
}

func noExecute(n *corev1.Node) (taints []corev1.Taint) {
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			taints = append(taints, t)
		}
	}
	return taints
}

// patience returns how long a pod tolerates taints: for ever, or the shortest time
// of its tolerations; no time at all if there is a taint that it does not tolerate.
func patience(ctx context.Context, p *corev1.Pod, taints []corev1.Taint) (stay time.Duration, forever bool) {
	forever = true
	for i := range taints {
		tolerated := false
		for j := range p.Spec.Tolerations {
			t := &p.Spec.Tolerations[j]
			if !t.ToleratesTaint(klog.FromContext(ctx), &taints[i], true) {
				continue
			}
			tolerated = true
			if t.TolerationSeconds != nil {
				d := time.Duration(max(0, *t.TolerationSeconds)) * time.Second
				if forever || d < stay {
					stay, forever = d, false
				}
			}
		}
		if !tolerated {
			return 0, false
		}
	}
	return stay, forever
}
