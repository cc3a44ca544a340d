// Package selinuxwarning tells of pods that could not use a volume on the same node, since they want it mounted with different
// SELinux labels: where a volume is mounted with a label, there is but one for all.
//
// Only those volumes count whose driver mounts them with a label. The files of others are given theirs one by one, for each pod again.
package selinuxwarning

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/component-helpers/storage/ephemeral"
	csitrans "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
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
	ledger *ledger
}

// New returns the controller.
func New(c client.Client, events record.EventRecorder, registry metrics.KubeRegistry) *Controller {
	n := &Controller{client: c, events: events, ledger: newLedger()}
	n.ledger.register(registry)
	return n
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	// Of what matters here, nothing changes in a pod but that it ends.
	ends := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		a, b := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
		return a.UID != b.UID || pods.IsTerminated(a) != pods.IsTerminated(b)
	}}
	binds := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool { return binding(e.ObjectOld) != binding(e.ObjectNew) }}
	mounts := func(o client.Object) bool { return ptr.Deref(o.(*storagev1.CSIDriver).Spec.SELinuxMount, false) }
	turns := predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return mounts(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool { return mounts(e.ObjectOld) != mounts(e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return mounts(e.Object) },
	}
	users := handler.EnqueueRequestsFromMapFunc(c.users)
	return builder.ControllerManagedBy(mgr).Named("selinux-warning-controller").WithOptions(o).
		For(&corev1.Pod{}, builder.WithPredicates(ends)).
		Watches(&corev1.PersistentVolumeClaim{}, users, builder.WithPredicates(binds)).
		Watches(&corev1.PersistentVolume{}, users, builder.WithPredicates(binds)).
		Watches(&storagev1.CSIDriver{}, users, builder.WithPredicates(turns)).
		Complete(c)
}

// binding says what a claim or volume is bound to.
func binding(o client.Object) string {
	switch o := o.(type) {
	case *corev1.PersistentVolumeClaim:
		return string(o.Status.Phase) + o.Spec.VolumeName
	case *corev1.PersistentVolume:
		if o.Spec.ClaimRef != nil {
			return string(o.Spec.ClaimRef.UID)
		}
	}
	return ""
}

// users returns the pods of a claim, or of the claim of a volume. A driver concerns all.
func (c *Controller) users(ctx context.Context, o client.Object) []reconcile.Request {
	list, opts := &corev1.PodList{}, []client.ListOption{client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency}
	var err error
	switch o := o.(type) {
	case *corev1.PersistentVolumeClaim:
		list, err = index.WithClaim(ctx, c.client, o.Namespace, o.Name, opts...)
	case *corev1.PersistentVolume:
		if ref := o.Spec.ClaimRef; ref != nil {
			list, err = index.WithClaim(ctx, c.client, ref.Namespace, ref.Name, opts...)
		}
	default:
		err = c.client.List(ctx, list, opts...)
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing pods")
		return nil
	}
	reqs := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		reqs[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return reqs
}

// Reconcile notes how one pod uses its volumes, and tells what is in the way of it, and of others because of it.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	pod := &corev1.Pod{}
	if err := c.client.Get(ctx, req.NamespacedName, pod); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	if pod.UID == "" || pods.IsTerminated(pod) { // its volumes are being unmounted
		c.ledger.note(req.NamespacedName, nil)
		return reconcile.Result{}, nil
	}
	uses, err := c.uses(ctx, pod)
	if err != nil {
		return reconcile.Result{}, err
	}
	for _, conflict := range c.ledger.note(req.NamespacedName, uses) {
		concerned := &corev1.Pod{}
		if err := c.client.Get(ctx, conflict.pod, concerned); err == nil {
			c.events.Event(concerned, corev1.EventTypeNormal, conflict.reason(), conflict.String())
		} else if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// uses says how a pod uses its volumes, by volume.
func (c *Controller) uses(ctx context.Context, pod *corev1.Pod) (map[string]use, error) {
	all := labels(pod)
	uses := map[string]use{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		wanted, mounted := all[v.Name]
		if !mounted {
			continue
		}
		source, err := c.source(ctx, pod, v)
		if errors.Is(err, errUnbound) {
			continue // the watches bring its volume
		}
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if len(wanted) > 1 {
			c.events.Eventf(pod, corev1.EventTypeWarning, "MultipleSELinuxLabels", "Volume %q is mounted twice with different SELinux labels inside this pod", v.Name)
			continue
		}
		name, err := c.labelled(ctx, source)
		if err != nil {
			return nil, err
		}
		if name != "" {
			uses[name] = useOf(pod, wanted)
		}
	}
	return uses, nil
}

// errUnbound says that a pod's claim has no volume yet.
var errUnbound = errors.New("no volume is bound")

// source returns what a volume of a pod stands for.
func (c *Controller) source(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (*corev1.PersistentVolumeSource, error) {
	claimName := ""
	switch t := csitrans.New(); {
	case v.PersistentVolumeClaim != nil:
		claimName = v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		claimName = ephemeral.VolumeClaimName(pod, v)
	case t.IsInlineMigratable(v):
		pv, err := t.TranslateInTreeInlineVolumeToCSI(klog.FromContext(ctx), v, pod.Namespace)
		if err != nil {
			return nil, err
		}
		return &pv.Spec.PersistentVolumeSource, nil
	case v.ISCSI != nil:
		return &corev1.PersistentVolumeSource{ISCSI: &corev1.ISCSIPersistentVolumeSource{TargetPortal: v.ISCSI.TargetPortal, IQN: v.ISCSI.IQN, Lun: v.ISCSI.Lun}}, nil
	default:
		return &corev1.PersistentVolumeSource{FC: v.FC}, nil
	}
	claim, pv := &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}
	if err := c.client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: claimName}, claim); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" || v.Ephemeral != nil && ephemeral.VolumeIsForPod(pod, claim) != nil {
		return nil, errUnbound
	}
	if err := c.client.Get(ctx, types.NamespacedName{Name: claim.Spec.VolumeName}, pv); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
		return nil, errUnbound
	}
	if t := csitrans.New(); pv.Spec.CSI == nil && t.IsPVMigratable(pv) {
		translated, err := t.TranslateInTreePVToCSI(klog.FromContext(ctx), pv)
		if err != nil {
			return nil, err
		}
		pv = translated
	}
	return &pv.Spec.PersistentVolumeSource, nil
}

// labelled names a volume, if it is one that is mounted with a label.
func (c *Controller) labelled(ctx context.Context, s *corev1.PersistentVolumeSource) (string, error) {
	switch {
	case s.CSI != nil:
		d := &storagev1.CSIDriver{}
		if err := c.client.Get(ctx, client.ObjectKey{Name: s.CSI.Driver}, d); client.IgnoreNotFound(err) != nil {
			return "", err
		}
		if !ptr.Deref(d.Spec.SELinuxMount, false) {
			return "", nil
		}
		return "csi/" + s.CSI.Driver + "^" + s.CSI.VolumeHandle, nil
	case s.ISCSI != nil:
		return fmt.Sprintf("iscsi/%s:%s:%d", s.ISCSI.TargetPortal, s.ISCSI.IQN, s.ISCSI.Lun), nil
	case s.FC != nil:
		return fmt.Sprintf("fc/%v:%d:%v", slices.Sorted(slices.Values(s.FC.TargetWWNs)), ptr.Deref(s.FC.Lun, 0), slices.Sorted(slices.Values(s.FC.WWIDs))), nil
	}
	return "", nil
}
