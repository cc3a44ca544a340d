// Package garbagecollector deletes objects whose owners are gone, and holds back
// the end of owners whose dependents go first or are set free.
//
// It watches the metadata of everything that can be deleted and keeps only who owns
// whom. The graph says what to look at; what to do is decided on the objects as the API
// server has them, never on the graph alone.
package garbagecollector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/lru"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Controller reconciles objects of all kinds, by their UID.
type Controller struct {
	mapper   meta.RESTMapper
	metadata metadata.Interface
	events   record.EventRecorder
	monitors *monitors
	graph    *graph
	// absent remembers owners that are known not to exist.
	absent *lru.Cache
}

// New returns the controller.
func New(mapper meta.RESTMapper, disco discovery.DiscoveryInterface, md metadata.Interface, events record.EventRecorder, registry metrics.KubeRegistry) *Controller {
	failed := metrics.NewCounter(&metrics.CounterOpts{
		Subsystem: "garbagecollector_controller", Name: "resources_sync_error_total", Help: "Number of times that not all resources were known", StabilityLevel: metrics.ALPHA,
	})
	registry.MustRegister(failed)
	g, absent := newGraph(), lru.New(500)
	return &Controller{
		mapper: mapper, metadata: md, events: events, graph: g, absent: absent,
		monitors: &monitors{
			graph: g, absent: absent, discovery: disco, metadata: md, failed: failed, changed: make(chan struct{}, 1), reset: func() { meta.MaybeResetRESTMapper(mapper) },
			running: map[schema.GroupVersionResource]*monitor{},
		},
	}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	ctl, err := controller.NewTyped("garbage-collector-controller", mgr, controller.TypedOptions[types.UID]{
		Reconciler: c, MaxConcurrentReconciles: o.MaxConcurrentReconciles,
	})
	if err != nil {
		return err
	}
	c.monitors.cache = mgr.GetCache()
	return ctl.Watch(c.monitors)
}

// Reconcile looks at one object.
func (c *Controller) Reconcile(ctx context.Context, uid types.UID) (reconcile.Result, error) {
	o, dependents, ok := c.graph.get(uid)
	if !ok || o.deleting && !o.foreground && !o.orphan {
		return reconcile.Result{}, nil
	}
	api, err := c.resource(o.identity)
	if err != nil {
		return reconcile.Result{}, err
	}
	live, err := api.Get(ctx, o.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return reconcile.Result{}, fmt.Errorf("getting %s: %w", o, err)
	}
	if err != nil || live.UID != uid {
		if !o.virtual {
			return reconcile.Result{}, nil // its watch will say so
		}
		// Nothing of that kind may be watched that would say that it is gone.
		c.absent.Add(o.identity, nil)
		for _, d := range c.graph.remove(uid) {
			c.monitors.look(d)
		}
		return reconcile.Result{}, nil
	}
	if o.virtual {
		// It exists; when it is watched it will be seen, else this is how to learn of its end.
		return reconcile.Result{RequeueAfter: 30 * time.Second}, nil
	}
	now := fromMetadata(o.GroupVersionKind, live)
	switch {
	case now.orphan:
		err = c.orphan(ctx, api, live, dependents)
	case now.foreground:
		err = c.foreground(ctx, api, live, dependents)
	case !now.deleting && len(now.owners) > 0:
		err = c.collect(ctx, api, now, live, dependents)
	}
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
	}
	return reconcile.Result{}, err
}

// collect deletes an object that has no owner left, or cuts its ties to those that
// are gone if it has others.
func (c *Controller) collect(ctx context.Context, api metadata.ResourceInterface, o object, live *metav1.PartialObjectMetadata, dependents []object) error {
	for _, ref := range c.graph.misplaced(o) {
		c.events.Eventf(o.reference(), corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
			"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q", ref.APIVersion, ref.Kind, o.Namespace, ref.Name, ref.UID, o.Namespace)
	}
	var solid, going []types.UID
	for _, ref := range o.owners {
		owner, err := c.owner(ctx, ref, o.Namespace)
		switch {
		case err != nil:
			return fmt.Errorf("looking for the owner of %s: %w", o, err)
		case owner == nil: // gone
		case owner.foreground || owner.deleting && c.graph.waited(ref.UID):
			going = append(going, ref.UID)
		default:
			solid = append(solid, ref.UID)
		}
	}
	if len(solid) > 0 {
		if len(solid) == len(o.owners) {
			return nil
		}
		return c.patch(ctx, api, live, map[string]any{"ownerReferences": slices.DeleteFunc(slices.Clone(o.owners), func(r metav1.OwnerReference) bool {
			return !slices.Contains(solid, r.UID)
		})})
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case slices.Contains(live.Finalizers, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(live.Finalizers, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	case len(going) > 0 && len(dependents) > 0:
		// An owner waits for this one, and this one waits for its own dependents; not if
		// one of them waits already, or they would wait for each other.
		if slices.ContainsFunc(dependents, func(d object) bool { return d.foreground }) {
			refs := slices.Clone(o.owners)
			for i := range refs {
				refs[i].BlockOwnerDeletion = ptr.To(false)
			}
			if err := c.patch(ctx, api, live, map[string]any{"ownerReferences": refs}); err != nil {
				return err
			}
			live.ResourceVersion = ""
		}
		policy = metav1.DeletePropagationForeground
	}
	klog.FromContext(ctx).V(2).Info("Deleting an object whose owners are gone", "object", o.String(), "propagation", policy)
	opts := metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: metav1.NewUIDPreconditions(string(o.UID))}
	if live.ResourceVersion != "" {
		opts.Preconditions.ResourceVersion = &live.ResourceVersion
	}
	if err := api.Delete(ctx, o.Name, opts); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting %s: %w", o, err)
	}
	return nil
}

// owner returns the object that ref means, or nil if there is none.
func (c *Controller) owner(ctx context.Context, ref metav1.OwnerReference, namespace string) (*object, error) {
	id := identityOf(ref, namespace)
	if _, known := c.absent.Get(id); known {
		return nil, nil
	}
	mapping, err := c.mapper.RESTMapping(id.GroupKind(), id.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace && namespace == "" {
		// A cluster-scoped object cannot be owned by one in a namespace. It is left alone.
		return &object{identity: id}, nil
	}
	api, err := c.resource(id)
	if err != nil {
		return nil, err
	}
	live, err := api.Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && live.UID != ref.UID {
		c.absent.Add(id, nil)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	o := fromMetadata(id.GroupVersionKind, live)
	return &o, nil
}

// foreground lets an owner go whose dependents are to go first, once no dependent
// that blocks it is left.
func (c *Controller) foreground(ctx context.Context, api metadata.ResourceInterface, live *metav1.PartialObjectMetadata, dependents []object) error {
	blocked := false
	for _, d := range dependents {
		ref := refTo(d.owners, live.UID)
		if ref == nil {
			continue
		}
		if ptr.Deref(ref.BlockOwnerDeletion, false) {
			blocked = true
		}
		if !d.deleting {
			c.monitors.look(d.UID)
		}
	}
	if blocked {
		return nil
	}
	return c.dropFinalizer(ctx, api, live, metav1.FinalizerDeleteDependents)
}

// orphan sets the dependents of an owner free and then lets it go.
func (c *Controller) orphan(ctx context.Context, api metadata.ResourceInterface, live *metav1.PartialObjectMetadata, dependents []object) error {
	errs := pods.InParallel(len(dependents), func(i int) error {
		d := dependents[i]
		dapi, err := c.resource(d.identity)
		if err != nil {
			return err
		}
		fresh, err := dapi.Get(ctx, d.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && (fresh.UID != d.UID || refTo(fresh.OwnerReferences, live.UID) == nil) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("getting %s: %w", d, err)
		}
		return c.patch(ctx, dapi, fresh, map[string]any{"ownerReferences": slices.DeleteFunc(fresh.OwnerReferences, func(r metav1.OwnerReference) bool {
			return r.UID == live.UID
		})})
	})
	if len(errs) > 0 {
		return fmt.Errorf("setting free what %s owns: %w", live.Name, errors.Join(errs...))
	}
	return c.dropFinalizer(ctx, api, live, metav1.FinalizerOrphanDependents)
}

func (c *Controller) dropFinalizer(ctx context.Context, api metadata.ResourceInterface, live *metav1.PartialObjectMetadata, finalizer string) error {
	return c.patch(ctx, api, live, map[string]any{"finalizers": slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == finalizer })})
}

// patch changes the metadata of an object, provided that it still is as it was read.
func (c *Controller) patch(ctx context.Context, api metadata.ResourceInterface, live *metav1.PartialObjectMetadata, m map[string]any) error {
	m["uid"], m["resourceVersion"] = live.UID, live.ResourceVersion
	data, err := json.Marshal(map[string]any{"metadata": m})
	if err != nil {
		return err
	}
	_, err = api.Patch(ctx, live.Name, types.MergePatchType, data, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patching %s: %w", live.Name, err)
	}
	return nil
}

// resource returns the API of an object's kind.
func (c *Controller) resource(id identity) (metadata.ResourceInterface, error) {
	mapping, err := c.mapper.RESTMapping(id.GroupKind(), id.Version)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	api := c.metadata.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return api.Namespace(id.Namespace), nil
	}
	return api, nil
}

// String names the object in logs and errors.
func (id identity) String() string {
	if id.Namespace == "" {
		return fmt.Sprintf("%s %s", id.GroupKind(), id.Name)
	}
	return fmt.Sprintf("%s %s/%s", id.GroupKind(), id.Namespace, id.Name)
}
