// Package pods is what the workload controllers know about pods: how to make one
// from a template, when it counts as ready, and which of several to delete first.
package pods

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/dump"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TemplateHash names a version of a pod template. The result is part of the names
// of ReplicaSets and the labels of pods, and so must never change.
func TemplateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*t))
	if collisions != nil {
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], uint32(*collisions))
		h.Write(b[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// FromTemplate returns the pod that owner makes of its template. Its name is left to
// the API server.
func FromTemplate(t *corev1.PodTemplateSpec, owner client.Object, kind schema.GroupVersionKind) *corev1.Pod {
	t = t.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       owner.GetNamespace(),
			GenerateName:    owner.GetName() + "-",
			Labels:          t.Labels,
			Annotations:     t.Annotations,
			Finalizers:      t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
		},
		Spec: t.Spec,
	}
}

// IsTerminated reports whether all that a pod was to run has ended.
func IsTerminated(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// IsActive reports whether a pod runs or will, and nobody has asked it to stop.
func IsActive(p *corev1.Pod) bool { return !IsTerminated(p) && p.DeletionTimestamp == nil }

// Condition returns a condition of a pod, or nil.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// IsReady reports whether a pod is ready to serve.
func IsReady(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// AvailableIn returns how long a pod still has to stay ready until it counts as
// available: 0 when it does, and a negative duration when it is not ready.
func AvailableIn(p *corev1.Pod, minReadySeconds int32, now time.Time) time.Duration {
	if !IsReady(p) {
		return -1
	}
	if minReadySeconds == 0 {
		return 0
	}
	since := Condition(p, corev1.PodReady).LastTransitionTime
	wait := time.Duration(minReadySeconds) * time.Second
	if since.IsZero() {
		return wait
	}
	return max(0, since.Add(wait).Sub(now))
}

// IsAvailable reports whether a pod has been ready for long enough.
func IsAvailable(p *corev1.Pod, minReadySeconds int32, now time.Time) bool {
	return AvailableIn(p, minReadySeconds, now) == 0
}

// Target returns the node that a pod is on, or that it is for as those of DaemonSets are.
func Target(p *corev1.Pod) string {
	if p.Spec.NodeName != "" || p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil || p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return p.Spec.NodeName
	}
	for _, t := range p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) > 0 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// Control creates and deletes the pods of an owner and tells about it in events.
type Control struct {
	Client client.Client
	Events record.EventRecorder
}

// Create creates a pod for owner.
func (c Control) Create(ctx context.Context, owner client.Object, p *corev1.Pod) error {
	if len(p.Labels) == 0 {
		return fmt.Errorf("creating a pod for %s: the template has no labels", owner.GetName())
	}
	err := c.Client.Create(ctx, p)
	if err == nil {
		c.Events.Eventf(owner, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", p.Name)
		return nil
	}
	if !IsNamespaceTerminating(err) {
		c.Events.Eventf(owner, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
	}
	return fmt.Errorf("creating a pod: %w", err)
}

// Delete deletes a pod of owner. A pod that is gone already is no error; another one of its name is a conflict, of which
// no event tells.
func (c Control) Delete(ctx context.Context, owner client.Object, p *corev1.Pod) error {
	err := c.Client.Delete(ctx, p, client.Preconditions{UID: &p.UID})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return fmt.Errorf("deleting pod %s: %w", p.Name, err)
	case err != nil:
		c.Events.Eventf(owner, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return fmt.Errorf("deleting pod %s: %w", p.Name, err)
	}
	c.Events.Eventf(owner, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", p.Name)
	return nil
}

// IsNamespaceTerminating reports whether err says that nothing can be created in
// a namespace because it is being deleted. Trying again is then pointless.
func IsNamespaceTerminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// Disrupt marks a pod as about to be terminated by the control plane. It reports
// whether the mark is new.
func Disrupt(p *corev1.Pod, reason, message string, now time.Time) bool {
	c := corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		ObservedGeneration: p.Generation, LastTransitionTime: metav1.NewTime(now),
	}
	old := Condition(p, c.Type)
	switch {
	case old == nil:
		p.Status.Conditions = append(p.Status.Conditions, c)
	case old.Status == c.Status && old.Reason == c.Reason:
		return false
	default:
		*old = c
	}
	return true
}
