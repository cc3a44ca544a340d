package devicetainteviction

import (
	"maps"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	resourcev1 "k8s.io/api/resource/v1"
)

// How many pods a rule has evicted is forgotten when the rule is deleted.
func TestDeletedRule(t *testing.T) {
	left := rule(resourcev1.DeviceTaintEffectNoExecute, "d")
	left.Name = "left"
	c := New(fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(&left).Build(), record.NewFakeRecorder(1), false)
	c.evicted = map[types.UID]int{left.UID: 1, "gone": 2}
	if _, err := c.reconcileRule(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "gone"}}); err != nil {
		t.Fatal(err)
	}
	if want := map[types.UID]int{left.UID: 1}; !maps.Equal(c.evicted, want) {
		t.Errorf("evicted: %v, want %v", c.evicted, want)
	}
}
