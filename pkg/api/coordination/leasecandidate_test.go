package coordination

import (
	"testing"

	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestLeaseCandidate(t *testing.T) {
	apitest.Run(t, "testdata/leasecandidate.txtar", apitest.Kind[coordinationv1beta1.LeaseCandidate, *coordinationv1beta1.LeaseCandidate]{
		Path:   "/apis/coordination.k8s.io/v1beta1/namespaces/default/leasecandidates",
		Create: ValidateLeaseCandidate,
		Update: ValidateLeaseCandidateUpdate,
	})
}
