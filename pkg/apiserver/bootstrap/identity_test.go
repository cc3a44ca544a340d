package bootstrap

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

func TestRemoveExpired(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := func(name string, spec coordinationv1.LeaseSpec, labels map[string]string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name, Labels: labels}, Spec: spec}
	}
	renewed := func(ago time.Duration) coordinationv1.LeaseSpec {
		return coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(now.Add(-ago))), LeaseDurationSeconds: ptr.To[int32](3600)}
	}
	server := map[string]string{identityLabel: identity}
	for name, c := range map[string]struct {
		lease *coordinationv1.Lease
		stays bool
	}{
		"renewed":          {l("x", renewed(time.Minute), server), true},
		"expired":          {l("x", renewed(2*time.Hour), server), false},
		"never renewed":    {l("x", coordinationv1.LeaseSpec{}, server), false},
		"somebody else's":  {l("x", renewed(2*time.Hour), nil), true},
		"another server's": {l("x", renewed(2*time.Hour), map[string]string{identityLabel: "other"}), true},
	} {
		client := fake.NewSimpleClientset(c.lease)
		if err := removeExpired(t.Context(), client, now); err != nil {
			t.Fatal(err)
		}
		_, err := client.CoordinationV1().Leases("kube-system").Get(t.Context(), "x", metav1.GetOptions{})
		if (err == nil) != c.stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}
