// Package volumeexpand says who will make a claim's volume larger: none is made so by
// Kubernetes itself any more, but some are named after provisioners that once were part of it.
package volumeexpand

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	csitrans "k8s.io/csi-translation-lib"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
)

// resizer names, on a claim, the CSI driver that is to make its volume larger.
const resizer = "volume.kubernetes.io/storage-resizer"

// Controller reconciles PersistentVolumeClaims.
type Controller struct {
	client client.Client
	events record.EventRecorder
}

// New returns the controller.
func New(c client.Client, events record.EventRecorder) *Controller {
	return &Controller{client: c, events: events}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	grown := predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return wantsMore(e.Object.(*corev1.PersistentVolumeClaim)) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			a, b := e.ObjectOld.(*corev1.PersistentVolumeClaim), e.ObjectNew.(*corev1.PersistentVolumeClaim)
			before, after := a.Spec.Resources.Requests[corev1.ResourceStorage], b.Spec.Resources.Requests[corev1.ResourceStorage]
			return wantsMore(b) && (!wantsMore(a) || after.Cmp(before) != 0)
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	return builder.ControllerManagedBy(mgr).Named("persistentvolume-expander-controller").WithOptions(o).
		For(&corev1.PersistentVolumeClaim{}, builder.WithPredicates(grown)).Complete(conflict.Ignored(c))
}

// wantsMore reports whether a claim asks for more than it has.
func wantsMore(claim *corev1.PersistentVolumeClaim) bool {
	want, have := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	return claim.Status.Phase == corev1.ClaimBound && want.Cmp(have) > 0
}

// Reconcile looks at one claim.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	claim := &corev1.PersistentVolumeClaim{}
	if err := c.client.Get(ctx, req.NamespacedName, claim); err != nil || !wantsMore(claim) {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	v := &corev1.PersistentVolume{}
	if err := c.client.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, v); err != nil {
		return reconcile.Result{}, fmt.Errorf("getting the volume: %w", err)
	}
	if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.Namespace != claim.Namespace || v.Spec.ClaimRef.UID != claim.UID {
		return reconcile.Result{}, fmt.Errorf("PersistentVolume %s is not bound to the claim", v.Name)
	}
	plugin, driver, err := migrated(v)
	switch {
	case err != nil:
		c.events.Eventf(claim, corev1.EventTypeWarning, "ExternalExpanding", "error getting CSI driver name for pvc %s, with error %v", req, err)
		return reconcile.Result{}, err
	case driver == "":
		kind := corev1.EventTypeNormal
		if v.Spec.CSI == nil {
			kind = corev1.EventTypeWarning // there may be nobody
		}
		c.events.Event(claim, kind, "ExternalExpanding", "waiting for an external controller to expand this PVC")
		return reconcile.Result{}, nil
	}
	c.events.Eventf(claim, corev1.EventTypeNormal, "ExternalExpanding", "CSI migration enabled for %s; waiting for external resizer to expand the pvc", plugin)
	if claim.Annotations[resizer] == driver {
		return reconcile.Result{}, nil
	}
	before := claim.DeepCopy()
	metav1.SetMetaDataAnnotation(&claim.ObjectMeta, resizer, driver)
	return reconcile.Result{}, client.IgnoreNotFound(c.client.Patch(ctx, claim, client.MergeFrom(before)))
}

// migrated returns the plugin that a volume is of and the CSI driver that has taken its place, if one has.
func migrated(v *corev1.PersistentVolume) (plugin, driver string, err error) {
	t := csitrans.New()
	if !t.IsPVMigratable(v) {
		return "", "", nil
	}
	if plugin, err = t.GetInTreePluginNameFromSpec(v, nil); err != nil {
		return "", "", err
	}
	driver, err = t.GetCSINameFromInTreeName(plugin)
	return plugin, driver, err
}
