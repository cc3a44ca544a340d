package policy

import (
	"testing"

	policyv1 "k8s.io/api/policy/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestPodDisruptionBudget(t *testing.T) {
	apitest.Run(t, "testdata/poddisruptionbudget.txtar", apitest.Kind[policyv1.PodDisruptionBudget, *policyv1.PodDisruptionBudget]{
		Path:   "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
		Create: ValidatePodDisruptionBudget,
		Update: ValidatePodDisruptionBudgetUpdate,
		Status: ValidatePodDisruptionBudgetStatusUpdate,
	})
}
