package podcertificatecleaner

import (
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestReconcile(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	request := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r", CreationTimestamp: metav1.NewTime(now)}}
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(request).Build()
	clock := clocktesting.NewFakePassiveClock(now.Add(5 * time.Minute))
	ctl := &Controller{client: c, clock: clock}
	key := client.ObjectKeyFromObject(request)
	if res, err := ctl.Reconcile(t.Context(), reconcile.Request{NamespacedName: key}); err != nil || res.RequeueAfter != 10*time.Minute {
		t.Errorf("a young one: %+v, %v", res, err)
	}
	clock.SetTime(now.Add(lifetime))
	if _, err := ctl.Reconcile(t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
		t.Error(err)
	}
	if err := c.Get(t.Context(), key, request); !apierrors.IsNotFound(err) {
		t.Errorf("an old one: %v", err)
	}
}
