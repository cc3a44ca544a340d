package endpoints

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// With a Service go its Endpoints, those that were written by hand as well.
func TestServiceIsGone(t *testing.T) {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}}
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(e).Build()
	if _, err := New(c, record.NewFakeRecorder(1), 0).Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(e)}); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(e), e); !apierrors.IsNotFound(err) {
		t.Errorf("the Endpoints are still there: %v", err)
	}
}

// Endpoints are looked at when they go and, at the start, when they are found: not when somebody has written into them.
func TestWhatHappensToEndpoints(t *testing.T) {
	ours := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", Labels: map[string]string{managedByLabel: managedBy}}}
	theirs := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}}
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	h := onEndpoints()
	for name, tc := range map[string]struct {
		happens func(queue)
		want    int
	}{
		"found at the start": {func(q queue) {
			h.Create(t.Context(), event.CreateEvent{Object: ours, IsInInitialList: true}, q)
		}, 1},
		"somebody's, found at the start": {func(q queue) {
			h.Create(t.Context(), event.CreateEvent{Object: theirs, IsInInitialList: true}, q)
		}, 0},
		"created": {func(q queue) {
			h.Create(t.Context(), event.CreateEvent{Object: ours}, q)
		}, 0},
		"changed": {func(q queue) {
			h.Update(t.Context(), event.UpdateEvent{ObjectOld: ours, ObjectNew: ours}, q)
		}, 0},
		"deleted": {func(q queue) {
			h.Delete(t.Context(), event.DeleteEvent{Object: ours}, q)
		}, 1},
	} {
		q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		tc.happens(q)
		if q.Len() != tc.want {
			t.Errorf("%s: %d to look at", name, q.Len())
		}
		q.ShutDown()
	}
}
