package noderesources

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
)

// proposed is a pod that would be on the placement.
type proposed struct {
	fwk.ProposedAssignment
	info *cache.PodInfo
}

func (p proposed) GetPodInfo() fwk.PodInfo { return p.info }

func TestScorePlacement(t *testing.T) {
	list := func(cpu, memory, gpu string) v1.ResourceList {
		return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory), "example.com/gpu": resource.MustParse(gpu)}
	}
	pod := func(node string, l v1.ResourceList) *v1.Pod {
		return &v1.Pod{Spec: v1.PodSpec{NodeName: node, Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: l}}}}}
	}
	nodes := []*v1.Node{}
	for _, name := range []string{"a", "b"} {
		nodes = append(nodes, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Allocatable: list("5", "5000", "5")}})
	}
	one, weighted := []configv1.ResourceSpec{{Name: "cpu", Weight: 1}, {Name: "memory", Weight: 1}, {Name: "example.com/gpu", Weight: 1}}, []configv1.ResourceSpec{{Name: "cpu", Weight: 4}, {Name: "memory", Weight: 1}}
	for _, tc := range []struct {
		name      string
		there     *v1.Pod
		group     []*v1.Pod
		resources []configv1.ResourceSpec
		want      int64
	}{
		{"what the pods ask for of all there is", nil, []*v1.Pod{pod("", list("1", "0", "0")), pod("", list("2", "2000", "0"))}, one[:2], 25},
		{"weighted", nil, []*v1.Pod{pod("", list("1", "0", "0")), pod("", list("2", "2000", "0"))}, weighted, 28},
		{"beside those that are there", pod("a", list("1", "0", "0")), []*v1.Pod{pod("", list("1", "0", "1")), pod("", list("1", "2000", "0"))}, one, 20},
		{"an extended resource that the group does not want", pod("a", list("1", "0", "1")), []*v1.Pod{pod("", list("1", "0", "0")), pod("", list("1", "2000", "0"))}, one, 25},
	} {
		var there []*v1.Pod
		if tc.there != nil {
			there = []*v1.Pod{tc.there}
		}
		all, err := cache.NewSnapshotOf(nodes, there).List()
		if err != nil {
			t.Fatal(err)
		}
		placement := &fwk.PodGroupAssignments{Placement: &fwk.Placement{Nodes: all}}
		for _, p := range tc.group {
			info, err := cache.NewPodInfo(p)
			if err != nil {
				t.Fatal(err)
			}
			placement.ProposedAssignments = append(placement.ProposedAssignments, proposed{info: info})
		}
		if got, s := (&Fit{resources: tc.resources}).ScorePlacement(t.Context(), nil, nil, placement); got != tc.want || !s.IsSuccess() {
			t.Errorf("%s: %d (%v), want %d", tc.name, got, s, tc.want)
		}
	}
}
