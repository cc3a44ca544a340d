package scheduler

import (
	"fmt"
	"math/rand/v2"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// generator draws a case.
type generator struct {
	*rand.Rand
	c     *Case
	tight bool // half of the clusters have hardly any room
	topic topic
	made  int
}

// topic is what the pods of a case are mostly about, so that they meet each other.
type topic int

const (
	anything topic = iota
	resources
	placement
	affinity
	spreading
	volumes
	devices
	preempting
	topics
)

// Generate draws the case of a seed.
func Generate(seed uint64) *Case {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 7)), c: &Case{Seed: seed}}
	g.tight = g.IntN(2) == 0
	g.topic = topic(g.IntN(int(topics)))
	nodes := 1 + g.IntN(8)
	if g.IntN(100) == 0 {
		nodes = allScored + 30
	}
	for i := range nodes {
		g.c.Nodes = append(g.c.Nodes, g.node(i))
	}
	for name, team := range map[string]string{"default": "a", "other": "b"} {
		g.object(&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team, v1.LabelMetadataName: name}}})
	}
	g.object(&v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: v1.ServiceSpec{Selector: map[string]string{"app": "web"}}})
	g.storage()
	g.devices()
	g.budgets()
	for range g.IntN(3 * nodes) {
		p := g.pod()
		p.Spec.NodeName = pick(g, g.c.Nodes).Name
		p.Status.StartTime = ptr.To(metav1.NewTime(time.Unix(1_700_000_000+int64(g.made), 0)))
		p.Spec.ResourceClaims = nil
		if g.IntN(3) > 0 { // those that came to stay
			p.Spec.Volumes = nil
		}
		g.c.Pods = append(g.c.Pods, p)
	}
	for range 2 + g.IntN(6) {
		p := g.pod()
		if g.IntN(40) == 0 {
			p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "example.com/wait"}}
		}
		if g.IntN(60) == 0 {
			p.Spec.NodeName = pick(g, g.c.Nodes).Name // as one that another scheduler has placed meanwhile
		}
		g.c.Pending = append(g.c.Pending, p)
		for g.IntN(3) == 0 { // those of a ReplicaSet are alike
			twin := p.DeepCopy()
			g.name(twin)
			g.c.Pending = append(g.c.Pending, twin)
		}
	}
	return g.c
}

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

// about is true for one of n, and for most if it is the case's topic.
func (g *generator) about(t topic, n int) bool {
	if g.topic == t {
		return g.IntN(4) > 0
	}
	return g.IntN(n) == 0
}

var zones = []string{"z1", "z2", "z3"}

func (g *generator) node(i int) *v1.Node {
	name := fmt.Sprintf("node-%d", i)
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{
		v1.LabelHostname:       name,
		v1.LabelTopologyZone:   pick(g, zones),
		"disk":                 pick(g, []string{"ssd", "hdd"}),
		"generation":           fmt.Sprint(g.IntN(5)),
		v1.LabelArchStable:     "amd64",
		"example.com/rack":     fmt.Sprint("r", i/2),
		v1.LabelTopologyRegion: "r1",
	}}}
	for _, key := range []string{v1.LabelTopologyZone, v1.LabelHostname, "disk", "generation", "example.com/rack"} {
		if g.IntN(12) == 0 {
			delete(n.Labels, key)
		}
	}
	cpu, memory, pods := 4+g.IntN(13), 8+g.IntN(25), 10+g.IntN(20)
	if g.tight {
		cpu, memory, pods = 2+g.IntN(3), 2+g.IntN(5), 2+g.IntN(6)
	}
	n.Status.Allocatable = v1.ResourceList{
		v1.ResourceCPU:              resource.MustParse(fmt.Sprint(cpu)),
		v1.ResourceMemory:           resource.MustParse(fmt.Sprint(memory, "Gi")),
		v1.ResourcePods:             resource.MustParse(fmt.Sprint(pods)),
		v1.ResourceEphemeralStorage: resource.MustParse(fmt.Sprint(4+g.IntN(20), "Gi")),
	}
	if g.IntN(3) == 0 {
		n.Status.Allocatable[card] = resource.MustParse(fmt.Sprint(g.IntN(4)))
	}
	if g.IntN(4) == 0 {
		n.Status.Allocatable["hugepages-2Mi"] = resource.MustParse("8Mi")
	}
	n.Status.Capacity = n.Status.Allocatable
	n.Spec.Unschedulable = g.IntN(20) == 0
	if n.Spec.Unschedulable && g.IntN(2) == 0 {
		n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule})
	}
	for g.IntN(7) == 0 {
		n.Spec.Taints = append(n.Spec.Taints, v1.Taint{
			Key: pick(g, []string{"dedicated", "spot", "broken"}), Value: pick(g, []string{"", "a", "b"}),
			Effect: pick(g, []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute}),
		})
	}
	for i, image := range images {
		if g.IntN(3) == 0 {
			n.Status.Images = append(n.Status.Images, v1.ContainerImage{Names: []string{image, image + "@sha256:0"}, SizeBytes: int64(300*i+50) << 20})
		}
	}
	if g.IntN(2) == 0 {
		n.Status.DeclaredFeatures = []string{"RestartAllContainersOnContainerExits"}
	}
	return n
}

var images = []string{"registry.example.com/web:v1", "registry.example.com/db:latest", "registry.example.com/tool:v2"}

func (g *generator) name(p *v1.Pod) {
	g.made++
	p.Name = fmt.Sprintf("pod-%d", g.made)
	p.UID = types.UID(p.Name)
}

func (g *generator) pod() *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pick(g, []string{"default", "default", "default", "other"}),
			Labels:    map[string]string{"app": pick(g, apps), "version": pick(g, []string{"1", "2"})},
		},
		Spec: v1.PodSpec{
			SchedulerName: v1.DefaultSchedulerName,
			RestartPolicy: v1.RestartPolicyAlways,
			Priority:      ptr.To(pick(g, []int32{0, 0, 10, 100, -5, 2_000_000_000})),
		},
	}
	g.name(p)
	if g.IntN(5) == 0 {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: p.Labels["app"], UID: types.UID(p.Labels["app"]), Controller: ptr.To(true)}}
	}
	if g.about(preempting, 6) {
		p.Spec.Priority = ptr.To(pick(g, []int32{0, 50, 500, 1000}))
	}
	if g.IntN(15) == 0 {
		p.Spec.PreemptionPolicy = ptr.To(v1.PreemptNever)
	}
	g.containers(p)
	g.tolerations(p)
	if g.about(placement, 6) {
		g.nodeAffinity(p)
	}
	if g.about(affinity, 8) {
		g.podAffinity(p)
	}
	if g.about(spreading, 8) {
		for range 1 + g.IntN(2) {
			g.spread(p)
		}
	}
	if g.about(volumes, 8) {
		g.volumes(p)
	}
	if g.about(devices, 10) {
		g.claims(p)
	}
	return p
}

var apps = []string{"web", "db", "cache"}

func (g *generator) containers(p *v1.Pod) {
	for i := range 1 + g.IntN(2) {
		c := v1.Container{Name: fmt.Sprint("c", i), Image: pick(g, images), Resources: g.requests()}
		if g.about(placement, 10) && g.IntN(2) == 0 {
			port := v1.ContainerPort{ContainerPort: 80, HostPort: int32(8080 + g.IntN(2)), Protocol: pick(g, []v1.Protocol{v1.ProtocolTCP, v1.ProtocolTCP, v1.ProtocolUDP})}
			port.HostIP = pick(g, []string{"", "", "10.0.0.1", "127.0.0.1", "0.0.0.0"})
			c.Ports = append(c.Ports, port)
		}
		if g.IntN(30) == 0 {
			c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyNever)
			c.RestartPolicyRules = []v1.ContainerRestartRule{{
				Action:    v1.ContainerRestartRuleActionRestartAllContainers,
				ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{1}},
			}}
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
	for i := range g.IntN(3) {
		c := v1.Container{Name: fmt.Sprint("i", i), Image: pick(g, images), Resources: g.requests()}
		if g.IntN(2) == 0 {
			c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	if g.IntN(15) == 0 {
		p.Spec.Overhead = v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m"), v1.ResourceMemory: resource.MustParse("100Mi")}
	}
	if g.IntN(12) == 0 {
		r := g.requests()
		p.Spec.Resources = &v1.ResourceRequirements{Requests: v1.ResourceList{}}
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			if q, ok := r.Requests[name]; ok {
				p.Spec.Resources.Requests[name] = q
			}
		}
	}
	if g.IntN(20) == 0 {
		p.Spec.HostNetwork = true
		p.Spec.HostUsers = ptr.To(g.IntN(2) == 0)
	}
}

func (g *generator) requests() v1.ResourceRequirements {
	r := v1.ResourceRequirements{Requests: v1.ResourceList{}}
	ask := func(n int, name v1.ResourceName, amounts ...string) {
		if g.about(resources, n) {
			r.Requests[name] = resource.MustParse(pick(g, amounts))
		}
	}
	if g.topic == preempting || g.tight {
		ask(2, v1.ResourceCPU, "500m", "1", "1500m")
	}
	ask(2, v1.ResourceCPU, "0", "1m", "100m", "500m", "1", "2", "3")
	ask(2, v1.ResourceMemory, "0", "16Mi", "256Mi", "1Gi", "2Gi", "5Gi")
	if g.IntN(3) == 0 {
		ask(6, v1.ResourceEphemeralStorage, "1Gi", "3Gi", "9Gi")
		ask(8, card, "1", "2")
		ask(12, "hugepages-2Mi", "4Mi", "8Mi")
	}
	return r
}

func (g *generator) tolerations(p *v1.Pod) {
	n := 8
	if g.topic == placement {
		n = 3
	}
	for g.IntN(n) == 0 {
		t := v1.Toleration{
			Key: pick(g, []string{"dedicated", "spot", "broken", v1.TaintNodeUnschedulable}), Operator: pick(g, []v1.TolerationOperator{v1.TolerationOpExists, v1.TolerationOpEqual, ""}),
			Effect: pick(g, []v1.TaintEffect{"", v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute, v1.TaintEffectPreferNoSchedule}),
		}
		if t.Operator != v1.TolerationOpExists {
			t.Value = pick(g, []string{"", "a", "b"})
		} else if g.IntN(6) == 0 {
			t.Key = ""
		}
		if t.Effect == v1.TaintEffectNoExecute {
			t.TolerationSeconds = ptr.To[int64](300)
		}
		p.Spec.Tolerations = append(p.Spec.Tolerations, t)
	}
}

func (g *generator) nodeAffinity(p *v1.Pod) {
	if g.IntN(3) == 0 {
		p.Spec.NodeSelector = map[string]string{pick(g, []string{"disk", v1.LabelTopologyZone}): pick(g, []string{"ssd", "z1", "z2"})}
	}
	a := &v1.NodeAffinity{}
	if g.IntN(2) == 0 {
		a.RequiredDuringSchedulingIgnoredDuringExecution = &v1.NodeSelector{}
		for range 1 + g.IntN(2) {
			a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms = append(a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, g.nodeTerm(true))
		}
	}
	for g.IntN(2) == 0 {
		a.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PreferredDuringSchedulingIgnoredDuringExecution,
			v1.PreferredSchedulingTerm{Weight: int32(1 + g.IntN(100)), Preference: g.nodeTerm(false)})
	}
	p.Spec.Affinity = &v1.Affinity{NodeAffinity: a}
}

func (g *generator) nodeTerm(required bool) v1.NodeSelectorTerm {
	var t v1.NodeSelectorTerm
	if required && g.IntN(5) == 0 {
		t.MatchFields = []v1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: pick(g, []v1.NodeSelectorOperator{v1.NodeSelectorOpIn, v1.NodeSelectorOpIn, v1.NodeSelectorOpNotIn}), Values: []string{fmt.Sprintf("node-%d", g.IntN(10))}}}
		if g.IntN(2) == 0 {
			return t
		}
	}
	if g.IntN(15) == 0 {
		return t // matches nothing
	}
	for range 1 + g.IntN(2) {
		r := v1.NodeSelectorRequirement{Key: pick(g, []string{"disk", v1.LabelTopologyZone, "generation", "nobody-has-this"}), Operator: pick(g, []v1.NodeSelectorOperator{v1.NodeSelectorOpIn, v1.NodeSelectorOpNotIn, v1.NodeSelectorOpExists, v1.NodeSelectorOpDoesNotExist, v1.NodeSelectorOpGt, v1.NodeSelectorOpLt})}
		switch r.Operator {
		case v1.NodeSelectorOpGt, v1.NodeSelectorOpLt:
			r.Values = []string{fmt.Sprint(g.IntN(5))}
		case v1.NodeSelectorOpIn, v1.NodeSelectorOpNotIn:
			r.Values = []string{pick(g, []string{"ssd", "z1", "z2", "1"}), pick(g, []string{"hdd", "z3", "2"})}
		}
		t.MatchExpressions = append(t.MatchExpressions, r)
	}
	return t
}

func (g *generator) topologyKey() string {
	return pick(g, []string{v1.LabelHostname, v1.LabelTopologyZone, v1.LabelTopologyZone, "example.com/rack", v1.LabelTopologyRegion})
}

func (g *generator) selector() *metav1.LabelSelector {
	switch g.IntN(12) {
	case 0:
		return nil
	case 1:
		return &metav1.LabelSelector{}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{pick(g, apps)}}}}
	case 3:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "version", Operator: metav1.LabelSelectorOpExists}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(g, apps)}}
}

func (g *generator) podAffinity(p *v1.Pod) {
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &v1.Affinity{}
	}
	terms := func(n int) (required []v1.PodAffinityTerm, preferred []v1.WeightedPodAffinityTerm) {
		for g.IntN(n) == 0 && len(required) < 3 {
			required = append(required, g.podTerm())
		}
		for g.IntN(3) == 0 {
			preferred = append(preferred, v1.WeightedPodAffinityTerm{Weight: int32(1 + g.IntN(100)), PodAffinityTerm: g.podTerm()})
		}
		return required, preferred
	}
	if g.IntN(2) == 0 {
		required, preferred := terms(2)
		p.Spec.Affinity.PodAffinity = &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required, PreferredDuringSchedulingIgnoredDuringExecution: preferred}
	}
	if g.IntN(2) == 0 {
		required, preferred := terms(2)
		p.Spec.Affinity.PodAntiAffinity = &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required, PreferredDuringSchedulingIgnoredDuringExecution: preferred}
	}
}

func (g *generator) podTerm() v1.PodAffinityTerm {
	t := v1.PodAffinityTerm{TopologyKey: g.topologyKey(), LabelSelector: g.selector()}
	switch g.IntN(6) {
	case 0:
		t.Namespaces = []string{pick(g, []string{"default", "other", "gone"})}
	case 1:
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": pick(g, []string{"a", "b"})}}
	case 2:
		t.NamespaceSelector = &metav1.LabelSelector{}
	}
	return t
}

func (g *generator) spread(p *v1.Pod) {
	c := v1.TopologySpreadConstraint{
		MaxSkew: int32(1 + g.IntN(2)), TopologyKey: g.topologyKey(), LabelSelector: g.selector(),
		WhenUnsatisfiable: pick(g, []v1.UnsatisfiableConstraintAction{v1.DoNotSchedule, v1.DoNotSchedule, v1.ScheduleAnyway}),
	}
	for _, other := range p.Spec.TopologySpreadConstraints {
		if other.TopologyKey == c.TopologyKey && other.WhenUnsatisfiable == c.WhenUnsatisfiable {
			return // the API refuses two of one kind
		}
	}
	if c.WhenUnsatisfiable == v1.DoNotSchedule && g.IntN(4) == 0 {
		c.MinDomains = ptr.To(int32(1 + g.IntN(4)))
	}
	if g.IntN(3) == 0 {
		c.NodeAffinityPolicy = ptr.To(pick(g, []v1.NodeInclusionPolicy{v1.NodeInclusionPolicyHonor, v1.NodeInclusionPolicyIgnore}))
	}
	if g.IntN(3) == 0 {
		c.NodeTaintsPolicy = ptr.To(pick(g, []v1.NodeInclusionPolicy{v1.NodeInclusionPolicyHonor, v1.NodeInclusionPolicyIgnore}))
	}
	if c.LabelSelector != nil && g.IntN(5) == 0 {
		c.MatchLabelKeys = []string{"version"}
	}
	p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
}

func (g *generator) budgets() {
	for i := range g.IntN(3) {
		b := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("budget-", i)},
			Spec:       policyv1.PodDisruptionBudgetSpec{Selector: g.selector(), MinAvailable: ptr.To(intstr.FromInt32(1))},
			Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: int32(g.IntN(3))},
		}
		if g.IntN(4) == 0 {
			b.Status.DisruptedPods = map[string]metav1.Time{fmt.Sprintf("pod-%d", 1+g.IntN(10)): metav1.NewTime(time.Unix(1_700_000_000, 0))}
		}
		g.object(b)
	}
}
