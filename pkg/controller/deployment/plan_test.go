package deployment

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func deployment(n int32, surge, unavailable int) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", UID: "d", Generation: 1}}
	d.Spec.Replicas = &n
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Image: "new"}}
	d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
		MaxSurge: ptr.To(intstr.FromInt(surge)), MaxUnavailable: ptr.To(intstr.FromInt(unavailable)),
	}}
	return d
}

func set(name, image string, n, available int32, age time.Duration) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-age))}}
	rs.Spec.Replicas = &n
	rs.Spec.Template.Spec.Containers = []corev1.Container{{Image: image}}
	rs.Spec.Template.Labels = map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: name}
	rs.Status.Replicas, rs.Status.AvailableReplicas = n, available
	return rs
}

// A rollout keeps its promises at each step and comes to an end, whatever its limits,
// even when some of the old pods have never worked.
func TestRollKeepsItsPromises(t *testing.T) {
	for _, n := range []int32{0, 1, 2, 3, 7, 10} {
		for surge := range 4 {
			for unavailable := range 4 {
				for broken := range min(n, 3) + 1 {
					t.Run(fmt.Sprintf("n=%d surge=%d unavailable=%d broken=%d", n, surge, unavailable, broken), func(t *testing.T) {
						d := deployment(n, surge, unavailable)
						old := set("old", "old", n, n-broken, time.Hour)
						fresh := set("new", "new", 0, 0, 0)
						least := n - broken // what is there at the start, until more is promised
						for range 100 {
							s := newState(d, []*appsv1.ReplicaSet{old, fresh}, now)
							_, down := s.limits()
							if total := replicas(old) + replicas(fresh); total > max(s.most(), n) {
								t.Fatalf("%d pods, at most %d allowed", total, s.most())
							}
							if up := old.Status.AvailableReplicas + fresh.Status.AvailableReplicas; up < min(least, n-down) {
								t.Fatalf("%d available, %d promised", up, min(least, n-down))
							}
							steps := s.roll()
							if len(steps) == 0 && fresh.Status.AvailableReplicas == replicas(fresh) {
								if replicas(old) != 0 || replicas(fresh) != n {
									t.Fatalf("stuck at %d old and %d new", replicas(old), replicas(fresh))
								}
								return
							}
							for _, step := range steps {
								gone := replicas(step.set) - step.replicas
								step.set.Spec.Replicas = ptr.To(step.replicas)
								if step.set == old { // the ones that do not work are deleted first
									bad := old.Status.Replicas - old.Status.AvailableReplicas
									old.Status.AvailableReplicas -= max(0, gone-bad)
									old.Status.Replicas = step.replicas
								}
							}
							if len(steps) == 0 { // time for a new pod to become available
								fresh.Status.AvailableReplicas++
							}
							fresh.Status.Replicas = replicas(fresh)
						}
						t.Fatal("never ends")
					})
				}
			}
		}
	}
}

func TestProportional(t *testing.T) {
	sized := func(rs *appsv1.ReplicaSet, desired, most int32) *appsv1.ReplicaSet {
		setSizeAnnotations(rs, desired, most)
		return rs
	}
	for _, c := range []struct {
		name string
		to   int32
		sets []*appsv1.ReplicaSet
		want map[string]int32
	}{
		{"one set gets it all", 10, []*appsv1.ReplicaSet{sized(set("a", "new", 5, 5, 0), 5, 5)}, map[string]int32{"a": 10}},
		{"the newest of none", 4, []*appsv1.ReplicaSet{set("a", "old", 0, 0, 2), set("b", "older", 0, 0, 3)}, map[string]int32{"a": 4}},
		{"growing in proportion", 20, []*appsv1.ReplicaSet{sized(set("a", "new", 5, 5, 0), 10, 10), sized(set("b", "old", 5, 5, 9), 10, 10)}, map[string]int32{"a": 10, "b": 10}},
		{"shrinking in proportion", 5, []*appsv1.ReplicaSet{sized(set("a", "new", 4, 4, 0), 10, 10), sized(set("b", "old", 6, 6, 9), 10, 10)}, map[string]int32{"a": 2, "b": 3}},
		{"the largest takes the rest", 11, []*appsv1.ReplicaSet{sized(set("a", "new", 3, 3, 0), 10, 10), sized(set("b", "old", 7, 7, 9), 10, 10)}, map[string]int32{"a": 3, "b": 8}},
		{"to nothing", 0, []*appsv1.ReplicaSet{sized(set("a", "new", 3, 3, 0), 10, 10), sized(set("b", "old", 7, 7, 9), 10, 10)}, map[string]int32{"a": 0, "b": 0}},
		{"old ones go when the new one is full", 3, []*appsv1.ReplicaSet{sized(set("a", "new", 3, 3, 0), 3, 3), sized(set("b", "old", 7, 7, 9), 10, 10)}, map[string]int32{"b": 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := map[string]int32{}
			for _, s := range newState(deployment(c.to, 0, 1), c.sets, now).proportional() {
				got[s.set.Name] = s.replicas
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRevisions(t *testing.T) {
	d := deployment(1, 0, 1)
	d.Annotations = map[string]string{"note": "x", RevisionAnnotation: "7", corev1.LastAppliedConfigAnnotation: "{}"}
	rs := set("a", "new", 1, 1, 0)
	if !annotate(rs, d, 3, false) || rs.Annotations[RevisionAnnotation] != "3" || rs.Annotations["note"] != "x" || len(rs.Annotations) != 2 {
		t.Errorf("%v", rs.Annotations)
	}
	if annotate(rs, d, 3, true) {
		t.Errorf("nothing has changed, but %v", rs.Annotations)
	}
	annotate(rs, d, 5, true)
	annotate(rs, d, 9, true)
	if rs.Annotations[RevisionAnnotation] != "9" || rs.Annotations[historyAnnotation] != "3,5" {
		t.Errorf("%v", rs.Annotations)
	}
}

func TestTerminatingReplicas(t *testing.T) {
	rs := set("a", "new", 2, 2, 0)
	rs.Status.TerminatingReplicas = ptr.To[int32](3)
	s := newState(deployment(2, 1, 0), []*appsv1.ReplicaSet{rs}, now)
	if st, _ := s.status(true); st.TerminatingReplicas == nil || *st.TerminatingReplicas != 3 {
		t.Errorf("with the gate: %v", st.TerminatingReplicas)
	}
	if st, _ := s.status(false); st.TerminatingReplicas != nil {
		t.Errorf("without the gate: %d", *st.TerminatingReplicas)
	}
}

func TestProgress(t *testing.T) {
	d := deployment(2, 1, 0)
	d.Spec.ProgressDeadlineSeconds = ptr.To[int32](60)
	reason := func(s *state) string {
		st, _ := s.status(true)
		c := condition(st, appsv1.DeploymentProgressing)
		if c == nil {
			return ""
		}
		d.Status = st
		return c.Reason
	}
	rs := set("a", "new", 2, 0, 0)
	if got := reason(newState(d, []*appsv1.ReplicaSet{rs}, now)); got != reasonUpdated {
		t.Errorf("after the start: %s", got)
	}
	if got := reason(newState(d, []*appsv1.ReplicaSet{rs}, now.Add(59*time.Second))); got != reasonUpdated {
		t.Errorf("before the deadline: %s", got)
	}
	if got := reason(newState(d, []*appsv1.ReplicaSet{rs}, now.Add(61*time.Second))); got != reasonTimedOut {
		t.Errorf("after the deadline: %s", got)
	}
	rs.Status.AvailableReplicas = 2
	if got := reason(newState(d, []*appsv1.ReplicaSet{rs}, now.Add(62*time.Second))); got != reasonAvailable {
		t.Errorf("when complete: %s", got)
	}
	rs.Status.AvailableReplicas = 0
	if got := reason(newState(d, []*appsv1.ReplicaSet{rs}, now.Add(time.Hour))); got != reasonAvailable {
		t.Errorf("when pods are lost after the end: %s", got)
	}
	d.Spec.Paused = true
	if got := reason(newState(d, []*appsv1.ReplicaSet{rs}, now)); got != reasonPaused {
		t.Errorf("when paused: %s", got)
	}
	d.Spec.Paused = false
	if got := reason(newState(d, []*appsv1.ReplicaSet{rs}, now)); got != reasonResumed {
		t.Errorf("when resumed: %s", got)
	}
}

func TestOnlyCounts(t *testing.T) {
	status := func(change func(*appsv1.DeploymentStatus)) appsv1.DeploymentStatus {
		s := appsv1.DeploymentStatus{
			ObservedGeneration: 2, Replicas: 3, AvailableReplicas: 1,
			Conditions: []appsv1.DeploymentCondition{
				*newCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "", now),
				*newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, "", now),
			},
		}
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		change func(*appsv1.DeploymentStatus)
		want   bool
	}{
		"other counts": {func(s *appsv1.DeploymentStatus) { s.Replicas, s.AvailableReplicas = 4, 2 }, true},
		"progress": {func(s *appsv1.DeploymentStatus) {
			s.AvailableReplicas = 2
			s.Conditions = []appsv1.DeploymentCondition{s.Conditions[0], *newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, "", now.Add(time.Minute))}
		}, true},
		"a generation":      {func(s *appsv1.DeploymentStatus) { s.ObservedGeneration = 3 }, false},
		"a collision":       {func(s *appsv1.DeploymentStatus) { s.CollisionCount = ptr.To[int32](1) }, false},
		"another condition": {func(s *appsv1.DeploymentStatus) { s.Conditions = s.Conditions[:1] }, false},
		"the end":           {func(s *appsv1.DeploymentStatus) { s.Conditions[1].Reason = reasonAvailable }, false},
	} {
		if got := onlyCounts(status(func(*appsv1.DeploymentStatus) {}), status(c.change)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestUnsettled(t *testing.T) {
	behind, done := set("a", "old", 2, 2, time.Hour), set("b", "new", 1, 1, 0)
	behind.Generation, behind.Status.ObservedGeneration = 3, 2
	done.Generation, done.Status.ObservedGeneration = 1, 1
	if newState(deployment(2, 1, 0), []*appsv1.ReplicaSet{done}, now).unsettled() {
		t.Error("a ReplicaSet has done what it was to do")
	}
	if !newState(deployment(2, 1, 0), []*appsv1.ReplicaSet{behind, done}, now).unsettled() {
		t.Error("a ReplicaSet is behind")
	}
}
