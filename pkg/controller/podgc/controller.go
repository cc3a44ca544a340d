// Package podgc deletes pods that nobody else will: of nodes that are gone, of nodes
// that are out of service, unbound ones that are being deleted, and the oldest of too many that have
// ended.
package podgc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
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

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// quarantine is how long a node must be missing before its pods go: it may be
// registering anew.
const quarantine = 40 * time.Second

// gather is how long more work is waited for before all pods are looked at.
const gather = time.Second

// Controller looks at all pods at once; a request has no name.
type Controller struct {
	client          client.Client
	live            client.Reader
	clock           clock.PassiveClock
	threshold       int
	missing         map[string]time.Time // used by the only worker
	deleted, failed *metrics.CounterVec
}

// New returns the controller, which keeps at most threshold pods that have ended; 0 keeps all.
func New(c client.Client, live client.Reader, threshold int, registry metrics.KubeRegistry) *Controller {
	counter := func(name, help string) *metrics.CounterVec {
		return metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: "pod_gc_collector", Name: name, Help: help, StabilityLevel: metrics.ALPHA}, []string{"namespace", "reason"})
	}
	deleted := counter("force_delete_pods_total", "Number of pods that were to be deleted by force")
	failed := counter("force_delete_pod_errors_total", "Number of pods that could not be deleted by force")
	registry.MustRegister(deleted, failed)
	return &Controller{client: c, live: live, clock: clock.RealClock{}, threshold: threshold, missing: map[string]time.Time{}, deleted: deleted, failed: failed}
}

// Register adds the controller to mgr. It is woken by what can make work for it.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	o.MaxConcurrentReconciles = 1
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	soon := func(q queue) { q.AddAfter(reconcile.Request{}, gather) }
	wake := handler.Funcs{
		CreateFunc: func(_ context.Context, _ event.CreateEvent, q queue) { soon(q) },
		UpdateFunc: func(_ context.Context, _ event.UpdateEvent, q queue) { soon(q) },
		DeleteFunc: func(_ context.Context, _ event.DeleteEvent, q queue) { soon(q) },
	}
	relevant := func(p *corev1.Pod) bool {
		return pods.IsTerminated(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
	}
	podMatters := predicate.Funcs{
		// At the start, the pods of nodes that have gone meanwhile.
		CreateFunc: func(e event.CreateEvent) bool { return e.IsInInitialList || relevant(e.Object.(*corev1.Pod)) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			a, b := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
			moved, ends := a.Spec.NodeName != b.Spec.NodeName, a.DeletionTimestamp == nil && b.DeletionTimestamp != nil
			return !relevant(a) && relevant(b) || (moved || ends) && c.inDoubt(b.Spec.NodeName)
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	nodeMatters := predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return outOfService(e.ObjectOld.(*corev1.Node)) != outOfService(e.ObjectNew.(*corev1.Node))
		},
	}
	return builder.ControllerManagedBy(mgr).Named("pod-garbage-collector-controller").WithOptions(o).
		Watches(&corev1.Pod{}, wake, builder.WithPredicates(podMatters)).
		Watches(&corev1.Node{}, wake, builder.WithPredicates(nodeMatters)).
		Complete(c)
}

// inDoubt reports whether a node may be gone or out of service, by what the cache knows.
func (c *Controller) inDoubt(node string) bool {
	n := &corev1.Node{}
	err := c.client.Get(context.Background(), client.ObjectKey{Name: node}, n, client.UnsafeDisableDeepCopy)
	return err != nil || outOfService(n)
}

// doomed is a pod to delete, and why.
type doomed struct {
	pod             *corev1.Pod
	kind            string // as metrics call it
	reason, message string
}

// Reconcile deletes what nobody else will.
func (c *Controller) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var podList corev1.PodList
	var nodeList corev1.NodeList
	if err := errors.Join(c.client.List(ctx, &podList, client.UnsafeDisableDeepCopy), c.client.List(ctx, &nodeList, client.UnsafeDisableDeepCopy)); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing pods and nodes: %w", err)
	}
	gone, wait, err := c.goneNodes(ctx, podList.Items, nodeList.Items)
	if err != nil {
		return reconcile.Result{}, err
	}
	var errs []error
	for _, d := range choose(podList.Items, nodeList.Items, gone, c.threshold) {
		c.deleted.WithLabelValues(d.pod.Namespace, d.kind).Inc()
		if err := c.delete(ctx, d); err != nil {
			c.failed.WithLabelValues(d.pod.Namespace, d.kind).Inc()
			errs = append(errs, err)
		}
	}
	return reconcile.Result{RequeueAfter: wait}, errors.Join(errs...)
}

// goneNodes returns the nodes that pods are bound to and that have been missing for
// long enough, and how long until the next of them has.
func (c *Controller) goneNodes(ctx context.Context, all []corev1.Pod, nodes []corev1.Node) (map[string]bool, time.Duration, error) {
	exists := map[string]bool{"": true}
	for i := range nodes {
		exists[nodes[i].Name] = true
	}
	now := c.clock.Now()
	missing := map[string]time.Time{}
	for i := range all {
		if n := all[i].Spec.NodeName; !exists[n] {
			missing[n] = now
			if since, ok := c.missing[n]; ok {
				missing[n] = since
			}
		}
	}
	c.missing = missing
	gone := map[string]bool{}
	var wait time.Duration
	for n, since := range missing {
		if left := since.Add(quarantine).Sub(now); left > 0 {
			if wait == 0 || left < wait {
				wait = left
			}
			continue
		}
		err := c.live.Get(ctx, client.ObjectKey{Name: n}, &corev1.Node{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, 0, fmt.Errorf("checking that node %s is gone: %w", n, err)
		}
		gone[n] = err != nil
	}
	return gone, wait, nil
}

// choose decides which pods go.
func choose(all []corev1.Pod, nodes []corev1.Node, gone map[string]bool, threshold int) (out []doomed) {
	retired := map[string]bool{}
	for i := range nodes {
		retired[nodes[i].Name] = outOfService(&nodes[i])
	}
	var ended []*corev1.Pod
	for i := range all {
		p := &all[i]
		switch {
		case gone[p.Spec.NodeName]:
			out = append(out, doomed{p, "orphaned", "DeletionByPodGC", "PodGC: node no longer exists"})
		case retired[p.Spec.NodeName] && p.DeletionTimestamp != nil:
			out = append(out, doomed{p, "out-of-service", "DeletionByPodGC", "PodGC: node out of service"})
		case p.Spec.NodeName == "" && p.DeletionTimestamp != nil:
			out = append(out, doomed{pod: p, kind: "unscheduled"})
		case pods.IsTerminated(p):
			ended = append(ended, p)
		}
	}
	if threshold <= 0 || len(ended) <= threshold {
		return out
	}
	// Evicted pods tell least; then the oldest go.
	slices.SortFunc(ended, func(a, b *corev1.Pod) int {
		if ea, eb := a.Status.Reason == "Evicted", b.Status.Reason == "Evicted"; ea != eb {
			if ea {
				return -1
			}
			return 1
		}
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, p := range ended[:len(ended)-threshold] {
		out = append(out, doomed{pod: p, kind: "terminated"})
	}
	return out
}

// delete marks a pod as failed, so that its owner counts it, and deletes it at once:
// no kubelet will confirm its end.
func (c *Controller) delete(ctx context.Context, d doomed) error {
	p := d.pod.DeepCopy() // the cache owns d.pod
	klog.FromContext(ctx).V(2).Info("Deleting a pod", "pod", klog.KObj(p), "reason", d.message)
	if !pods.IsTerminated(p) {
		before := p.DeepCopy()
		p.Status.Phase, p.Status.ObservedGeneration = corev1.PodFailed, p.Generation
		if d.reason != "" {
			pods.Disrupt(p, d.reason, d.message, c.clock.Now())
		}
		if err := c.client.Status().Patch(ctx, p, client.StrategicMergeFrom(before)); err != nil {
			return client.IgnoreNotFound(fmt.Errorf("marking pod %s/%s: %w", p.Namespace, p.Name, err))
		}
	}
	err := c.client.Delete(ctx, p, client.GracePeriodSeconds(0), client.Preconditions{UID: &p.UID})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// outOfService reports whether an administrator has said that a node will not be back.
func outOfService(n *corev1.Node) bool {
	ready := false
	for _, c := range n.Status.Conditions {
		ready = ready || c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}
	return !ready && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}
