package pods

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a pod has from a claim for extended resources is not the node's to give.
func TestAdmitExtendedResources(t *testing.T) {
	const gpu = "example.com/gpu"
	list := func(n string) v1.ResourceList { return v1.ResourceList{gpu: resource.MustParse(n)} }
	node := func(has v1.ResourceList) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: v1.NodeStatus{Allocatable: has}}
	}
	pod := func(claimed bool) *v1.Pod {
		p := &v1.Pod{Spec: v1.PodSpec{NodeName: "n", Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: list("1"), Limits: list("1")}}}}}
		if claimed {
			p.Status.ExtendedResourceClaimStatus = &v1.PodExtendedResourceClaimStatus{
				ResourceClaimName: "p-extended-resources-x", RequestMappings: []v1.ContainerExtendedResourceRequest{{ContainerName: "c", ResourceName: gpu, RequestName: "container-0-request-0"}},
			}
		}
		return p
	}
	for _, tc := range []struct {
		name   string
		pod    *v1.Pod
		has    v1.ResourceList
		others []*v1.Pod
		want   string
	}{
		{"the node has it", pod(false), list("1"), nil, ""},
		{"the node has none", pod(false), nil, nil, "OutOfexample.com/gpu"},
		{"from a claim, the node has none", pod(true), nil, nil, ""},
		{"from a claim, the node's plugin has gone", pod(true), list("0"), nil, ""},
		{"another has it from the node", pod(false), list("1"), []*v1.Pod{pod(false)}, "OutOfexample.com/gpu"},
		{"another has it from a claim", pod(false), list("1"), []*v1.Pod{pod(true)}, ""},
	} {
		got := ""
		if r := Admit(tc.pod, node(tc.has), tc.others, nil); r != nil {
			got = r.Reason
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
