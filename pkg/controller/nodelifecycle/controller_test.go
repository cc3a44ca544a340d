package nodelifecycle

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/leme-k8s/leme/pkg/controller/internal/index"
)

// The pods of a node that falls silent are marked, and events tell of the node's life. What
// a kubelet says of its node by itself is not told again, nor are its pods touched.
func TestLifeOfANode(t *testing.T) {
	n := node("a", corev1.ConditionTrue)
	n.Name, n.UID = "n1", "n1-uid"
	n.Labels[corev1.LabelOSStable] = "linux"
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	i := index.PodsByNode()
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(&n, p).WithStatusSubresource(&n, p).WithIndex(i.Object, i.Field, i.Values).Build()
	events := record.NewFakeRecorder(20)
	clock := clocktesting.NewFakePassiveClock(now)
	ctl := New(c, events, Config{GracePeriod: time.Minute, StartupGracePeriod: time.Minute, EvictionRate: 1, SecondaryEvictionRate: 1, UnhealthyZoneThreshold: 0.55}, metrics.NewKubeRegistry())
	ctl.clock = clock

	look := func(wantReady corev1.ConditionStatus, wantEvents ...string) {
		t.Helper()
		if _, err := ctl.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&n)}); err != nil {
			t.Fatal(err)
		}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
			t.Fatal(err)
		}
		if got := p.Status.Conditions[0].Status; got != wantReady {
			t.Errorf("the pod's readiness is %s, want %s", got, wantReady)
		}
		var got []string
		for len(events.Events) > 0 {
			got = append(got, strings.Fields(<-events.Events)[1])
		}
		if !slices.Equal(got, wantEvents) {
			t.Errorf("the events are %q, want %q", got, wantEvents)
		}
	}
	say := func(ready corev1.ConditionStatus) {
		t.Helper()
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(&n), &n); err != nil {
			t.Fatal(err)
		}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, LastHeartbeatTime: metav1.NewTime(clock.Now())}}
		if err := c.Status().Update(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
	}

	look(corev1.ConditionTrue, "RegisteredNode")
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(&n), &n); err != nil || n.Labels["beta.kubernetes.io/os"] != "linux" {
		t.Errorf("the labels are %v (%v)", n.Labels, err)
	}
	say(corev1.ConditionFalse)
	look(corev1.ConditionTrue)
	say(corev1.ConditionTrue)
	look(corev1.ConditionTrue)
	clock.SetTime(now.Add(2 * time.Minute))
	look(corev1.ConditionFalse, "NodeNotReady", "NodeNotReady") // of the node, and of its pod
	look(corev1.ConditionFalse)
	if err := c.Delete(t.Context(), &n); err != nil {
		t.Fatal(err)
	}
	look(corev1.ConditionFalse, "RemovingNode")
}
