package scheduling

import (
	"testing"

	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestPriorityClass(t *testing.T) {
	apitest.Run(t, "testdata/priorityclass.txtar", apitest.Kind[schedulingv1.PriorityClass, *schedulingv1.PriorityClass]{
		Path:        "/apis/scheduling.k8s.io/v1/priorityclasses",
		AddDefaults: AddDefaults,
		Create:      ValidatePriorityClass,
		Update:      ValidatePriorityClassUpdate,
	})
}
