package resourcepoolstatusrequest

import (
	"fmt"
	"testing"

	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCells(t *testing.T) {
	condition := func(kind string) []metav1.Condition {
		return []metav1.Condition{{Type: "Other", Status: "True"}, {Type: kind, Status: "True"}}
	}
	four, failed := int32(4), "failed"
	pools := []resourcev1alpha3.PoolStatus{{TotalDevices: &four, AvailableDevices: &four}, {TotalDevices: &four, AllocatedDevices: &four, ValidationError: &failed}}
	for name, tc := range map[string]struct {
		status *resourcev1alpha3.ResourcePoolStatusRequestStatus
		want   string
	}{
		"none":     {nil, "[a d - - - - - 0 Pending <none>]"},
		"pending":  {&resourcev1alpha3.ResourcePoolStatusRequestStatus{}, "[a d 0 0 0 0 0 0 Pending <none>]"},
		"complete": {&resourcev1alpha3.ResourcePoolStatusRequestStatus{PoolCount: new(int32(2)), Pools: pools, Conditions: condition("Complete")}, "[a d 8 4 4 0 1 2 Complete <unknown>]"},
		"cut":      {&resourcev1alpha3.ResourcePoolStatusRequestStatus{PoolCount: &four, Pools: pools, Conditions: condition("Complete")}, "[a d 8 4 4 0 1 4 Complete (2/4 pools) <unknown>]"},
		"failed":   {&resourcev1alpha3.ResourcePoolStatusRequestStatus{PoolCount: &four, Conditions: condition("Failed")}, "[a d - - - - - 4 Failed <none>]"},
	} {
		r := &resourcev1alpha3.ResourcePoolStatusRequest{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: resourcev1alpha3.ResourcePoolStatusRequestSpec{Driver: "d"}, Status: tc.status}
		if got := fmt.Sprint(requests.Cells(r)); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}
