package podgc

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// A pod that ends before it has a node is failed for the spec that it has.
func TestUnscheduledPodEnds(t *testing.T) {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Generation: 2, Finalizers: []string{"x/y"}, DeletionTimestamp: ptr.To(metav1.Now())},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(p).WithStatusSubresource(p).Build()
	if _, err := New(c, c, 0, metrics.NewKubeRegistry()).Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(p), p); err != nil {
		t.Fatal(err)
	}
	if p.Status.Phase != corev1.PodFailed || p.Status.ObservedGeneration != p.Generation {
		t.Errorf("its status is %+v", p.Status)
	}
}
