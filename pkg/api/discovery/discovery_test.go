package discovery

import (
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestEndpointSlice(t *testing.T) {
	apitest.Run(t, "testdata/endpointslice.txtar", apitest.Kind[discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice]{
		Path:        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
		AddDefaults: AddDefaults,
		Prepare: func(s *discoveryv1.EndpointSlice) {
			for i := range s.Endpoints {
				s.Endpoints[i].DeprecatedTopology = nil
			}
		},
		Create: ValidateEndpointSlice,
		Update: ValidateEndpointSliceUpdate,
	})
}
