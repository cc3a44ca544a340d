package scheduler

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
)

// What a placement weighs, one thing at a time: were it not for that thing, the pod would go to the larger node, a.
// https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/ names them.
func TestPlacementWeighs(t *testing.T) {
	const gpu = "example.com/gpu"
	plain := makePod("p", "1", "1Gi", app("web"))
	large := func(change ...func(*v1.Node)) *v1.Node {
		return makeNode("a", "8", "16Gi", append(change, zone("a"))...)
	}
	small := func(change ...func(*v1.Node)) *v1.Node {
		return makeNode("b", "4", "8Gi", append(change, zone("b"))...)
	}
	nodes := []*v1.Node{large(), small()}
	label := func(key, value string) func(*v1.Node) { return func(n *v1.Node) { n.Labels[key] = value } }
	selects := func(key, value string) func(*v1.Pod) {
		return func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
	}
	has := func(name v1.ResourceName, n string) func(*v1.Node) {
		return func(node *v1.Node) { node.Status.Allocatable[name] = resource.MustParse(n) }
	}
	image := func(n *v1.Node) {
		n.Status.Images = []v1.ContainerImage{{Names: []string{"example.com/model:1"}, SizeBytes: 1 << 30}}
	}
	port := func(p *v1.Pod) { p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80}} }
	runs := func(image string) func(*v1.Pod) { return func(p *v1.Pod) { p.Spec.Containers[0].Image = image } }
	tainted := func(key string, effect v1.TaintEffect) func(*v1.Node) {
		return func(n *v1.Node) { n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: key, Effect: effect}) }
	}
	many := func(node, cpu, memory string, n int, change ...func(*v1.Pod)) (pods []*v1.Pod) {
		for i := range n {
			pods = append(pods, makePod(fmt.Sprint("on-", node, i), cpu, memory, append(change, on(node))...))
		}
		return pods
	}
	if got := newWorld(t, nodes, nil).where(t, plain); got != "a" {
		t.Fatalf("for no reason at all it goes to %s, want a", got)
	}
	for _, tc := range []placementCase{
		{"resources of its own: what it asks for is free", makePod("p", "3", "1Gi"), nodes, many("a", "6", "1Gi", 1), nil, "b"},
		{"resources of its own: no cpu set aside, but memory", makePod("p", "", "7Gi"), nodes, many("a", "", "10Gi", 1), nil, "b"},
		{"resources together: an overloaded node is avoided", plain, nodes, many("a", "1", "2Gi", 7), nil, "b"},
		{"resources together: those that ask for nothing weigh, too", makePod("p", "", ""), []*v1.Node{makeNode("a", "8", "16Gi"), makeNode("b", "8", "16Gi")}, many("a", "", "", 8), nil, "b"},
		{"resources together: as many pods as a node may have", plain, []*v1.Node{large(has(v1.ResourcePods, "2")), small()}, many("a", "", "", 2), nil, "b"},
		{"hardware: a node that has the device", makePod("p", "1", "1Gi", asking(gpu, "1")), []*v1.Node{large(), small(has(gpu, "1"))}, nil, nil, "b"},
		{"hardware: a device that a driver offers", makePod("p", "1", "1Gi", wants("c")), nodes, nil, []runtime.Object{dongleClass(), deviceSlice("b", "g0"), deviceClaim("c")}, "b"},
		{"hardware: another architecture", makePod("p", "1", "1Gi", selects(v1.LabelArchStable, "arm64")), []*v1.Node{large(label(v1.LabelArchStable, "amd64")), small(label(v1.LabelArchStable, "arm64"))}, nil, nil, "b"},
		{"software: the operating system", makePod("p", "1", "1Gi", selects(v1.LabelOSStable, "linux")), []*v1.Node{large(label(v1.LabelOSStable, "windows")), small(label(v1.LabelOSStable, "linux"))}, nil, nil, "b"},
		{"software: the image is there already", makePod("p", "100m", "1Gi", runs("example.com/model:1")), []*v1.Node{makeNode("a", "8", "16Gi"), makeNode("b", "8", "16Gi", image)}, nil, nil, "b"},
		{"software: a port of the host is free", makePod("p", "1", "1Gi", port), nodes, many("a", "", "", 1, port), nil, "b"},
		{"policy: nodes set aside for others", plain, []*v1.Node{large(tainted("team", v1.TaintEffectNoSchedule)), small()}, nil, nil, "b"},
		{"policy: nodes that are better left alone", plain, []*v1.Node{large(tainted("old", v1.TaintEffectPreferNoSchedule)), small()}, nil, nil, "b"},
		{"policy: a cordoned node", plain, []*v1.Node{large(func(n *v1.Node) { n.Spec.Unschedulable = true }), small()}, nil, nil, "b"},
		{"policy: zones share the pods", makePod("p", "1", "1Gi", app("web"), spread(zoneKey, 1, v1.DoNotSchedule)), nodes, many("a", "", "", 1, app("web")), nil, "b"},
		{"where the data is: a volume on a node", makePod("p", "1", "1Gi", uses("c")), nodes, nil, []runtime.Object{makeClaim("c", "", "1Gi", bound("v")), makeVolume("v", "", "1Gi", "b")}, "b"},
		{"where the data is: a volume in a zone", makePod("p", "1", "1Gi", uses("c")), nodes, nil, []runtime.Object{makeClaim("c", "", "1Gi", bound("v")),
			makeVolume("v", "", "1Gi", "", func(v *v1.PersistentVolume) { v.Labels[zoneKey] = "b" })}, "b"},
		{"where the data is: beside the cache that it asks", makePod("p", "1", "1Gi", near(term(v1.LabelHostname, "cache"))), nodes, many("b", "1", "1Gi", 1, app("cache")), nil, "b"},
		{"workloads that disturb each other: it keeps away", makePod("p", "1", "1Gi", apart(term(v1.LabelHostname, "batch"))), nodes, many("a", "", "", 1, app("batch")), nil, "b"},
		{"workloads that disturb each other: it is kept away", plain, nodes, many("a", "", "", 1, apart(term(v1.LabelHostname, "web"))), nil, "b"},
		{"workloads that disturb each other: it would rather be elsewhere", makePod("p", "1", "1Gi", rather(false, 100, term(v1.LabelHostname, "batch"))), nodes, many("a", "", "", 1, app("batch")), nil, "b"},
	} {
		tc.check(t)
	}
}
