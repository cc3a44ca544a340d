package endpointslice

import (
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestGeneration(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*discoveryv1.EndpointSlice)
		want   bool
	}{
		"nothing":     {func(*discoveryv1.EndpointSlice) {}, false},
		"annotations": {func(s *discoveryv1.EndpointSlice) { s.Annotations = map[string]string{"a": "b"} }, false},
		"labels":      {func(s *discoveryv1.EndpointSlice) { s.Labels = map[string]string{"a": "c"} }, true},
		"endpoints":   {func(s *discoveryv1.EndpointSlice) { s.Endpoints = nil }, true},
		"ports":       {func(s *discoveryv1.EndpointSlice) { s.Ports = []discoveryv1.EndpointPort{{}} }, true},
	} {
		old := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Generation: 1, Labels: map[string]string{"a": "b"}},
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
		}
		s := old.DeepCopy()
		tc.change(s)
		resource.PrepareForUpdate(t.Context(), s, old)
		if got := s.Generation > old.Generation; got != tc.want {
			t.Errorf("%s: another generation: %v", name, got)
		}
	}
}
