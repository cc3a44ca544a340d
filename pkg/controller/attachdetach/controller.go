// Package attachdetach asks CSI drivers, by VolumeAttachments, to bring volumes to the
// nodes whose pods use them and to take them away again.
//
// What is attached is what the VolumeAttachments say, so nothing is remembered but since when a
// volume has not been wanted on a node that does not answer.
package attachdetach

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/component-helpers/storage/ephemeral"
	csitrans "k8s.io/csi-translation-lib"
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

	"github.com/leme-k8s/leme/pkg/controller/internal/conflict"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
	"github.com/leme-k8s/leme/pkg/controller/internal/ownwrites"
	"github.com/leme-k8s/leme/pkg/controller/internal/pods"
)

const (
	// managedAnnotation is on nodes whose kubelet leaves attaching to this controller.
	managedAnnotation = "volumes.kubernetes.io/controller-managed-attach-detach"
	// keepTerminatedAnnotation is on nodes whose pods keep their volumes when they have ended.
	keepTerminatedAnnotation = "volumes.kubernetes.io/keep-terminated-pod-volumes"
)

// nodesAtATime is how many nodes are looked at while others wait for the API server, which may wait for somebody's webhook.
const nodesAtATime = 10

// Controller reconciles nodes.
type Controller struct {
	client client.Client
	events record.EventRecorder
	clock  clock.PassiveClock
	force  bool

	// deciding is held by who decides where volumes go. What has been decided is done without it.
	deciding sync.Mutex
	promised promises

	mu       sync.Mutex
	unwanted map[string]map[string]time.Time // by node and volume, since when
	volumes  map[string]volumes              // by node, for metrics
	forced   *metrics.CounterVec
}

// New returns the controller. With force, a volume is taken from a node that is not well and has not unmounted it for long.
func New(c client.Client, events record.EventRecorder, force bool, registry metrics.KubeRegistry) *Controller {
	n := &Controller{client: c, events: events, clock: clock.RealClock{}, force: force, promised: promises{}, unwanted: map[string]map[string]time.Time{}, volumes: map[string]volumes{}}
	n.forced = n.register(registry)
	return n
}

// Register adds the controller to mgr.
func (c *Controller) Register(mgr manager.Manager, o controller.Options) error {
	o.MaxConcurrentReconciles = nodesAtATime
	podMatters := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		a, b := e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod)
		return needsVolumes(a, false) != needsVolumes(b, false)
	}}
	nodeMatters := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		a, b := e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)
		return !stateOf(a).equal(stateOf(b)) || a.Annotations[managedAnnotation] != b.Annotations[managedAnnotation]
	}}
	byNode := func(name func(client.Object) string) handler.EventHandler {
		return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			if node := name(o); node != "" {
				return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: node}}}
			}
			return nil
		})
	}
	return builder.ControllerManagedBy(mgr).Named("persistentvolume-attach-detach-controller").WithOptions(o).
		For(&corev1.Node{}, builder.WithPredicates(nodeMatters)).
		Watches(&corev1.Pod{}, byNode(func(o client.Object) string {
			if pod := o.(*corev1.Pod); len(pod.Spec.Volumes) > 0 {
				return pod.Spec.NodeName
			}
			return ""
		}), builder.WithPredicates(podMatters)).
		Watches(&storagev1.VolumeAttachment{}, handler.EnqueueRequestsFromMapFunc(c.onAttachment)).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(c.onClaim)).
		Watches(&storagev1.CSIDriver{}, handler.EnqueueRequestsFromMapFunc(c.everyNode)).
		Complete(conflict.Ignored(ownwrites.Remembered(c)))
}

// onAttachment returns the node of an attachment and, when it goes, those that may wait for its volume.
func (c *Controller) onAttachment(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetDeletionTimestamp() != nil {
		return c.everyNode(ctx, o)
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: o.(*storagev1.VolumeAttachment).Spec.NodeName}}}
}

// onClaim returns the nodes of the pods that use a claim.
func (c *Controller) onClaim(ctx context.Context, claim client.Object) []reconcile.Request {
	list, err := index.WithClaim(ctx, c.client, claim.GetNamespace(), claim.GetName(), client.DisableReadYourWritesConsistency)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing pods")
		return nil
	}
	var reqs []reconcile.Request
	for i := range list.Items {
		if node := list.Items[i].Spec.NodeName; node != "" {
			reqs = append(reqs, reconcile.Request{NamespacedName: client.ObjectKey{Name: node}})
		}
	}
	return reqs
}

func (c *Controller) everyNode(ctx context.Context, _ client.Object) []reconcile.Request {
	var list corev1.NodeList
	if err := c.client.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		klog.FromContext(ctx).Error(err, "Listing nodes")
		return nil
	}
	reqs := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		reqs[i].Name = list.Items[i].Name
	}
	return reqs
}

func stateOf(n *corev1.Node) nodeState {
	s := nodeState{inUse: n.Status.VolumesInUse, attached: n.Status.VolumesAttached, unwell: true}
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
			s.unwell = false
		}
	}
	s.outOfService = slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
	return s
}

// Reconcile attaches what the pods of one node use, and detaches the rest.
func (c *Controller) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	node := &corev1.Node{}
	err := c.client.Get(ctx, req.NamespacedName, node)
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	state := nodeState{gone: true}
	if err == nil {
		if node.Annotations[managedAnnotation] != "true" {
			return reconcile.Result{}, nil
		}
		state = stateOf(node)
	}
	wants, err := c.wants(ctx, req.Name, node.Annotations[keepTerminatedAnnotation] == "true")
	if err != nil {
		return reconcile.Result{}, err
	}
	p, err := c.plan(ctx, req.Name, state, wants)
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: p.again}, c.apply(ctx, node, state, p)
}

// plan decides about a node. What is read here is in the cache, which has seen what has been done for the node before.
func (c *Controller) plan(ctx context.Context, node string, state nodeState, wants []*wanted) (plan, error) {
	c.deciding.Lock()
	defer c.deciding.Unlock()
	here, elsewhere, err := c.attachments(ctx, node)
	if err != nil {
		return plan{}, err
	}
	if state.gone && len(here) == 0 {
		c.promised.keep(node, nil)
		c.forget(node)
		return plan{}, nil
	}
	c.count(node, wants, here)
	promised := c.promised.toOthers(node)
	for volume := range promised {
		elsewhere[volume] = true
	}
	p := decide(state, wants, here, elsewhere, c.unwantedSince(node, wants), c.force)
	c.promised.keep(node, p.attach)
	if slices.ContainsFunc(p.blocked, func(w *wanted) bool { return promised[w.name] }) {
		p.again = promisedAgain // nobody says when a promise is not kept
	}
	return p, nil
}

// unwantedSince notes what is wanted on a node, and returns for how long other volumes have not been.
func (c *Controller) unwantedSince(node string, wants []*wanted) func(string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := c.unwanted[node]
	for _, w := range wants {
		delete(since, w.name)
	}
	return func(volume string) time.Duration {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.unwanted[node] == nil {
			c.unwanted[node] = map[string]time.Time{}
		}
		if c.unwanted[node][volume].IsZero() {
			c.unwanted[node][volume] = c.clock.Now()
		}
		return c.clock.Since(c.unwanted[node][volume])
	}
}

func (c *Controller) forget(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unwanted, node)
	delete(c.volumes, node)
}

// attachments returns those of a node, and the volumes that other nodes have.
func (c *Controller) attachments(ctx context.Context, node string) (here []attachment, elsewhere map[string]bool, err error) {
	var list storagev1.VolumeAttachmentList
	if err := c.client.List(ctx, &list); err != nil {
		return nil, nil, fmt.Errorf("listing VolumeAttachments: %w", err)
	}
	elsewhere = map[string]bool{}
	for i := range list.Items {
		va := &list.Items[i]
		pv := &corev1.PersistentVolume{}
		switch s := va.Spec.Source; {
		case s.InlineVolumeSpec != nil:
			pv.Spec = *s.InlineVolumeSpec
		case s.PersistentVolumeName != nil:
			if err := c.client.Get(ctx, client.ObjectKey{Name: *s.PersistentVolumeName}, pv); apierrors.IsNotFound(err) {
				continue // who attached it must know what to do
			} else if err != nil {
				return nil, nil, err
			}
		}
		pv, err := translate(ctx, pv)
		if err != nil || pv == nil || va.Name != attachmentName(pv.Spec.CSI, va.Spec.NodeName) {
			continue // not one of this controller's
		}
		if va.Spec.NodeName == node {
			here = append(here, attachment{va, volumeName(pv.Spec.CSI)})
		} else {
			elsewhere[volumeName(pv.Spec.CSI)] = true
		}
	}
	return here, elsewhere, nil
}

// wants returns the volumes that pods on a node use and that have to be attached.
func (c *Controller) wants(ctx context.Context, node string, keepTerminated bool) ([]*wanted, error) {
	list, err := index.OnNode(ctx, c.client, node)
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	var wants []*wanted
	for i := range list.Items {
		pod := &list.Items[i]
		if !needsVolumes(pod, keepTerminated) {
			continue
		}
		for k := range pod.Spec.Volumes {
			w, err := c.want(ctx, pod, &pod.Spec.Volumes[k])
			if err != nil {
				return nil, fmt.Errorf("volume %s of pod %s/%s: %w", pod.Spec.Volumes[k].Name, pod.Namespace, pod.Name, err)
			}
			if w == nil {
				continue
			}
			if at := slices.IndexFunc(wants, func(o *wanted) bool { return o.name == w.name }); at >= 0 {
				wants[at].pods = append(wants[at].pods, pod)
			} else {
				w.pods = []*corev1.Pod{pod}
				wants = append(wants, w)
			}
		}
	}
	return wants, nil
}

// want returns what a pod's volume needs attached, or nil.
func (c *Controller) want(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (*wanted, error) {
	pv, inline := &corev1.PersistentVolume{}, false
	claimName := ""
	switch {
	case v.PersistentVolumeClaim != nil:
		claimName = v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		claimName = ephemeral.VolumeClaimName(pod, v)
	case csitrans.New().IsInlineMigratable(v):
		inline = true
		var err error
		if pv, err = csitrans.New().TranslateInTreeInlineVolumeToCSI(klog.FromContext(ctx), v, pod.Namespace); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	if !inline {
		claim := &corev1.PersistentVolumeClaim{}
		if err := c.client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: claimName}, claim); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		if claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound || v.Ephemeral != nil && ephemeral.VolumeIsForPod(pod, claim) != nil {
			return nil, nil // not yet
		}
		if err := c.client.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, pv); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
			return nil, nil
		}
	}
	csi, err := translate(ctx, pv)
	if err != nil || csi == nil {
		return nil, err
	}
	attach, err := c.attachRequired(ctx, csi.Spec.CSI.Driver)
	if err != nil || !attach {
		return nil, err
	}
	return &wanted{name: volumeName(csi.Spec.CSI), driver: csi.Spec.CSI.Driver, pv: csi, inline: inline}, nil
}

// attachRequired reports whether a driver's volumes have to be attached, which they do unless it says otherwise.
func (c *Controller) attachRequired(ctx context.Context, driver string) (bool, error) {
	d := &storagev1.CSIDriver{}
	if err := c.client.Get(ctx, client.ObjectKey{Name: driver}, d); err != nil {
		return true, client.IgnoreNotFound(err)
	}
	return d.Spec.AttachRequired == nil || *d.Spec.AttachRequired, nil
}

// translate returns a volume as one of a CSI driver, or nil if none can attach it.
func translate(ctx context.Context, pv *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	if pv.Spec.CSI != nil {
		return pv, nil
	}
	if t := csitrans.New(); t.IsPVMigratable(pv) {
		return t.TranslateInTreePVToCSI(klog.FromContext(ctx), pv)
	}
	return nil, nil
}

// volumeName is what nodes call a volume in their status.
func volumeName(s *corev1.CSIPersistentVolumeSource) string {
	return "kubernetes.io/csi/" + s.Driver + "^" + s.VolumeHandle
}

// attachmentName is that of the VolumeAttachment of a volume and a node. The kubelet looks for it.
func attachmentName(s *corev1.CSIPersistentVolumeSource, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(s.VolumeHandle+s.Driver+node)))
}

func (c *Controller) apply(ctx context.Context, node *corev1.Node, state nodeState, p plan) error {
	var errs []error
	for _, w := range p.blocked {
		c.tell(w, corev1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("Multi-Attach error for volume %q Volume is already exclusively attached to one node and can't be attached to another", w.pv.Name))
	}
	for w, message := range p.failed {
		c.tell(w, corev1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("AttachVolume.Attach failed for volume %q : %s", w.pv.Name, message))
	}
	if !state.gone {
		errs = pods.InParallel(len(p.attach), func(i int) error { return c.attach(ctx, p.attach[i], node.Name) })
		if err := c.report(ctx, node, p.report); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	for _, w := range p.arrived {
		c.tell(w, corev1.EventTypeNormal, "SuccessfulAttachVolume", fmt.Sprintf("AttachVolume.Attach succeeded for volume %q ", w.pv.Name))
	}
	return errors.Join(append(errs, pods.InParallel(len(p.detach), func(i int) error {
		a := p.detach[i]
		if err := c.client.Delete(ctx, a.VolumeAttachment, client.Preconditions{UID: &a.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting VolumeAttachment %s: %w", a.Name, err)
		}
		if reason := p.forced[a.Name]; reason != "" {
			c.forced.WithLabelValues(reason).Inc()
		}
		return nil
	})...)...)
}

func (c *Controller) tell(w *wanted, kind, reason, message string) {
	for _, pod := range w.pods {
		c.events.Event(pod, kind, reason, message)
	}
}

func (c *Controller) attach(ctx context.Context, w *wanted, node string) error {
	va := &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: attachmentName(w.pv.Spec.CSI, node)},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: w.driver, NodeName: node},
	}
	if w.inline {
		va.Spec.Source.InlineVolumeSpec = &w.pv.Spec
	} else {
		va.Spec.Source.PersistentVolumeName = &w.pv.Name
	}
	if err := c.client.Create(ctx, va); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating a VolumeAttachment for %s: %w", w.pv.Name, err)
	}
	return nil
}

// report writes into a node's status which volumes of CSI drivers it has; what other volumes are there is not this controller's.
func (c *Controller) report(ctx context.Context, node *corev1.Node, attached []corev1.AttachedVolume) error {
	all := slices.DeleteFunc(slices.Clone(node.Status.VolumesAttached), func(v corev1.AttachedVolume) bool { return strings.HasPrefix(string(v.Name), "kubernetes.io/csi/") })
	all = append(all, attached...)
	if slices.Equal(all, node.Status.VolumesAttached) {
		return nil
	}
	before := node.DeepCopy()
	node.Status.VolumesAttached = all
	if err := c.client.Status().Patch(ctx, node, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing the attached volumes of node %s: %w", node.Name, err)
	}
	return nil
}
