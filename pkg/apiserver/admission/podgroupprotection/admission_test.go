package podgroupprotection

import (
	"slices"
	"testing"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestAdmit(t *testing.T) {
	group := &schedulingv1beta1.PodGroup{}
	for range 2 {
		admissiontest.Check(t, admissiontest.Run(t, New(), admissiontest.Request{Resource: "scheduling.k8s.io/podgroups", Object: group}.Attributes(t)), "")
		if !slices.Equal(group.Finalizers, []string{"scheduling.k8s.io/podgroup-protection"}) {
			t.Errorf("finalizers %v", group.Finalizers)
		}
	}
	other := &schedulingv1beta1.PodGroup{}
	admissiontest.Check(t, admissiontest.Run(t, New(), admissiontest.Request{Resource: "example.com/podgroups", Object: other}.Attributes(t)), "")
	if len(other.Finalizers) > 0 {
		t.Errorf("another group's object has finalizers %v", other.Finalizers)
	}
}
