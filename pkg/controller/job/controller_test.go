package job

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// A Job that goes and leaves its pods behind leaves them without its finalizer, or they could never go.
func TestOrphanedPodsAreFreed(t *testing.T) {
	pod := func(job string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod-of-" + job, Finalizers: []string{batchv1.JobTrackingFinalizer}, Labels: map[string]string{batchv1.JobNameLabel: job}}}
	}
	mine, other := pod("pi"), pod("tau")
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(mine, other).Build()
	reqs := leftBy(t.Context(), mine)
	if want := (reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "ns", Name: "pi"}}); len(reqs) != 1 || reqs[0] != want {
		t.Fatalf("a pod that is left behind leads to %v", reqs)
	}
	if _, err := New(c, c, record.NewFakeRecorder(1), metrics.NewKubeRegistry()).Reconcile(t.Context(), reqs[0]); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*corev1.Pod{mine, other} {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
			t.Fatal(err)
		}
	}
	if tracked(mine) || !tracked(other) {
		t.Errorf("the finalizers are %v and %v", mine.Finalizers, other.Finalizers)
	}
}
