// Package pvbinder brings PersistentVolumeClaims and PersistentVolumes together: those
// that are there, and those that external provisioners are asked for.
//
//	claim.go   what to do for a claim
//	volume.go  what to do for a volume
package pvbinder

import (
	"context"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	csitrans "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/api/defaultclass"
	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

// Controller reconciles claims and, in a queue of their own, volumes.
type Controller struct {
	client       client.Client
	live         client.Reader
	events       record.EventRecorder
	provisioning bool
	counts       *measures
}

// New returns the controller, which asks for volumes if provisioning is on.
func New(c client.Client, live client.Reader, events record.EventRecorder, provisioning bool, registry metrics.KubeRegistry) *Controller {
	return &Controller{client: c, live: live, events: events, provisioning: provisioning, counts: newMeasures(registry, c)}
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	o.MaxConcurrentReconciles = 1 // two claims at a time would choose the same volume
	started := predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return (e.ObjectOld.(*corev1.Pod).Spec.NodeName == "") != (e.ObjectNew.(*corev1.Pod).Spec.NodeName == "")
		},
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	err := builder.ControllerManagedBy(mgr).Named("persistentvolume-binder-controller").WithOptions(o).
		For(&corev1.PersistentVolumeClaim{}).
		Watches(&corev1.PersistentVolume{}, handler.EnqueueRequestsFromMapFunc(c.claimsFor)).
		Watches(&storagev1.StorageClass{}, handler.EnqueueRequestsFromMapFunc(c.claimsOf)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(c.unboundOf), builder.WithPredicates(started)).
		Complete(conflict.Ignored(reconcile.Func(c.reconcileClaim)))
	if err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).Named("persistentvolume-binder-controller-volumes").WithOptions(o).
		For(&corev1.PersistentVolume{}).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(c.volumesOf)).
		Complete(conflict.Ignored(reconcile.Func(c.reconcileVolume)))
}

// claimsFor returns the claim that a volume is for, or all that it may be for.
func (c *Controller) claimsFor(ctx context.Context, o client.Object) []reconcile.Request {
	v := o.(*corev1.PersistentVolume)
	return c.claims(ctx, func(claim *corev1.PersistentVolumeClaim) bool {
		if claim.Spec.VolumeName != "" {
			return claim.Spec.VolumeName == v.Name
		}
		if ref := v.Spec.ClaimRef; ref != nil {
			return ref.Namespace == claim.Namespace && ref.Name == claim.Name
		}
		return storagehelpers.GetPersistentVolumeClaimClass(claim) == storagehelpers.GetPersistentVolumeClass(v)
	})
}

// claimsOf returns the claims without a volume that a class may concern.
func (c *Controller) claimsOf(ctx context.Context, class client.Object) []reconcile.Request {
	return c.claims(ctx, func(claim *corev1.PersistentVolumeClaim) bool {
		name := storagehelpers.GetPersistentVolumeClaimClass(claim)
		return claim.Spec.VolumeName == "" && (name == class.GetName() || name == "")
	})
}

func (c *Controller) claims(ctx context.Context, want func(*corev1.PersistentVolumeClaim) bool) []reconcile.Request {
	var list corev1.PersistentVolumeClaimList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing PersistentVolumeClaims")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		if want(&list.Items[i]) {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return reqs
}

// unboundOf returns those claims of a pod that wait for a volume.
func (c *Controller) unboundOf(ctx context.Context, pod client.Object) []reconcile.Request {
	var reqs []reconcile.Request
	for _, name := range index.PodsByClaim().Values(pod) {
		claim, key := &corev1.PersistentVolumeClaim{}, client.ObjectKey{Namespace: pod.GetNamespace(), Name: name}
		if c.client.Get(ctx, key, claim, client.DisableReadYourWritesConsistency) == nil && claim.Spec.VolumeName == "" {
			reqs = append(reqs, reconcile.Request{NamespacedName: key})
		}
	}
	return reqs
}

// volumesOf returns the volumes that a claim names, or that name it.
func (c *Controller) volumesOf(ctx context.Context, o client.Object) []reconcile.Request {
	claim := o.(*corev1.PersistentVolumeClaim)
	var list corev1.PersistentVolumeList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing PersistentVolumes")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		v := &list.Items[i]
		if ref := v.Spec.ClaimRef; v.Name == claim.Spec.VolumeName || ref != nil && ref.Namespace == claim.Namespace && ref.Name == claim.Name {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(v)})
		}
	}
	return reqs
}

// reconcileClaim carries out the plan for one claim.
func (c *Controller) reconcileClaim(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	claim := &corev1.PersistentVolumeClaim{}
	if err := c.client.Get(ctx, req.NamespacedName, claim); err != nil {
		c.counts.end(req.NamespacedName, provision, false)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if changed, err := c.noteMigration(ctx, claim, storagehelpers.AnnStorageProvisioner, storagehelpers.AnnBetaStorageProvisioner); changed || err != nil {
		return reconcile.Result{}, err // the watch brings it back
	}
	facts, err := c.facts(ctx, claim)
	if err != nil {
		return reconcile.Result{}, err
	}
	p, err := planClaim(claim, facts)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("finding a volume: %w", err)
	}
	if p.event != nil {
		c.events.Event(claim, p.event.kind, p.event.reason, p.event.message)
	}
	switch {
	case p.bind != nil:
		err := c.bind(ctx, p.bind.DeepCopy(), claim)
		if err == nil {
			c.counts.end(req.NamespacedName, provision, true)
		}
		return reconcile.Result{}, err
	case p.class != "":
		claim.Spec.StorageClassName = &p.class
		err := c.client.Update(ctx, claim)
		c.counts.gaveClass(err)
		return reconcile.Result{}, err
	case p.provisioner != "" && claim.Annotations[storagehelpers.AnnStorageProvisioner] != p.provisioner:
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, storagehelpers.AnnStorageProvisioner, p.provisioner)
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, storagehelpers.AnnBetaStorageProvisioner, p.provisioner)
		if err := c.client.Update(ctx, claim); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
		c.counts.begin(req.NamespacedName, p.provisioner, provision)
	}
	if p.phase != "" {
		return reconcile.Result{}, c.setClaimStatus(ctx, claim, p.phase, nil)
	}
	return reconcile.Result{}, nil
}

func (c *Controller) facts(ctx context.Context, claim *corev1.PersistentVolumeClaim) (claimFacts, error) {
	f := claimFacts{provisioning: c.provisioning, migrated: migrated}
	var volumes corev1.PersistentVolumeList
	if err := c.client.List(ctx, &volumes, client.UnsafeDisableDeepCopy); err != nil {
		return f, fmt.Errorf("listing PersistentVolumes: %w", err)
	}
	for i := range volumes.Items {
		f.volumes = append(f.volumes, &volumes.Items[i])
	}
	if claim.Spec.VolumeName != "" {
		return f, nil
	}
	var classes storagev1.StorageClassList
	if err := c.client.List(ctx, &classes, client.UnsafeDisableDeepCopy); err != nil {
		return f, fmt.Errorf("listing StorageClasses: %w", err)
	}
	all := make([]*storagev1.StorageClass, len(classes.Items))
	for i := range classes.Items {
		all[i] = &classes.Items[i]
		if all[i].Name == storagehelpers.GetPersistentVolumeClaimClass(claim) {
			f.class = all[i]
		}
	}
	if standard, ok := defaultclass.Of(all, "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"); ok {
		f.standard = standard
	}
	users, err := index.WithClaim(ctx, c.client, claim.Namespace, claim.Name)
	if err != nil {
		return f, fmt.Errorf("listing pods: %w", err)
	}
	for i := range users.Items {
		if p := &users.Items[i]; p.Spec.NodeName == "" && !pods.IsTerminated(p) {
			f.waiting = append(f.waiting, p.Name)
		}
	}
	return f, nil
}

// bind writes down on both sides that a volume and a claim belong together. Whatever of it is done already stays
// as it is, so that it can be taken up after any step.
func (c *Controller) bind(ctx context.Context, v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	bound, changed, err := storagehelpers.GetBindVolumeToClaim(v, claim)
	if err != nil {
		return err
	}
	if changed {
		if err := c.client.Update(ctx, bound); err != nil {
			return err
		}
	}
	if err := c.setVolumePhase(ctx, bound, corev1.VolumeBound, ""); err != nil {
		return err
	}
	changed = false
	if claim.Spec.VolumeName != bound.Name {
		claim.Spec.VolumeName, changed = bound.Name, true
		if !metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBoundByController) {
			metav1.SetMetaDataAnnotation(&claim.ObjectMeta, storagehelpers.AnnBoundByController, "yes")
		}
	}
	if !metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted) {
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, storagehelpers.AnnBindCompleted, "yes")
		changed = true
	}
	if changed {
		if err := c.client.Update(ctx, claim); err != nil {
			return err
		}
	}
	return c.setClaimStatus(ctx, claim, corev1.ClaimBound, bound)
}

func (c *Controller) setClaimStatus(ctx context.Context, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, v *corev1.PersistentVolume) error {
	status := statusOf(claim, phase, v)
	if equality.Semantic.DeepEqual(status, claim.Status) {
		return nil
	}
	claim.Status = status
	return client.IgnoreNotFound(c.client.Status().Update(ctx, claim))
}

func (c *Controller) setVolumePhase(ctx context.Context, v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) error {
	if v.Status.Phase == phase {
		return nil
	}
	v.Status.Phase, v.Status.Message = phase, message
	return client.IgnoreNotFound(c.client.Status().Update(ctx, v))
}

// reconcileVolume carries out the plan for one volume.
func (c *Controller) reconcileVolume(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	v := &corev1.PersistentVolume{}
	if err := c.client.Get(ctx, req.NamespacedName, v); err != nil {
		c.counts.end(req.NamespacedName, remove, apierrors.IsNotFound(err))
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if changed, err := c.noteMigration(ctx, v, storagehelpers.AnnDynamicallyProvisioned); changed || err != nil {
		return reconcile.Result{}, err
	}
	claim, err := c.claimOf(ctx, v)
	if err != nil {
		return reconcile.Result{}, err
	}
	p := planVolume(v, claim)
	if p.unbind {
		v = unbound(v)
		if err := c.client.Update(ctx, v); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
	}
	if p.event != nil {
		c.events.Event(v, p.event.kind, p.event.reason, p.event.message)
	}
	switch byDriver := v.Annotations[storagehelpers.AnnDynamicallyProvisioned]; {
	case v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
	case p.phase == corev1.VolumeReleased && byDriver != "":
		c.counts.begin(req.NamespacedName, byDriver, remove)
	case p.phase == corev1.VolumeFailed:
		c.counts.fail(pluginName(v), remove)
	}
	if p.phase != "" {
		if err := c.setVolumePhase(ctx, v, p.phase, p.message); err != nil {
			return reconcile.Result{}, err
		}
	}
	if p.remove != "" && v.DeletionTimestamp == nil {
		return reconcile.Result{}, c.remove(ctx, v, p.remove)
	}
	return reconcile.Result{}, nil
}

// remove removes a directory of this machine, and the volume that it was.
func (c *Controller) remove(ctx context.Context, v *corev1.PersistentVolume, path string) error {
	if err := os.RemoveAll(path); err != nil {
		c.events.Event(v, corev1.EventTypeWarning, "VolumeFailedDelete", err.Error())
		c.counts.fail(pluginName(v), remove)
		return c.setVolumePhase(ctx, v, corev1.VolumeFailed, err.Error())
	}
	if err := c.client.Delete(ctx, v, client.Preconditions{UID: &v.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the volume: %w", err)
	}
	return nil
}

// claimOf returns the claim that a volume names, or nil if it is gone: the API server is asked, because what
// follows may be the end of the volume.
func (c *Controller) claimOf(ctx context.Context, v *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		return nil, nil
	}
	from := []client.Reader{c.client, c.live}
	if v.Status.Phase == corev1.VolumeReleased || v.Status.Phase == corev1.VolumeFailed {
		from = from[:1] // it has been asked
	}
	for _, r := range from {
		claim := &corev1.PersistentVolumeClaim{}
		err := r.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, claim)
		if err == nil && claim.UID == ref.UID {
			return claim, nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("getting PersistentVolumeClaim %s/%s: %w", ref.Namespace, ref.Name, err)
		}
	}
	return nil, nil
}

// noteMigration says on an object which CSI driver now does the work of the provisioner that an annotation of it names.
func (c *Controller) noteMigration(ctx context.Context, o client.Object, annotations ...string) (bool, error) {
	have := o.GetAnnotations()
	for _, name := range annotations {
		driver := migrated(have[name])
		if driver == "" {
			continue
		}
		if have[storagehelpers.AnnMigratedTo] == driver {
			return false, nil
		}
		have[storagehelpers.AnnMigratedTo] = driver
		o.SetAnnotations(have)
		return true, client.IgnoreNotFound(c.client.Update(ctx, o))
	}
	return false, nil
}

// migrated returns the CSI driver that has taken the place of a provisioner that was part of Kubernetes, or "".
func migrated(provisioner string) string {
	t := csitrans.New()
	if !strings.HasPrefix(provisioner, "kubernetes.io/") || !t.IsMigratableIntreePluginByName(provisioner) {
		return ""
	}
	driver, err := t.GetCSINameFromInTreeName(provisioner)
	if err != nil {
		return ""
	}
	return driver
}
