package queue

import (
	"context"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// event is something that happened in the cluster.
type event struct {
	fwk.ClusterEvent
	old, new any
	about    types.UID // the pod that a TargetPod event concerns, and no other
}

// eventLog keeps what happened since the oldest pod in flight took off. Positions
// count from the beginning of time.
type eventLog struct {
	first int
	log   []event
}

func (l *eventLog) end() int { return l.first + len(l.log) }

func (l *eventLog) add(e event, inFlight int) {
	if inFlight > 0 {
		l.log = append(l.log, e)
	}
}

func (l *eventLog) since(pos int) []event { return l.log[pos-l.first:] }

func (l *eventLog) forgetBefore(pos int) {
	if pos > l.first {
		l.log = slices.Delete(l.log, 0, pos-l.first)
		l.first = pos
	}
}

// worth is what an event means for a pod.
type worth int

const (
	stay         worth = iota // no reason to try again
	afterBackoff              // try again when its back-off ends
	atOnce                    // what the pod waited for by itself has come
)

// worth asks the hints of the plugins that rejected p.
func (q *Queue) worth(ctx context.Context, p *Pod, e event) worth {
	how := stay
	if e.about != "" && e.about != p.Pod.UID {
		return stay
	}
	for _, h := range q.Hints[p.Pod.Spec.SchedulerName] {
		pending := p.PendingPlugins.Has(h.Plugin)
		if !pending && !p.UnschedulablePlugins.Has(h.Plugin) || !matches(h.Event, e) {
			continue
		}
		if h.Fn != nil {
			hint, err := h.Fn(klog.FromContext(ctx), p.Pod, e.old, e.new)
			if err != nil {
				klog.FromContext(ctx).Error(err, "Queueing hint failed, trying the pod again", "plugin", h.Plugin, "event", e.Label(), "pod", klog.KObj(p.Pod))
			} else if hint == fwk.QueueSkip {
				continue
			}
		}
		if pending {
			return atOnce
		}
		how = afterBackoff
	}
	return how
}

// matches reports whether what happened is what a plugin registered for.
func matches(want fwk.ClusterEvent, e event) bool {
	if want.ActionType&e.ActionType == 0 {
		return false
	}
	if want.Resource == fwk.WildCard || e.Resource == fwk.WildCard || want.Resource == e.Resource {
		return true
	}
	return want.Resource == fwk.Pod && (e.Resource == fwk.AssignedPod || e.Resource == fwk.UnscheduledPod || e.Resource == fwk.TargetPod)
}

// anyone reports whether some plugin wants to hear of e at all.
func (q *Queue) anyone(e fwk.ClusterEvent) bool {
	for _, hints := range q.Hints {
		for i := range hints {
			want := hints[i].Event
			if want.ActionType&e.ActionType != 0 && (want.Resource == e.Resource || want.Resource == fwk.WildCard ||
				want.Resource == fwk.Pod && (e.Resource == fwk.AssignedPod || e.Resource == fwk.UnscheduledPod)) {
				return true
			}
		}
	}
	return false
}

// podUpdates lists what changed about a pod that has no node.
func podUpdates(old, pod *v1.Pod) []event {
	var events []event
	for _, a := range PodChanges(old, pod) {
		events = append(events, event{fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: a}, old, pod, pod.UID})
	}
	return events
}

// PodChanges lists the kinds of change between two states of a pod that can matter to
// whether it, or another, fits on a node.
func PodChanges(old, pod *v1.Pod) []fwk.ActionType {
	var actions []fwk.ActionType
	if !maps.Equal(old.Labels, pod.Labels) {
		actions = append(actions, fwk.UpdatePodLabel)
	}
	if up, down := compareRequests(old, pod); up || down {
		if up {
			actions = append(actions, fwk.UpdatePodScaleUp)
		}
		if down {
			actions = append(actions, fwk.UpdatePodScaleDown)
		}
	}
	if !equality.Semantic.DeepEqual(old.Spec.Tolerations, pod.Spec.Tolerations) {
		actions = append(actions, fwk.UpdatePodToleration)
	}
	if len(old.Spec.SchedulingGates) > 0 && len(pod.Spec.SchedulingGates) == 0 {
		actions = append(actions, fwk.UpdatePodSchedulingGatesEliminated)
	}
	if !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses) {
		actions = append(actions, fwk.UpdatePodGeneratedResourceClaim)
	}
	return actions
}

func compareRequests(old, pod *v1.Pod) (up, down bool) {
	opts := resourcehelper.PodResourcesOptions{UseStatusResources: true}
	before, after := resourcehelper.PodRequests(old, opts), resourcehelper.PodRequests(pod, opts)
	for name, q := range after {
		up = up || q.Cmp(before[name]) > 0
	}
	for name, q := range before {
		down = down || q.Cmp(after[name]) > 0
	}
	return up, down
}

// NodeChanges lists the kinds of change between two states of a node that can matter
// to whether a pod fits on it.
func NodeChanges(old, node *v1.Node) []fwk.ActionType {
	var actions []fwk.ActionType
	if !equality.Semantic.DeepEqual(old.Status.Allocatable, node.Status.Allocatable) {
		actions = append(actions, fwk.UpdateNodeAllocatable)
	}
	if !maps.Equal(old.Labels, node.Labels) {
		actions = append(actions, fwk.UpdateNodeLabel)
	}
	if old.Spec.Unschedulable != node.Spec.Unschedulable || !equality.Semantic.DeepEqual(old.Spec.Taints, node.Spec.Taints) {
		actions = append(actions, fwk.UpdateNodeTaint)
	}
	if !slices.EqualFunc(old.Status.Conditions, node.Status.Conditions, func(a, b v1.NodeCondition) bool {
		return a.Type == b.Type && a.Status == b.Status
	}) {
		actions = append(actions, fwk.UpdateNodeCondition)
	}
	if !maps.Equal(old.Annotations, node.Annotations) {
		actions = append(actions, fwk.UpdateNodeAnnotation)
	}
	if !slices.Equal(old.Status.DeclaredFeatures, node.Status.DeclaredFeatures) {
		actions = append(actions, fwk.UpdateNodeDeclaredFeature)
	}
	return actions
}
