// Package resourcequota writes into each ResourceQuota how much of it is used.
//
// Admission adds what is created; this controller corrects the sum when something has gone or shrunk, and when a
// quota is new. Pods, Services and claims of volumes and devices are measured; of all else the number matters, and only what a quota
// names is watched.
package resourcequota

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	quotalib "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/leme-k8s/leme/pkg/api/quota"
	"github.com/leme-k8s/leme/pkg/controller/internal/borrow"
)

const (
	// doubt is how long after a change of what is used the sum is checked. What
	// admission has added may never have been stored, or not have been seen here yet.
	doubt = 5 * time.Second
	// unknown is how long until a resource that is not served is looked for again.
	unknown = 30 * time.Second
)

// measured are the resources whose objects are looked at, and not just counted.
var measured = map[schema.GroupResource]struct {
	kind func() client.Object
	list func() client.ObjectList
}{
	corev1.Resource("pods"):     {func() client.Object { return &corev1.Pod{} }, func() client.ObjectList { return &corev1.PodList{} }},
	corev1.Resource("services"): {func() client.Object { return &corev1.Service{} }, func() client.ObjectList { return &corev1.ServiceList{} }},
	corev1.Resource("persistentvolumeclaims"): {
		func() client.Object { return &corev1.PersistentVolumeClaim{} }, func() client.ObjectList { return &corev1.PersistentVolumeClaimList{} },
	},
	resourcev1.Resource("resourceclaims"): {
		func() client.Object { return &resourcev1.ResourceClaim{} }, func() client.ObjectList { return &resourcev1.ResourceClaimList{} },
	},
}

// Controller reconciles ResourceQuotas.
type Controller struct {
	client   client.Client
	clock    clock.PassiveClock
	resync   time.Duration
	counters counters
}

// New returns the controller, which checks every sum at intervals of resync; 0 means never.
func New(c client.Client, mapper meta.RESTMapper, md metadata.Interface, resync time.Duration) *Controller {
	return &Controller{
		client: c, clock: clock.RealClock{}, resync: resync,
		counters: counters{mapper: mapper, metadata: md, running: map[schema.GroupResource]*counter{}},
	}
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	b := builder.ControllerManagedBy(mgr).Named("resourcequota-controller").WithOptions(o).
		Watches(&corev1.ResourceQuota{}, handler.Funcs{
			CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { q.Add(requestOf(e.Object)) },
			UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
				before, after := e.ObjectOld.(*corev1.ResourceQuota), e.ObjectNew.(*corev1.ResourceQuota)
				if !equality.Semantic.DeepEqual(before.Spec, after.Spec) {
					q.Add(requestOf(after))
				} else if !equality.Semantic.DeepEqual(before.Status, after.Status) {
					q.AddAfter(requestOf(after), doubt)
				}
			},
			DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { q.Add(requestOf(e.Object)) },
		}).
		WatchesRawSource(source.Func(func(ctx context.Context, q queue) error {
			c.counters.start(ctx, func(r schema.GroupResource, namespace string) {
				add(q, c.concerned(ctx, r, namespace))
			})
			return nil
		}))
	for resource, m := range measured {
		if _, err := c.counters.mapper.KindFor(resource.WithVersion("")); meta.IsNoMatchError(err) {
			continue
		}
		e := c.registry(context.Background()).Get(resource)
		b.Watches(m.kind(), handler.Funcs{
			UpdateFunc: func(ctx context.Context, u event.UpdateEvent, q queue) {
				// What an object uses takes longer to tell than that no quota cares.
				if reqs := c.concerned(ctx, e.GroupResource(), u.ObjectNew.GetNamespace()); len(reqs) > 0 && usesOtherwise(e, u.ObjectOld, u.ObjectNew) {
					add(q, reqs)
				}
			},
			DeleteFunc: func(ctx context.Context, d event.DeleteEvent, q queue) {
				add(q, c.concerned(ctx, e.GroupResource(), d.Object.GetNamespace()))
			},
		})
	}
	return b.Complete(c)
}

func add(q queue, reqs []reconcile.Request) {
	for _, req := range reqs {
		q.Add(req)
	}
}

func requestOf(o client.Object) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)}
}

// usesOtherwise reports whether an object now uses other amounts, or uses them in other scopes.
func usesOtherwise(e quotalib.Evaluator, before, after runtime.Object) bool {
	a, errA := e.Usage(before)
	b, errB := e.Usage(after)
	if errA != nil || errB != nil || !quotalib.Equals(a, b) {
		return true
	}
	scopes := []corev1.ScopedResourceSelectorRequirement{
		{ScopeName: corev1.ResourceQuotaScopeTerminating, Operator: corev1.ScopeSelectorOpExists},
		{ScopeName: corev1.ResourceQuotaScopeBestEffort, Operator: corev1.ScopeSelectorOpExists},
	}
	for _, o := range []runtime.Object{before, after} {
		if claim, ok := o.(*corev1.PersistentVolumeClaim); ok {
			for _, class := range []*string{claim.Spec.VolumeAttributesClassName, claim.Status.CurrentVolumeAttributesClassName} {
				if class != nil {
					scopes = append(scopes, corev1.ScopedResourceSelectorRequirement{
						ScopeName: corev1.ResourceQuotaScopeVolumeAttributesClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{*class},
					})
				}
			}
		}
	}
	inA, errA := e.MatchingScopes(before, scopes)
	inB, errB := e.MatchingScopes(after, scopes)
	return errA != nil || errB != nil || !equality.Semantic.DeepEqual(inA, inB)
}

// concerned returns the quotas of a namespace, "" for all, that limit something of a resource.
func (c *Controller) concerned(ctx context.Context, r schema.GroupResource, namespace string) []reconcile.Request {
	quotas, err := borrow.List[corev1.ResourceQuota](ctx, c.client, client.InNamespace(namespace), client.DisableReadYourWritesConsistency)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing ResourceQuotas")
		return nil
	}
	if len(quotas) == 0 {
		return nil
	}
	e := c.registry(ctx).Get(r)
	if e == nil {
		e = generic.NewObjectCountEvaluator(r, nil, "")
	}
	var reqs []reconcile.Request
	for _, q := range quotas {
		if len(e.MatchingResources(quotalib.ResourceNames(q.Spec.Hard))) > 0 {
			reqs = append(reqs, requestOf(q))
		}
	}
	return reqs
}

// Reconcile writes what is used of one quota.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	q := &corev1.ResourceQuota{}
	err := c.client.Get(ctx, req.NamespacedName, q)
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, c.forget(ctx)
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	registry := c.registry(ctx)
	again := c.resync
	for r := range counted(registry, q.Spec.Hard) {
		if registry.Get(r) == nil {
			registry.Add(generic.NewObjectCountEvaluator(r, func(namespace string) ([]runtime.Object, error) { return c.count(r, namespace) }, ""))
		}
		if c.counters.follow(r) == nil && !uncounted.Has(r) {
			again = unknown
		}
	}
	usage, err := quotalib.CalculateUsage(q.Namespace, q.Spec.Scopes, q.Spec.Hard, registry, q.Spec.ScopeSelector)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Not all that a quota limits can be measured", "err", err)
	}
	status := statusOf(q, usage)
	if !equality.Semantic.DeepEqual(status, q.Status) {
		q.Status = status
		err := c.client.Status().Update(ctx, q)
		if apierrors.IsConflict(err) { // admission has added something
			return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
		}
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("updating the status: %w", err)
		}
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// statusOf returns the status of a quota of which usage has been measured. What
// could not be measured stays as it was.
func statusOf(q *corev1.ResourceQuota, usage corev1.ResourceList) corev1.ResourceQuotaStatus {
	used := quotalib.Add(corev1.ResourceList{}, q.Status.Used)
	for name, quantity := range usage {
		used[name] = quantity
	}
	hard := quotalib.Add(corev1.ResourceList{}, q.Spec.Hard)
	return corev1.ResourceQuotaStatus{Hard: hard, Used: quotalib.Mask(used, quotalib.ResourceNames(hard))}
}

// counted returns the resources of which hard limits a number that has to be counted.
func counted(registry quotalib.Registry, hard corev1.ResourceList) sets.Set[schema.GroupResource] {
	found := sets.New[schema.GroupResource]()
	for name := range hard {
		if resource, ok := strings.CutPrefix(string(name), "count/"); ok {
			found.Insert(schema.ParseGroupResource(resource))
		}
	}
	// Some have an older name as well.
	for _, e := range registry.List() {
		if len(e.MatchingResources(quotalib.ResourceNames(hard))) > 0 {
			found.Insert(e.GroupResource())
		}
	}
	for r := range measured {
		found.Delete(r)
	}
	return found
}

// forget stops counting what no quota wants counted.
func (c *Controller) forget(ctx context.Context) error {
	var list corev1.ResourceQuotaList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing ResourceQuotas: %w", err)
	}
	wanted, registry := sets.New[schema.GroupResource](), c.registry(ctx)
	for i := range list.Items {
		wanted = wanted.Union(counted(registry, list.Items[i].Spec.Hard))
	}
	c.counters.keep(wanted)
	return nil
}

// registry returns what measures resources.
func (c *Controller) registry(ctx context.Context) quotalib.Registry {
	return generic.NewRegistry(quota.Evaluators(func(r schema.GroupResource, namespace string) ([]runtime.Object, error) {
		m, ok := measured[r]
		if !ok {
			return c.count(r, namespace)
		}
		list := m.list()
		if err := c.client.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, err
		}
		return meta.ExtractList(list)
	}, c.devices(ctx), c.clock))
}

// devices looks up in the cache what claims of devices do not say.
func (c *Controller) devices(ctx context.Context) quota.Devices {
	return quota.Devices{
		Class: func(name string) (*resourcev1.DeviceClass, error) {
			class := &resourcev1.DeviceClass{}
			return class, c.client.Get(ctx, client.ObjectKey{Name: name}, class, client.DisableReadYourWritesConsistency)
		},
		Pod: func(namespace, name string) (*corev1.Pod, error) {
			pod := &corev1.Pod{}
			return pod, c.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod, client.DisableReadYourWritesConsistency)
		},
		Claims: func(namespace string) ([]resourcev1.ResourceClaim, error) {
			var list resourcev1.ResourceClaimList
			err := c.client.List(ctx, &list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
			return list.Items, err
		},
	}
}

var errNotListed = errors.New("has not been listed yet")

// count returns as many objects as there are, which is all that an evaluator that
// counts looks at.
func (c *Controller) count(r schema.GroupResource, namespace string) ([]runtime.Object, error) {
	counter := c.counters.follow(r)
	if counter == nil {
		return nil, fmt.Errorf("%s: is not served in namespaces", r)
	}
	n, listed := counter.count(namespace)
	if !listed {
		return nil, fmt.Errorf("%s: %w", r, errNotListed)
	}
	return make([]runtime.Object, n), nil
}
