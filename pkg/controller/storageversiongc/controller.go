// Package storageversiongc takes out of StorageVersions what API servers that are gone have said in them. An API server
// is there as long as its Lease is.
package storageversiongc

import (
	"context"
	"fmt"
	"slices"

	apiserverinternalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storageversion"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
)

// The label of API servers' Leases, and its value.
const (
	IdentityLabel = "apiserver.kubernetes.io/identity"
	APIServer     = "kube-apiserver"
)

// Controller reconciles StorageVersions.
type Controller struct {
	client client.Client
	live   client.Reader
}

// New returns the controller.
func New(c client.Client, live client.Reader) *Controller { return &Controller{client: c, live: live} }

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	gone := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return isAPIServer(e.ObjectOld) && !isAPIServer(e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return isAPIServer(e.Object) },
	}
	return builder.ControllerManagedBy(mgr).Named("storageversion-garbage-collector-controller").WithOptions(o).
		For(&apiserverinternalv1alpha1.StorageVersion{}).
		Watches(&coordinationv1.Lease{}, handler.EnqueueRequestsFromMapFunc(c.saidBy), builder.WithPredicates(gone)).
		Complete(conflict.Ignored(c))
}

func isAPIServer(lease client.Object) bool {
	return lease.GetNamespace() == metav1.NamespaceSystem && lease.GetLabels()[IdentityLabel] == APIServer
}

// saidBy returns the StorageVersions that have an entry of the API server with a Lease.
func (c *Controller) saidBy(ctx context.Context, lease client.Object) []reconcile.Request {
	var list apiserverinternalv1alpha1.StorageVersionList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing StorageVersions")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		if slices.Contains(servers(&list.Items[i]), lease.GetName()) {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return reqs
}

func servers(v *apiserverinternalv1alpha1.StorageVersion) []string {
	var ids []string
	for _, s := range v.Status.StorageVersions {
		ids = append(ids, s.APIServerID)
	}
	return ids
}

// Reconcile looks at one StorageVersion.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	v := &apiserverinternalv1alpha1.StorageVersion{}
	if err := c.client.Get(ctx, req.NamespacedName, v); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	there := map[string]bool{}
	for _, id := range servers(v) {
		// An API server that has just started may not be in the cache yet.
		lease := &coordinationv1.Lease{}
		err := c.live.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: id}, lease)
		if err != nil && !apierrors.IsNotFound(err) {
			return reconcile.Result{}, fmt.Errorf("asking for the Lease of API server %s: %w", id, err)
		}
		there[id] = err == nil && isAPIServer(lease)
	}
	switch forget(v, there) {
	case update:
		return reconcile.Result{}, client.IgnoreNotFound(c.client.Status().Update(ctx, v))
	case remove:
		return reconcile.Result{}, client.IgnoreNotFound(c.client.Delete(ctx, v, client.Preconditions{UID: &v.UID, ResourceVersion: &v.ResourceVersion}))
	}
	return reconcile.Result{}, nil
}

// What is to be done with a StorageVersion.
type action int

const (
	nothing action = iota
	update
	remove
)

// forget takes out what API servers have said that are not there. What none has an entry in is to go, but for what
// never had one: the first API server may be about to make its.
func forget(v *apiserverinternalv1alpha1.StorageVersion, there map[string]bool) action {
	before := len(v.Status.StorageVersions)
	v.Status.StorageVersions = slices.DeleteFunc(v.Status.StorageVersions, func(s apiserverinternalv1alpha1.ServerStorageVersion) bool {
		return !there[s.APIServerID]
	})
	switch len(v.Status.StorageVersions) {
	case before:
		return nothing
	case 0:
		return remove
	}
	storageversion.SetCommonEncodingVersion(v)
	return update
}
