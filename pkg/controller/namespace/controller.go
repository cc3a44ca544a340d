// Package namespace empties namespaces that are being deleted.
package namespace

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Controller reconciles namespaces.
type Controller struct {
	client    client.Client
	clientset kubernetes.Interface
	content   content
	clock     clock.PassiveClock
}

// New returns the controller. It finds what a namespace may hold with disco and
// deletes it through meta, which sees the metadata of objects alone.
func New(c client.Client, cs kubernetes.Interface, disco discovery.DiscoveryInterface, meta metadata.Interface) *Controller {
	return &Controller{client: c, clientset: cs, content: content{discovery: disco, metadata: meta}, clock: clock.RealClock{}}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	terminating := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetDeletionTimestamp() != nil })
	podGone := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
	return builder.ControllerManagedBy(mgr).Named("namespace-controller").WithOptions(o).
		For(&corev1.Namespace{}, builder.WithPredicates(terminating)).
		// Pods are what a namespace most often waits for.
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(c.ifTerminating), builder.WithPredicates(podGone)).
		Complete(c)
}

func (c *Controller) ifTerminating(ctx context.Context, o client.Object) []reconcile.Request {
	ns := &corev1.Namespace{}
	key := client.ObjectKey{Name: o.GetNamespace()}
	if err := c.client.Get(ctx, key, ns, client.DisableReadYourWritesConsistency); err != nil || ns.DeletionTimestamp == nil {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// Reconcile deletes what is in a namespace and then lets the namespace go.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	ns := &corev1.Namespace{}
	if err := c.client.Get(ctx, req.NamespacedName, ns); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if ns.DeletionTimestamp == nil || !held(ns) {
		return reconcile.Result{}, nil
	}
	left, err := c.content.clear(ctx, ns, c.clock.Now())
	if err != nil {
		return reconcile.Result{}, err
	}
	status := corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating, Conditions: conditions(ns.Status.Conditions, left, c.clock.Now())}
	if !equality.Semantic.DeepEqual(status, ns.Status) {
		ns.Status = status
		if err := c.client.Status().Update(ctx, ns); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	if !left.empty() {
		return reconcile.Result{RequeueAfter: c.patience(ns)}, left.err()
	}
	klog.FromContext(ctx).V(2).Info("Namespace is empty")
	var finalizers []corev1.FinalizerName
	for _, f := range ns.Spec.Finalizers {
		if f != corev1.FinalizerKubernetes {
			finalizers = append(finalizers, f)
		}
	}
	ns.Spec.Finalizers = finalizers
	if _, err := c.clientset.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{}); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("finalizing the namespace: %w", err)
	}
	return reconcile.Result{}, nil
}

// patience is how long to wait for finalizers of others before looking again: the
// longer it has taken, the longer.
func (c *Controller) patience(ns *corev1.Namespace) time.Duration {
	age := c.clock.Since(ns.DeletionTimestamp.Time)
	return min(max(age/4, 250*time.Millisecond), 15*time.Second)
}

func held(ns *corev1.Namespace) bool {
	for _, f := range ns.Spec.Finalizers {
		if f == corev1.FinalizerKubernetes {
			return true
		}
	}
	return false
}
