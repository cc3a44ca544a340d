package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/devices"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/defaultpreemption"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// deviceGang is a group whose pods ask for devices.
type deviceGang struct {
	*mind
	t      *testing.T
	client *fake.Clientset
	group  *schedulingv1beta1.PodGroup
}

func newDeviceGang(t *testing.T, gates framework.Gates, nodes []*v1.Node, group *schedulingv1beta1.PodGroup, pods []*v1.Pod, objects ...runtime.Object) *deviceGang {
	t.Helper()
	objects = append(objects, group, &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}})
	for _, p := range pods {
		objects = append(objects, p)
	}
	client := fake.NewClientset(objects...)
	countVersions(client)
	known := informers.NewSharedInformerFactory(client, 0)
	c := config.Default()
	c.Profiles[0].Plugins.MultiPoint.Disabled = []configv1.Plugin{{Name: defaultpreemption.Name}} // it has the last word
	m, err := newMind(t.Context(), c, plugins.Registry(), framework.Deps{Client: client, Informers: known, Gates: gates},
		func(string) events.EventRecorderLogger { return events.NewFakeRecorder(100) })
	if err != nil {
		t.Fatal(err)
	}
	m.queue = queue.New(queue.Config{Less: m.less()})
	known.Start(t.Context().Done())
	known.WaitForCacheSync(t.Context().Done())
	for _, n := range nodes {
		m.cache.SetNode(n)
	}
	for _, p := range pods {
		m.podChanged(t.Context(), nil, p)
	}
	return &deviceGang{m, t, client, group}
}

func (g *deviceGang) claims() *devices.Claims {
	manager, ok := g.profiles[config.DefaultSchedulerName].SharedDRAManager().(*devices.Manager)
	if !ok {
		g.t.Fatal("no devices are known")
	}
	return manager.Claims()
}

func (g *deviceGang) claim(name string) *resourceapi.ResourceClaim {
	g.t.Helper()
	c, err := g.client.ResourceV1().ResourceClaims("default").Get(g.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

// users are those whom a claim is reserved for.
func (g *deviceGang) users(claim string) string {
	g.t.Helper()
	var out []string
	for _, r := range g.claim(claim).Status.ReservedFor {
		out = append(out, r.Resource+"/"+r.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// place decides about the pods and has them on the nodes that were found, for as much as
// a scheduler does before it binds them.
func (g *deviceGang) place() []*groupMember {
	g.t.Helper()
	ctx, fw := g.t.Context(), g.profiles[config.DefaultSchedulerName]
	info := &podgroup.Info{Group: g.group}
	for _, p := range g.groups.State(types.NamespacedName{Namespace: "default", Name: g.group.Name}).UnscheduledPods() {
		info.Pods = append(info.Pods, p)
	}
	slices.SortFunc(info.Pods, func(a, b *v1.Pod) int { return strings.Compare(a.Name, b.Name) })
	d := g.decideGroup(ctx, groupQuestion{fw: fw, group: info, attempts: make([]int, len(info.Pods)), seed: 1})
	if !d.status.IsSuccess() {
		g.t.Fatal(d.status.Message())
	}
	var placed []*groupMember
	for i, pod := range info.Pods {
		d.members[i].state.LeaveGroup()
		m := &groupMember{fw: fw, state: d.members[i].state}
		var err error
		if m.pod, err = g.assume(g.t.Context(), pod, d.members[i].node); err != nil {
			g.t.Fatal(err)
		}
		if s := fw.RunReservePluginsReserve(ctx, m.state, m.pod, m.pod.Spec.NodeName); !s.IsSuccess() {
			g.t.Fatal(s.Message())
		}
		placed = append(placed, m)
	}
	return placed
}

// groupMember is a pod that has been placed with its group.
type groupMember struct {
	fw    *framework.Framework
	state fwk.CycleState
	pod   *v1.Pod
}

// bindAll does for all pods, at once, what precedes their binding.
func bindAll(t *testing.T, pods []*groupMember) {
	t.Helper()
	var binding sync.WaitGroup
	for _, m := range pods {
		binding.Go(func() {
			if s := m.fw.RunPreBind(t.Context(), m.state, m.pod, m.pod.Spec.NodeName); !s.IsSuccess() {
				t.Errorf("%s: %s", m.pod.Name, s.Message())
			}
		})
	}
	binding.Wait()
}

var claimGates = framework.Gates{GenericWorkload: true, TopologyAwareWorkloadScheduling: true, DRAWorkloadResourceClaims: true}

func selecting(node string) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{v1.LabelHostname: node} }
}

// Pods that are tried together can have devices of one claim, which none of them has yet.
func TestMatesShareClaims(t *testing.T) {
	nodes := []*v1.Node{makeNode("a", "8", "16Gi"), makeNode("b", "8", "16Gi")}
	for _, tc := range []struct {
		name    string
		pods    []*v1.Pod
		objects []runtime.Object
		want    string // nodes, or why there are none
	}{
		{"one claim", []*v1.Pod{makePod("p", "1", "", of("g"), wants("c")), makePod("q", "1", "", of("g"), wants("c"))},
			[]runtime.Object{deviceSlice("a", "g0"), deviceClaim("c")}, "a a"},
		{"a claim each", []*v1.Pod{makePod("p", "1", "", of("g"), wants("c")), makePod("q", "1", "", of("g"), wants("d"))},
			[]runtime.Object{deviceSlice("b", "g0", "g1"), deviceClaim("c"), deviceClaim("d")}, "b b"},
		{"a claim each, and one device", []*v1.Pod{makePod("p", "1", "", of("g"), wants("c")), makePod("q", "1", "", of("g"), wants("d"))},
			[]runtime.Object{deviceSlice("a", "g0"), deviceClaim("c"), deviceClaim("d")}, "minCount (2) cannot be satisfied"},
		{"apart, and one claim", []*v1.Pod{makePod("p", "1", "", of("g"), wants("c"), selecting("a")), makePod("q", "1", "", of("g"), wants("c"), selecting("b"))},
			[]runtime.Object{deviceSlice("a", "g0"), deviceClaim("c")}, "minCount (2) cannot be satisfied"},
		{"one claim, and no room beside it", []*v1.Pod{makePod("p", "5", "", of("g"), wants("c")), makePod("q", "5", "", of("g"), wants("c"))},
			[]runtime.Object{deviceSlice("a", "g0"), deviceClaim("c")}, "minCount (2) cannot be satisfied"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newDeviceGang(t, framework.Gates{GenericWorkload: true}, nodes, makeGroup("g", 2), tc.pods, tc.objects...)
			d := decideOn(t, g.mind, "g")
			var on []string
			for _, m := range d.members {
				on = append(on, m.node)
			}
			if got := strings.Join(on, " "); d.status.IsSuccess() && got != tc.want || !d.status.IsSuccess() && !strings.HasPrefix(d.status.Message(), tc.want) {
				t.Errorf("%q (%s), want %s", got, d.status.Message(), tc.want)
			}
			if pending, written := g.claims().Known(); len(pending)+len(written) > 0 {
				t.Errorf("the decision leaves %v and %v", pending, written)
			}
		})
	}
}

// A claim that mates share is allocated once, and reserved for each of them, or for their
// group if that names it too.
func TestClaimsOfGroups(t *testing.T) {
	named := func(g *schedulingv1beta1.PodGroup) {
		name := "c"
		g.Spec.ResourceClaims = []schedulingv1beta1.PodGroupResourceClaim{{Name: name, ResourceClaimName: &name}}
	}
	other := func(g *schedulingv1beta1.PodGroup) {
		named(g)
		g.Spec.ResourceClaims[0].Name = "another name than the pods'"
	}
	for _, tc := range []struct {
		name        string
		gates       framework.Gates
		group       *schedulingv1beta1.PodGroup
		users, left string // of the claim; and after one pod was turned back
	}{
		{"of the group", claimGates, makeGroup("g", 2, named), "podgroups/g", "podgroups/g"},
		{"of the pods", claimGates, makeGroup("g", 2), "pods/p pods/q", "pods/q"},
		{"of the pods, as the names differ", claimGates, makeGroup("g", 2, other), "pods/p pods/q", "pods/q"},
		{"of the pods, as the gate is off", framework.Gates{GenericWorkload: true}, makeGroup("g", 2, named), "pods/p pods/q", "pods/q"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pods := []*v1.Pod{makePod("p", "1", "", of("g"), wants("c")), makePod("q", "1", "", of("g"), wants("c"))}
			g := newDeviceGang(t, tc.gates, []*v1.Node{makeNode("a", "8", "16Gi")}, tc.group, pods, deviceSlice("a", "g0"), deviceClaim("c"))
			placed := g.place()
			bindAll(t, placed)
			if got := g.users("c"); got != tc.users || g.claim("c").Status.Allocation == nil {
				t.Errorf("the claim is reserved for %q, allocated %v, want %q", got, g.claim("c").Status.Allocation, tc.users)
			}
			if pending, _ := g.claims().Known(); len(pending) > 0 {
				t.Errorf("still to be allocated: %v", pending)
			}
			writes := len(g.client.Actions())

			// A mate that comes later has nothing to write if the claim is the group's.
			late := makePod("r", "1", "", of("g"), wants("c"))
			g.podChanged(t.Context(), nil, late)
			third := g.place()[0]
			s := third.fw.RunPreBindPreFlight(t.Context(), third.state, third.pod, "a")
			if ofGroup := tc.users == "podgroups/g"; s.IsSkip() != ofGroup || len(g.client.Actions()) != writes {
				t.Errorf("before the mate's binding there is to do: %s, %v", s.Code(), g.client.Actions()[writes:])
			}

			first := placed[0]
			first.fw.RunReservePluginsUnreserve(t.Context(), first.state, first.pod, "a")
			if got := g.users("c"); got != tc.left {
				t.Errorf("when a pod is turned back the claim is reserved for %q, want %q", got, tc.left)
			}
		})
	}
}

// Devices stay taken until the last of the mates that were to share them is turned back.
func TestMatesAreTurnedBack(t *testing.T) {
	pods := []*v1.Pod{makePod("p", "1", "", of("g"), wants("c")), makePod("q", "1", "", of("g"), wants("c"))}
	g := newDeviceGang(t, claimGates, []*v1.Node{makeNode("a", "8", "16Gi")}, makeGroup("g", 2), pods, deviceSlice("a", "g0"), deviceClaim("c"))
	placed := g.place()
	for i, m := range placed {
		if g.claims().GetPendingAllocation("c") == nil {
			t.Fatalf("after %d of two the devices are free", i)
		}
		m.fw.RunReservePluginsUnreserve(t.Context(), m.state, m.pod, "a")
	}
	if g.claims().GetPendingAllocation("c") != nil {
		t.Error("the devices are taken for nobody")
	}
}

// A group that fits nowhere gives up claims that keep it from other nodes, and what an
// earlier attempt has reserved for it.
func TestClaimsOfGroupsAreFreed(t *testing.T) {
	name := "c"
	named := func(g *schedulingv1beta1.PodGroup) {
		g.Spec.ResourceClaims = []schedulingv1beta1.PodGroupResourceClaim{{Name: name, ResourceClaimName: &name}}
	}
	ofGroup := func(c *resourceapi.ResourceClaim) {
		c.Status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{APIGroup: "scheduling.k8s.io", Resource: "podgroups", Name: "g", UID: "g"}}
	}
	for _, tc := range []struct {
		name      string
		gates     framework.Gates
		group     *schedulingv1beta1.PodGroup
		pod       *v1.Pod
		claim     *resourceapi.ResourceClaim
		says      string
		allocated bool // afterwards
		users     string
	}{
		{"on the wrong node", claimGates, makeGroup("g", 1), makePod("p", "1", "", of("g"), wants("c"), selecting("b")),
			deviceClaim("c", given("a", "g0", "p")), "deallocation and deletion of ResourceClaims completed", false, ""},
		{"of the group, on the wrong node", claimGates, makeGroup("g", 1, named), makePod("p", "1", "", of("g"), wants("c"), selecting("b")),
			deviceClaim("c", given("a", "g0"), ofGroup), "deallocation of PodGroup ResourceClaim completed", false, ""},
		{"of the group, while there is no room", claimGates, makeGroup("g", 1, named), makePod("p", "9", "", of("g"), wants("c")),
			deviceClaim("c", given("a", "g0"), ofGroup), "ResourceClaim unreserved for PodGroup", true, ""},
		{"of the group, and the gate is off", framework.Gates{GenericWorkload: true}, makeGroup("g", 1, named), makePod("p", "1", "", of("g"), wants("c"), selecting("b")),
			deviceClaim("c", given("a", "g0"), ofGroup), "", true, "podgroups/g"},
		{"of a group in one domain", claimGates, makeGroup("g", 1, named, inOne(v1.LabelHostname)), makePod("p", "9", "", of("g"), wants("c")),
			deviceClaim("c", given("a", "g0"), ofGroup), "", true, "podgroups/g"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newDeviceGang(t, tc.gates, []*v1.Node{makeNode("a", "8", "16Gi"), makeNode("b", "8", "16Gi")}, tc.group, []*v1.Pod{tc.pod}, deviceSlice("a", "g0"), tc.claim)
			q := groupQuestion{fw: g.profiles[config.DefaultSchedulerName], group: &podgroup.Info{Group: tc.group, Pods: []*v1.Pod{tc.pod}}, attempts: []int{1}, seed: 1}
			q.trial = true // of a dry run nothing comes
			if d := g.decideGroup(t.Context(), q); d.status.IsSuccess() || g.claim("c").Status.Allocation == nil || g.users("c") == "" {
				t.Fatalf("a trial: %s, the claim has %v", d.status.Message(), g.claim("c").Status)
			}
			q.trial = false
			d := g.decideGroup(t.Context(), q)
			if !strings.Contains(d.status.Message(), tc.says) || tc.says == "" && strings.Contains(d.status.Message(), "ResourceClaim") {
				t.Errorf("%s, want %s", d.status.Message(), tc.says)
			}
			if got := g.claim("c").Status; (got.Allocation != nil) != tc.allocated || g.users("c") != tc.users {
				t.Errorf("the claim has %v", got)
			}
		})
	}
}

// A claim that is made for a group by a template may be used by its pods while the gate is on.
func TestClaimsMadeForGroups(t *testing.T) {
	controller, template, claim := true, "t", "g-c-x"
	made := deviceClaim(claim, func(c *resourceapi.ResourceClaim) {
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "scheduling.k8s.io/v1beta1", Kind: "PodGroup", Name: "g", UID: "g", Controller: &controller}}
	})
	pod := makePod("p", "1", "", of("g"), func(p *v1.Pod) {
		p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "c", ResourceClaimTemplateName: &template}}
		p.Status.ResourceClaimStatuses = []v1.PodResourceClaimStatus{{Name: "c", ResourceClaimName: &claim}}
	})
	group := makeGroup("g", 1, func(g *schedulingv1beta1.PodGroup) {
		g.Spec.ResourceClaims = []schedulingv1beta1.PodGroupResourceClaim{{Name: "c", ResourceClaimTemplateName: &template}}
	})
	nodes := []*v1.Node{makeNode("a", "8", "16Gi")}
	g := newDeviceGang(t, claimGates, nodes, group, []*v1.Pod{pod}, deviceSlice("a", "g0"), made)
	bindAll(t, g.place())
	if got := g.users(claim); got != "podgroups/g" {
		t.Errorf("the claim is reserved for %q", got)
	}
	off := newDeviceGang(t, framework.Gates{GenericWorkload: true}, nodes, group, []*v1.Pod{pod}, deviceSlice("a", "g0"), made)
	want := fmt.Sprintf("ResourceClaim default/%s was not created for Pod default/p (Pod is not owner)", claim)
	if d := decideOn(t, off.mind, "g"); !strings.Contains(d.members[0].told.Message, want) {
		t.Errorf("while the gate is off: %q, want %q", d.members[0].told.Message, want)
	}
}
