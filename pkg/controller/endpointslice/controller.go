// Package endpointslice publishes the pods behind each Service in EndpointSlices.
// What a slice holds is decided by the published library k8s.io/endpointslice.
package endpointslice

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/endpointslice"
	endpointslicemetrics "k8s.io/endpointslice/metrics"
	"k8s.io/endpointslice/topologycache"
	endpointsliceutil "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/servicepods"
)

// managedBy is the value of the label on the slices that are this controller's.
const managedBy = "endpointslice-controller.k8s.io"

// Controller reconciles Services.
type Controller struct {
	client   client.Client
	events   record.EventRecorder
	delay    time.Duration
	slices   *endpointslice.Reconciler
	tracker  *endpointsliceutil.EndpointSliceTracker
	triggers *endpointsliceutil.TriggerTimeTracker
	topology *topologycache.TopologyCache
}

// New returns the controller. A slice holds at most perSlice endpoints; changes of
// pods wait for delay, in which more may gather.
func New(c client.Client, cs kubernetes.Interface, events record.EventRecorder, perSlice int, delay time.Duration) *Controller {
	endpointslicemetrics.RegisterMetrics() // once a process, of which the library makes them
	tracker := endpointsliceutil.NewEndpointSliceTracker()
	topology := topologycache.NewTopologyCache()
	return &Controller{
		client: c, events: events, delay: delay, tracker: tracker, topology: topology,
		triggers: endpointsliceutil.NewTriggerTimeTracker(),
		slices: endpointslice.NewReconciler(cs, servicepods.Nodes{Reader: c}, int32(perSlice), tracker, topology, events, managedBy,
			endpointslice.WithPreferSameTrafficDistributionEnabled(true)),
	}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	return builder.ControllerManagedBy(mgr).Named("endpointslice-controller").WithOptions(o).
		For(&corev1.Service{}).
		Watches(&corev1.Pod{}, servicepods.OnPod(c.client, c.delay)).
		Watches(&discoveryv1.EndpointSlice{}, c.onSlice()).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(c.onNode), builder.WithPredicates(nodeMatters)).
		Complete(c)
}

// onSlice enqueues the Service of a slice that somebody else has changed, or whose
// change this controller is waiting to see.
func (c *Controller) onSlice() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	enqueue := func(s *discoveryv1.EndpointSlice, q queue) {
		if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKey{Namespace: s.Namespace, Name: name}})
		}
	}
	seen := func(s *discoveryv1.EndpointSlice, q queue) {
		if c.slices.ManagedByController(s) {
			enqueue(s, q)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { seen(e.Object.(*discoveryv1.EndpointSlice), q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			before, after := e.ObjectOld.(*discoveryv1.EndpointSlice), e.ObjectNew.(*discoveryv1.EndpointSlice)
			if before.Labels[discoveryv1.LabelServiceName] != after.Labels[discoveryv1.LabelServiceName] || c.slices.ManagedByChanged(before, after) {
				enqueue(before, q)
				enqueue(after, q)
				return
			}
			seen(after, q)
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
			s := e.Object.(*discoveryv1.EndpointSlice)
			if c.slices.ManagedByController(s) && c.tracker.Has(s) {
				c.tracker.HandleDeletion(s)
				enqueue(s, q)
			}
		},
	}
}

// nodeMatters passes the changes of nodes that topology hints depend on.
var nodeMatters = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		a, b := e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)
		return !equality.Semantic.DeepEqual(a.Labels, b.Labels) || ready(a) != ready(b) ||
			!equality.Semantic.DeepEqual(a.Status.Allocatable[corev1.ResourceCPU], b.Status.Allocatable[corev1.ResourceCPU])
	},
}

func ready(n *corev1.Node) corev1.ConditionStatus {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

// onNode renews what topology hints are made from.
func (c *Controller) onNode(ctx context.Context, _ client.Object) []reconcile.Request {
	log := klog.FromContext(ctx)
	var list corev1.NodeList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		log.Error(err, "Listing nodes")
		return nil
	}
	nodes := make([]*corev1.Node, len(list.Items))
	for i := range list.Items {
		nodes[i] = &list.Items[i]
	}
	c.topology.SetNodes(log, nodes)
	var reqs []reconcile.Request
	for _, svc := range c.topology.GetOverloadedServices() {
		if namespace, name, err := cache.SplitMetaNamespaceKey(svc); err == nil {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}})
		}
	}
	return reqs
}

// Reconcile brings the slices of one Service up to date.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	svc := &corev1.Service{}
	err := c.client.Get(ctx, req.NamespacedName, svc)
	if apierrors.IsNotFound(err) {
		c.triggers.DeleteService(req.Namespace, req.Name)
		c.slices.DeleteService(req.Namespace, req.Name)
		c.tracker.DeleteService(req.Namespace, req.Name)
		return reconcile.Result{}, nil // the garbage collector takes the slices
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.Selector == nil {
		return reconcile.Result{}, nil // somebody else's to fill
	}
	pods, err := servicepods.Pods(ctx, c.client, svc)
	if err != nil {
		return reconcile.Result{}, err
	}
	var list discoveryv1.EndpointSliceList
	if err := c.client.List(ctx, &list, client.InNamespace(svc.Namespace), client.MatchingLabels{
		discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: managedBy,
	}); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing EndpointSlices: %w", err)
	}
	var slices []*discoveryv1.EndpointSlice
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			slices = append(slices, &list.Items[i])
		}
	}
	if c.tracker.StaleSlices(svc, slices) {
		// The cache does not yet show what the library has written; the watch that
		// brings it also brings us back.
		endpointslicemetrics.EndpointSliceSyncs.WithLabelValues("stale").Inc()
		return reconcile.Result{}, nil
	}
	if svc.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	trigger := c.triggers.ComputeEndpointLastChangeTriggerTime(svc.Namespace, svc, pods)
	if err := c.slices.Reconcile(klog.FromContext(ctx), svc, pods, slices, trigger); err != nil {
		endpointslicemetrics.EndpointSliceSyncs.WithLabelValues("error").Inc()
		c.events.Eventf(svc, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Service %s/%s: %v", svc.Namespace, svc.Name, err)
		return reconcile.Result{}, fmt.Errorf("updating EndpointSlices: %w", err)
	}
	endpointslicemetrics.EndpointSliceSyncs.WithLabelValues("success").Inc()
	return reconcile.Result{}, nil
}
