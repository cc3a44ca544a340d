package pods

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// The names of all ReplicaSets in all clusters depend on these values: kube-controller-manager
// v1.37.2 takes a ReplicaSet with this hash for its own.
func TestTemplateHash(t *testing.T) {
	data, err := os.ReadFile("testdata/template.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Spec struct{ Template corev1.PodTemplateSpec }
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		collisions *int32
		want       string
	}{{nil, "cdc69647"}, {ptr.To[int32](1), "676d8c9cf8"}} {
		if got := TemplateHash(&d.Spec.Template, c.collisions); got != c.want {
			t.Errorf("with %v collisions: %s, want %s", c.collisions, got, c.want)
		}
	}
}

func TestAvailableIn(t *testing.T) {
	pod := func(status corev1.ConditionStatus, since time.Duration) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{
			Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-since)),
		}}}}
	}
	for name, c := range map[string]struct {
		pod        *corev1.Pod
		minSeconds int32
		want       time.Duration
	}{
		"no condition":   {&corev1.Pod{}, 0, -1},
		"not ready":      {pod(corev1.ConditionFalse, time.Hour), 0, -1},
		"at once":        {pod(corev1.ConditionTrue, 0), 0, 0},
		"not yet":        {pod(corev1.ConditionTrue, 4*time.Second), 10, 6 * time.Second},
		"for long":       {pod(corev1.ConditionTrue, time.Minute), 10, 0},
		"on the instant": {pod(corev1.ConditionTrue, 10*time.Second), 10, 0},
	} {
		if got := AvailableIn(c.pod, c.minSeconds, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestToDelete(t *testing.T) {
	pod := func(name string, change ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
			Spec:       corev1.PodSpec{NodeName: "node-of-" + name},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{
				Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour)),
			}}},
		}
		for _, f := range change {
			f(p)
		}
		return p
	}
	unbound := func(p *corev1.Pod) { p.Spec.NodeName = "" }
	pending := func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }
	unready := func(p *corev1.Pod) { p.Status.Conditions = nil }
	cheap := func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "-5"} }
	crowded := func(p *corev1.Pod) { p.Spec.NodeName = "crowd" }
	young := func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Second)) }
	restarted := func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}} }
	aboutAsOld := func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now.Add(-50 * time.Minute)) }

	order := []*corev1.Pod{
		pod("h", unbound), pod("g", pending), pod("f", unready), pod("e", cheap), pod("d1", crowded), pod("d2", crowded),
		pod("c", young), pod("b", restarted), pod("a1", aboutAsOld), pod("a2"),
	}
	shuffled := slices.Clone(order)
	slices.Reverse(shuffled)
	for n := range len(order) + 1 {
		got := ToDelete(shuffled, shuffled, n, true, now)
		if len(got) != n {
			t.Fatalf("%d of %d", len(got), n)
		}
		for _, p := range got {
			if !slices.Contains(order[:n], p) {
				t.Errorf("of %d to delete, %s is one", n, p.Name)
			}
		}
	}
}

// Without the feature gate, a price means nothing.
func TestToDeleteWithoutCost(t *testing.T) {
	cheap := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "b", Annotations: map[string]string{corev1.PodDeletionCost: "-5"}}}
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "a"}}
	for byCost, want := range map[bool]*corev1.Pod{true: cheap, false: other} {
		if got := ToDelete([]*corev1.Pod{cheap, other}, nil, 1, byCost, now); got[0] != want {
			t.Errorf("by cost %t: %s goes", byCost, got[0].UID)
		}
	}
}

func TestSlowStart(t *testing.T) {
	for _, c := range []struct{ n, failFrom, calls, done int }{
		{0, 99, 0, 0}, {1, 99, 1, 1}, {10, 99, 10, 10},
		{10, 0, 1, 0}, // one request tells that there is no quota
		{10, 3, 7, 3}, // 1 + 2 + 4
	} {
		var calls atomic.Int32
		done, err := SlowStart(c.n, func(i int) error {
			calls.Add(1)
			if i >= c.failFrom {
				return errors.New("no")
			}
			return nil
		})
		if int(calls.Load()) != c.calls || done != c.done || (err != nil) != (c.failFrom < c.n) {
			t.Errorf("%+v: %d calls, %d done, %v", c, calls.Load(), done, err)
		}
	}
}

// Who deletes a pod and hears of a conflict must look again: only an absent pod is as good as a deleted one.
func TestDelete(t *testing.T) {
	owner := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}
	for name, tc := range map[string]struct {
		answer error
		want   func(error) bool
		events int
	}{
		"deleted":  {nil, func(err error) bool { return err == nil }, 1},
		"gone":     {apierrors.NewNotFound(corev1.Resource("pods"), "p"), func(err error) bool { return err == nil }, 0},
		"conflict": {apierrors.NewConflict(corev1.Resource("pods"), "p", errors.New("another uid")), apierrors.IsConflict, 0},
		"failed":   {apierrors.NewInternalError(errors.New("no")), apierrors.IsInternalError, 1},
	} {
		t.Run(name, func(t *testing.T) {
			events := record.NewFakeRecorder(2)
			c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
				Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error { return tc.answer },
			})
			err := Control{Client: c, Events: events}.Delete(t.Context(), owner, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}})
			if !tc.want(err) || len(events.Events) != tc.events {
				t.Errorf("error %v, %d events", err, len(events.Events))
			}
		})
	}
}
