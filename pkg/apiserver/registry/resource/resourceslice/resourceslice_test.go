package resourceslice

import (
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestGeneration(t *testing.T) {
	created := &resourcev1.ResourceSlice{}
	prepareForCreate(created)
	if created.Generation != 1 {
		t.Errorf("a new slice has generation %d, not 1", created.Generation)
	}
	tests := map[string]struct {
		change func(*resourcev1.ResourceSlice)
		want   int64
	}{
		"nothing":        {func(*resourcev1.ResourceSlice) {}, 3},
		"a label":        {func(s *resourcev1.ResourceSlice) { s.Labels = map[string]string{"a": "b"} }, 3},
		"the generation": {func(s *resourcev1.ResourceSlice) { s.Generation = 7 }, 3},
		"the spec":       {func(s *resourcev1.ResourceSlice) { s.Spec.Driver = "other" }, 4},
		"a disabled field": {func(s *resourcev1.ResourceSlice) {
			s.Spec.PartitionTypeAttribute = ptr.To[resourcev1.FullyQualifiedName]("a")
		}, 4},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			old := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Generation: 3}, Spec: resourcev1.ResourceSliceSpec{Driver: "d"}}
			s := old.DeepCopy()
			test.change(s)
			prepareForUpdate(s, old)
			if s.Generation != test.want {
				t.Errorf("generation %d, not %d", s.Generation, test.want)
			}
			if s.Spec.PartitionTypeAttribute != nil {
				t.Error("the disabled field is kept")
			}
		})
	}
}
