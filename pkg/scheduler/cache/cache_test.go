package cache

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

func node(name, zone string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelTopologyZone: zone}}}
}

func pod(name, on, cpu string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec: v1.PodSpec{NodeName: on, Containers: []v1.Container{{
			Name:      "c",
			Ports:     []v1.ContainerPort{{HostPort: 80, Protocol: v1.ProtocolTCP}},
			Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}},
		}}},
	}
}

// show writes what a snapshot holds: nodes in order, with pods and the CPU they ask for.
func show(s *Snapshot) string {
	out := ""
	for _, n := range s.list {
		out += fmt.Sprintf("%s:%d/%dm ", n.Node().Name, len(n.GetPods()), n.GetRequested().GetMilliCPU())
	}
	return out
}

func TestSnapshotFollowsTheCache(t *testing.T) {
	c, s := New(), NewSnapshot()
	assume := func(p *v1.Pod) {
		info, err := NewPodInfo(p)
		if err == nil {
			err = c.AssumePod(info)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"zones take turns", func() {
			c.SetNode(node("a1", "a"))
			c.SetNode(node("a2", "a"))
			c.SetNode(node("b1", "b"))
		}, "a1:0/0m b1:0/0m a2:0/0m "},
		{"a pod before its node", func() { c.SetPod(pod("early", "b2", "1")) }, "a1:0/0m b1:0/0m a2:0/0m "},
		{"its node", func() { c.SetNode(node("b2", "b")) }, "a1:0/0m b1:0/0m a2:0/0m b2:1/1000m "},
		{"assumed", func() { assume(pod("p", "a1", "500m")) }, "a1:1/500m b1:0/0m a2:0/0m b2:1/1000m "},
		{"confirmed elsewhere", func() { c.SetPod(pod("p", "a2", "500m")) }, "a1:0/0m b1:0/0m a2:1/500m b2:1/1000m "},
		{"confirmed pods are not forgotten", func() { c.ForgetPod(pod("p", "a2", "500m")) }, "a1:0/0m b1:0/0m a2:1/500m b2:1/1000m "},
		{"grown", func() { c.SetPod(pod("p", "a2", "2")) }, "a1:0/0m b1:0/0m a2:1/2000m b2:1/1000m "},
		{"assumed and forgotten", func() { assume(pod("q", "a1", "1")); c.ForgetPod(pod("q", "a1", "1")) }, "a1:0/0m b1:0/0m a2:1/2000m b2:1/1000m "},
		{"a node goes before its pods", func() { c.RemoveNode("a2") }, "a1:0/0m b1:0/0m b2:1/1000m "},
		{"then they", func() { c.RemovePod("p") }, "a1:0/0m b1:0/0m b2:1/1000m "},
		{"a node changes zone", func() { c.SetNode(node("a1", "c")) }, "b1:0/0m a1:0/0m b2:1/1000m "},
	} {
		before := map[string]any{}
		for _, n := range s.list {
			before[n.Node().Name] = n
		}
		step.do()
		c.UpdateSnapshot(s)
		if diff := cmp.Diff(step.want, show(s)); diff != "" {
			t.Fatalf("%s (-want +got)\n%s", step.name, diff)
		}
		if n, err := s.Get("b1"); err == nil && before["b1"] != nil && n != before["b1"] {
			t.Errorf("%s: b1 was copied though nothing changed about it", step.name)
		}
	}
	if nodes, pods, assumed := c.Counts(); nodes != 3 || pods != 1 || assumed != 0 {
		t.Errorf("%d nodes, %d pods, %d assumed are left", nodes, pods, assumed)
	}
}

func TestNodeInfoAccounts(t *testing.T) {
	p := pod("p", "n", "1")
	p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
	n := NewNodeInfo(p)
	copied := n.Snapshot()
	if !n.GetUsedPorts().CheckConflict("", "TCP", 80) || n.GetPVCRefCounts()["default/c"] != 1 || n.GetNonZeroRequested().GetMemory() != 200<<20 {
		t.Errorf("ports %v, claims %v, memory %d", n.GetUsedPorts(), n.GetPVCRefCounts(), n.GetNonZeroRequested().GetMemory())
	}
	if err := n.RemovePod(klog.Background(), p); err != nil {
		t.Fatal(err)
	}
	if n.GetUsedPorts().Len()+len(n.GetPVCRefCounts()) != 0 || n.GetRequested().GetMilliCPU() != 0 {
		t.Errorf("left: ports %v, claims %v", n.GetUsedPorts(), n.GetPVCRefCounts())
	}
	if err := n.RemovePod(klog.Background(), p); err == nil {
		t.Error("removing a pod twice is no error")
	}
	if len(copied.GetPods()) != 1 || copied.GetUsedPorts().Len() != 1 {
		t.Error("the snapshot changed with the node")
	}
}

// What a node says of an image counts the nodes that came, and got it, later.
func TestImageStatesFollowOtherNodes(t *testing.T) {
	c, s := New(), NewSnapshot()
	holding := func(name string, images ...string) *v1.Node {
		n := node(name, "a")
		for _, image := range images {
			n.Status.Images = append(n.Status.Images, v1.ContainerImage{Names: []string{image}, SizeBytes: 100})
		}
		return n
	}
	want := func(step, nodeName string, holders int) {
		t.Helper()
		c.UpdateSnapshot(s)
		n, err := s.Get(nodeName)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.GetImageStates()["web"]; got == nil || got.NumNodes != holders || got.Size != 100 {
			t.Errorf("%s: node %s says %+v of the image, want %d nodes", step, nodeName, got, holders)
		}
	}
	c.SetNode(holding("n1", "web", "db"))
	c.SetNode(holding("n2", "web"))
	want("both came", "n1", 2)
	want("both came", "n2", 2)
	c.SetNode(holding("n2"))
	c.SetPod(pod("p", "n1", "1")) // its node is shown anew when something about it changes
	want("one has let it go", "n1", 1)
	c.RemoveNode("n1")
	c.SetNode(holding("n2", "web"))
	want("one is gone", "n2", 1)
}

// Containers that ask for nothing count for a little, unless their pod says what all need together.
func TestLeastRequests(t *testing.T) {
	request := func(list ...string) v1.ResourceList {
		out := v1.ResourceList{}
		for i := 0; i < len(list); i += 2 {
			out[v1.ResourceName(list[i])] = resource.MustParse(list[i+1])
		}
		return out
	}
	silent := v1.Container{Name: "silent"}
	loud := v1.Container{Name: "loud", Resources: v1.ResourceRequirements{Requests: request("memory", "1Gi")}}
	for _, tc := range []struct {
		name        string
		whole       v1.ResourceList
		containers  []v1.Container
		cpu, memory int64
	}{
		{"nobody says anything", nil, []v1.Container{silent, silent}, 200, 400 << 20},
		{"one says", nil, []v1.Container{silent, loud}, 200, (200 + 1024) << 20},
		{"the pod says all", request("cpu", "2", "memory", "3Gi"), []v1.Container{silent, loud}, 2000, 3 << 30},
		{"the pod says how much CPU", request("cpu", "2"), []v1.Container{silent, loud}, 2000, 1 << 30},
		{"the pod says how much CPU, and nobody how much memory", request("cpu", "2"), []v1.Container{silent}, 2000, 200 << 20},
		{"below zero", nil, []v1.Container{{Resources: v1.ResourceRequirements{Requests: request("cpu", "-1", "memory", "-1Gi")}}}, 0, 0},
	} {
		p := &v1.Pod{Spec: v1.PodSpec{Containers: tc.containers}}
		if tc.whole != nil {
			p.Spec.Resources = &v1.ResourceRequirements{Requests: tc.whole}
		}
		r := podResource(p)
		if r.Non0CPU != tc.cpu || r.Non0Mem != tc.memory || r.Resource.GetMilliCPU() < 0 || r.Resource.GetMemory() < 0 {
			t.Errorf("%s: %dm CPU, %d bytes, want %d, %d; it asks for %v", tc.name, r.Non0CPU, r.Non0Mem, tc.cpu, tc.memory, r.Resource)
		}
	}
}
