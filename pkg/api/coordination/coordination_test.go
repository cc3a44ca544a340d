package coordination

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestLease(t *testing.T) {
	apitest.Run(t, "testdata/lease.txtar", apitest.Kind[coordinationv1.Lease, *coordinationv1.Lease]{
		Path: "/apis/coordination.k8s.io/v1/namespaces/default/leases",
		Prepare: func(l *coordinationv1.Lease) {
			l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil
		},
		Create: ValidateLease,
		Update: ValidateLeaseUpdate,
	})
}
