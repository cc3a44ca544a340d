package node

import (
	"testing"

	nodev1 "k8s.io/api/node/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestRuntimeClass(t *testing.T) {
	apitest.Run(t, "testdata/runtimeclass.txtar", apitest.Kind[nodev1.RuntimeClass, *nodev1.RuntimeClass]{
		Path:   "/apis/node.k8s.io/v1/runtimeclasses",
		Create: ValidateRuntimeClass,
		Update: ValidateRuntimeClassUpdate,
	})
}
