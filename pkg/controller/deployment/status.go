package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Reasons of the Progressing condition.
const (
	reasonAvailable = "NewReplicaSetAvailable"
	reasonUpdated   = "ReplicaSetUpdated"
	reasonTimedOut  = "ProgressDeadlineExceeded"
	reasonPaused    = "DeploymentPaused"
	reasonResumed   = "DeploymentResumed"
)

func condition(s appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

// setCondition puts c in the place of the condition of its type, keeping the time of
// the last transition if the status is the same. One that says the same changes nothing.
func setCondition(s *appsv1.DeploymentStatus, c *appsv1.DeploymentCondition) {
	old := condition(*s, c.Type)
	if old == nil {
		s.Conditions = append(s.Conditions, *c)
		return
	}
	if old.Status == c.Status && old.Reason == c.Reason {
		return
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	*old = *c
}

// onlyCounts reports whether a status says nothing new but of how many pods there are, or of when that was.
func onlyCounts(before, after appsv1.DeploymentStatus) bool {
	return before.ObservedGeneration == after.ObservedGeneration && ptr.Equal(before.CollisionCount, after.CollisionCount) &&
		slices.EqualFunc(before.Conditions, after.Conditions, func(a, b appsv1.DeploymentCondition) bool {
			return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
		})
}

// unsettled reports whether a ReplicaSet has been given a size and has yet to say what it has done about it, which will change the counts again.
func (s *state) unsettled() bool {
	return slices.ContainsFunc(s.all(), func(rs *appsv1.ReplicaSet) bool { return rs.Status.ObservedGeneration < rs.Generation })
}

func removeCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	var rest []appsv1.DeploymentCondition
	for _, c := range s.Conditions {
		if c.Type != t {
			rest = append(rest, c)
		}
	}
	s.Conditions = rest
}

func deadlineSet(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

// complete reports whether all wanted pods are of the new version and available, and
// no others are left.
func (s *state) complete(st appsv1.DeploymentStatus) bool {
	n := *s.d.Spec.Replicas
	return st.UpdatedReplicas == n && st.Replicas == n && st.AvailableReplicas == n && st.ObservedGeneration >= s.d.Generation
}

// status returns what the status should be, and when to look again because the
// progress deadline passes. Pods that are ending count if countTerminating says so.
func (s *state) status(countTerminating bool) (appsv1.DeploymentStatus, time.Duration) {
	all := s.all()
	old := s.d.Status
	st := appsv1.DeploymentStatus{
		ObservedGeneration: s.d.Generation,
		Replicas:           sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.Replicas }),
		ReadyReplicas:      sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.ReadyReplicas }),
		AvailableReplicas:  sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas }),
		CollisionCount:     old.CollisionCount,
	}
	if s.new != nil {
		st.UpdatedReplicas = s.new.Status.Replicas
	}
	if countTerminating {
		st.TerminatingReplicas = ptr.To(sum(all, func(rs *appsv1.ReplicaSet) int32 { return ptr.Deref(rs.Status.TerminatingReplicas, 0) }))
	}
	st.UnavailableReplicas = max(0, sum(all, replicas)-st.AvailableReplicas)
	st.Conditions = append(st.Conditions, old.Conditions...)

	_, unavailable := s.limits()
	if st.AvailableReplicas >= *s.d.Spec.Replicas-unavailable {
		setCondition(&st, newCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.", s.now))
	} else {
		setCondition(&st, newCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", s.now))
	}
	if s.d.DeletionTimestamp != nil {
		return st, 0
	}
	s.setProgress(&st)
	s.setFailure(&st)
	return st, s.deadlineIn(st)
}

// setProgress sets the Progressing condition.
func (s *state) setProgress(st *appsv1.DeploymentStatus) {
	if !deadlineSet(s.d) {
		removeCondition(st, appsv1.DeploymentProgressing)
		return
	}
	name := fmt.Sprintf("Deployment %q", s.d.Name)
	if s.new != nil {
		name = fmt.Sprintf("ReplicaSet %q", s.new.Name)
	}
	set := func(status corev1.ConditionStatus, reason, message string) {
		setCondition(st, newCondition(appsv1.DeploymentProgressing, status, reason, message, s.now))
	}
	current := condition(*st, appsv1.DeploymentProgressing)
	timedOut := current != nil && current.Reason == reasonTimedOut
	switch paused := current != nil && current.Reason == reasonPaused; {
	case s.d.Spec.Paused && !paused && !timedOut:
		set(corev1.ConditionUnknown, reasonPaused, "Deployment is paused")
	case !s.d.Spec.Paused && paused:
		set(corev1.ConditionUnknown, reasonResumed, "Deployment is resumed")
	}
	if s.d.Spec.Paused {
		return
	}
	if s.progress != nil {
		setCondition(st, s.progress)
	}
	current = condition(*st, appsv1.DeploymentProgressing)
	if current != nil && current.Reason == reasonAvailable && st.Replicas == st.UpdatedReplicas {
		return // a finished rollout stays so while pods come and go
	}
	switch {
	case s.complete(*st):
		set(corev1.ConditionTrue, reasonAvailable, name+" has successfully progressed.")
	case s.progressed(*st):
		c := newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, name+" is progressing.", s.now)
		if current != nil && current.Status == corev1.ConditionTrue {
			c.LastTransitionTime = current.LastTransitionTime
		}
		removeCondition(st, appsv1.DeploymentProgressing) // so that the deadline counts from now
		setCondition(st, c)
	case s.late(*st):
		set(corev1.ConditionFalse, reasonTimedOut, name+" has timed out progressing.")
	}
}

// progressed reports whether the rollout is further than the last status said.
func (s *state) progressed(st appsv1.DeploymentStatus) bool {
	old := s.d.Status
	return st.UpdatedReplicas > old.UpdatedReplicas ||
		st.Replicas-st.UpdatedReplicas < old.Replicas-old.UpdatedReplicas ||
		st.ReadyReplicas > old.ReadyReplicas ||
		st.AvailableReplicas > old.AvailableReplicas
}

// late reports whether the deadline has passed without progress.
func (s *state) late(st appsv1.DeploymentStatus) bool {
	c := condition(st, appsv1.DeploymentProgressing)
	switch {
	case c == nil, c.Reason == reasonAvailable:
		return false
	case c.Reason == reasonTimedOut:
		return true
	}
	return s.deadline(c).Before(s.now)
}

func (s *state) deadline(c *appsv1.DeploymentCondition) time.Time {
	return c.LastUpdateTime.Add(time.Duration(*s.d.Spec.ProgressDeadlineSeconds) * time.Second)
}

// deadlineIn returns when the rollout is to be looked at again for its deadline.
func (s *state) deadlineIn(st appsv1.DeploymentStatus) time.Duration {
	c := condition(st, appsv1.DeploymentProgressing)
	if !deadlineSet(s.d) || s.d.Spec.Paused || c == nil || c.Reason == reasonAvailable || c.Reason == reasonTimedOut || s.complete(st) {
		return 0
	}
	// Times in the API have whole seconds.
	return max(time.Second, s.deadline(c).Sub(s.now)+time.Second)
}

// setFailure passes on that a ReplicaSet cannot create its pods.
func (s *state) setFailure(st *appsv1.DeploymentStatus) {
	sets := s.old
	if s.new != nil {
		sets = append([]*appsv1.ReplicaSet{s.new}, sets...)
	}
	for _, rs := range sets {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
				setCondition(st, &appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastUpdateTime: metav1.NewTime(s.now), LastTransitionTime: c.LastTransitionTime,
				})
				return
			}
		}
	}
	removeCondition(st, appsv1.DeploymentReplicaFailure)
}
