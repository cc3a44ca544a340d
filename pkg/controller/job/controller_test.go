package job

import (
	"context"
	"errors"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
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
	if _, err := New(c, c, record.NewFakeRecorder(1), metrics.NewKubeRegistry(), false).Reconcile(t.Context(), reqs[0]); err != nil {
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

// A conflict while a finalizer is taken off may be all that is ever heard of the pod: it is an error, so that it is tried again.
func TestFreeingAgainAfterAConflict(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Finalizers: []string{batchv1.JobTrackingFinalizer}, Labels: map[string]string{batchv1.JobNameLabel: "pi"}}}
	patches := 0
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(pod).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if patches++; patches == 1 {
				return apierrors.NewConflict(corev1.Resource("pods"), o.GetName(), errors.New("for no reason"))
			}
			return c.Patch(ctx, o, p, opts...)
		},
	}).Build()
	r := New(c, c, record.NewFakeRecorder(1), metrics.NewKubeRegistry(), false)
	req := reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "ns", Name: "pi"}}
	if _, err := r.Reconcile(t.Context(), req); !apierrors.IsConflict(err) {
		t.Errorf("a conflict has led to %v", err)
	}
	if _, err := r.Reconcile(t.Context(), req); err != nil {
		t.Error(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil || tracked(pod) {
		t.Errorf("the pod: %v, %v", pod.Finalizers, err)
	}
}
