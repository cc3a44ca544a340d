package daemonset

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/controller/internal/revision"
)

// A rollout with a surge is not over while the new pod is not ready: the old one beside it counts.
func TestStatusOfTwoPodsOnANode(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pod := func(name, hash string, age time.Duration, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{revision.HashLabel: hash}, CreationTimestamp: metav1.NewTime(now.Add(-age))},
			Spec:       corev1.PodSpec{NodeName: "n1"},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
		}
	}
	old, fresh := pod("b", "old", time.Hour, corev1.ConditionTrue), pod("a", "new", time.Minute, corev1.ConditionFalse)
	for _, c := range []struct {
		name                      string
		pods                      []*corev1.Pod
		ready, available, updated int32
	}{
		{"the old one", []*corev1.Pod{old}, 1, 1, 0},
		{"both", []*corev1.Pod{fresh, old}, 1, 1, 0},
		{"the new one", []*corev1.Pod{fresh}, 0, 0, 1},
	} {
		in := &input{ds: &appsv1.DaemonSet{}, hash: "new", now: now, nodes: []nodePods{{name: "n1", run: true, stay: true, pods: c.pods}}}
		s, _ := in.status()
		if s.NumberReady != c.ready || s.NumberAvailable != c.available || s.UpdatedNumberScheduled != c.updated {
			t.Errorf("%s: ready %d, available %d, updated %d", c.name, s.NumberReady, s.NumberAvailable, s.UpdatedNumberScheduled)
		}
	}
}
