package scheduler

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	original "k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/scheduler"
	lemeconfig "github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// Cases of groups are one tree of groups each, in a cluster of its own. Among equals each scheduler
// chooses by chance, so pods are such that it does not matter to the others where one of them goes: those
// of a tree are alike in what they need, and what runs already needs a CPU each.

// groupGenerator draws a case of groups.
type groupGenerator struct {
	*rand.Rand
	c        *Case
	priority int32
	policy   *schedulingv1beta1.PreemptionPolicy
	cpu      string
}

// GenerateGroups draws the case of groups of a seed.
func GenerateGroups(seed uint64) *Case {
	g := &groupGenerator{Rand: rand.New(rand.NewPCG(seed, 11)), c: &Case{Seed: seed}, cpu: "1"}
	for i := range 1 + g.IntN(5) {
		name := fmt.Sprintf("node-%d", i)
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{v1.LabelHostname: name, "rack": fmt.Sprint("r", g.IntN(3))}}}
		if g.IntN(10) == 0 {
			delete(n.Labels, "rack")
		}
		n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse(fmt.Sprint(1 + g.IntN(4))), v1.ResourceMemory: resource.MustParse("64Gi"), v1.ResourcePods: resource.MustParse("20")}
		n.Status.Capacity = n.Status.Allocatable
		g.c.Nodes = append(g.c.Nodes, n)
	}
	g.priority = []int32{0, 0, 100}[g.IntN(3)]
	if g.IntN(8) == 0 {
		g.policy = ptr.To(schedulingv1beta1.PreemptNever)
	}
	if g.running(); g.priority == 0 && g.IntN(2) == 0 {
		g.cpu = "2" // nobody goes for them, so it does not matter which of those that run they meet
	}
	if g.IntN(2) == 0 {
		g.c.Root = fwk.PodGroupKey("default", "root")
		g.group("root", "", g.IntN(2) == 0)
	} else {
		g.c.Root = fwk.CompositePodGroupKey("default", "root")
		g.composite("root", "", 2)
	}
	return g.c
}

// running draws pods on nodes, some in groups that may have to go together.
func (g *groupGenerator) running() {
	together := false
	for _, n := range g.c.Nodes {
		for range g.IntN(int(n.Status.Allocatable.Cpu().Value()) + 1) {
			p := g.pod(fmt.Sprintf("running-%d", len(g.c.Pods)), "1", []int32{0, 10, 10, 1000}[g.IntN(4)])
			p.Spec.NodeName = n.Name
			p.Status.StartTime = ptr.To(metav1.NewTime(time.Unix(1_700_000_000+int64(len(g.c.Pods)), 0)))
			if g.priority > 0 && g.IntN(6) == 0 {
				p.Spec.SchedulingGroup, p.Spec.Priority = &v1.PodSchedulingGroup{PodGroupName: ptr.To("running")}, ptr.To[int32](10)
				together = true
			}
			g.c.Pods = append(g.c.Pods, p)
		}
	}
	if together {
		g.c.Objects = append(g.c.Objects, &schedulingv1beta1.PodGroup{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "running", UID: "running"},
			Spec: schedulingv1beta1.PodGroupSpec{Priority: ptr.To[int32](10), SchedulingPolicy: schedulingv1beta1.PodGroupSchedulingPolicy{Basic: &schedulingv1beta1.BasicSchedulingPolicy{}},
				DisruptionMode: &schedulingv1beta1.DisruptionMode{All: &schedulingv1beta1.AllDisruptionMode{}}},
		})
	}
}

func (g *groupGenerator) pod(name, cpu string, priority int32) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0))},
		Spec: v1.PodSpec{SchedulerName: v1.DefaultSchedulerName, Priority: &priority, Containers: []v1.Container{{
			Name: "c", Image: "i", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}},
		}}},
	}
	return p
}

// group draws a PodGroup and its pods. divided says that it may have to be in one rack.
func (g *groupGenerator) group(name, parent string, divided bool) {
	pods := g.IntN(5)
	if parent == "" {
		pods++
	}
	group := &schedulingv1beta1.PodGroup{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0))},
		Spec:       schedulingv1beta1.PodGroupSpec{Priority: &g.priority, PreemptionPolicy: g.policy},
	}
	if g.IntN(3) == 0 {
		group.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	} else {
		group.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: int32(1 + g.IntN(pods+1))}
	}
	if parent != "" {
		group.Spec.ParentCompositePodGroupName = &parent
	}
	if divided && g.IntN(2) == 0 {
		group.Spec.SchedulingConstraints = &schedulingv1beta1.PodGroupSchedulingConstraints{Topology: []schedulingv1beta1.TopologyConstraint{{Key: g.key()}}}
	}
	g.c.Objects = append(g.c.Objects, group)
	for i := range pods {
		p := g.pod(fmt.Sprintf("%s-%d", name, i), g.cpu, g.priority)
		p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: &name}
		if g.policy != nil {
			p.Spec.PreemptionPolicy = ptr.To(v1.PreemptNever)
		}
		switch g.IntN(80) {
		case 0:
			p.Spec.Priority = ptr.To[int32](7)
		case 1:
			p.Spec.NodeSelector = map[string]string{"no": "where"}
		}
		g.c.Pending = append(g.c.Pending, p)
	}
}

func (g *groupGenerator) key() string {
	return []string{"rack", "rack", "rack", "nothing"}[g.IntN(4)]
}

// composite draws a group of groups, and what is below it, down to so many levels more.
func (g *groupGenerator) composite(name, parent string, levels int) {
	c := &schedulingv1alpha3.CompositePodGroup{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(time.Unix(1_700_000_000, 0))},
		Spec:       schedulingv1alpha3.CompositePodGroupSpec{Priority: &g.priority, WorkloadRef: &schedulingv1alpha3.WorkloadReference{WorkloadName: "w", TemplateName: "t"}},
	}
	if g.policy != nil {
		c.Spec.PreemptionPolicy = ptr.To(schedulingv1alpha3.PreemptNever)
	}
	below := 1 + g.IntN(3)
	if g.IntN(3) == 0 {
		c.Spec.SchedulingPolicy.Basic = &schedulingv1alpha3.CompositeBasicSchedulingPolicy{}
	} else {
		c.Spec.SchedulingPolicy.Gang = &schedulingv1alpha3.CompositeGangSchedulingPolicy{MinGroupCount: int32(1 + g.IntN(below))}
	}
	if parent != "" {
		c.Spec.ParentCompositePodGroupName = &parent
	} else if g.IntN(3) == 0 {
		c.Spec.SchedulingConstraints = &schedulingv1alpha3.CompositePodGroupSchedulingConstraints{Topology: []schedulingv1alpha3.TopologyConstraint{{Key: g.key()}}}
	}
	g.c.Objects = append(g.c.Objects, c)
	for i := range below {
		child := fmt.Sprintf("%s-%c", name, 'a'+i)
		if levels > 1 && g.IntN(4) == 0 {
			g.composite(child, name, levels-1)
		} else {
			g.group(child, name, false)
		}
	}
}

// groupVerdict is what a scheduler says of a tree of groups.
type groupVerdict struct {
	tried    bool
	nodes    map[string]string           // by pod
	refusals map[string]string           // by pod
	groups   map[string]metav1.Condition // by PodGroup
	victims  []string
}

// judgeGroups asks the original scheduler: it attempts the tree once, with an API server that is not there.
func judgeGroups(ctx context.Context, c *Case, settle func()) (*groupVerdict, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer settle()
	defer cancel()
	w := newWorld(c.withAll())
	defer w.factory.Shutdown()
	defer cancel()
	sched, err := original.New(ctx, w.client, w.factory, nil, func(string) events.EventRecorderLogger { return events.NewFakeRecorder(1000) })
	if err != nil {
		return nil, err
	}
	if sched.APIDispatcher != nil {
		sched.APIDispatcher.Run(klog.FromContext(ctx))
		defer sched.APIDispatcher.Close()
	}
	w.factory.Start(ctx.Done())
	w.factory.WaitForCacheSync(ctx.Done())
	if err := sched.WaitForHandlersSync(ctx); err != nil {
		return nil, err
	}
	settle()
	v := &groupVerdict{nodes: map[string]string{}, refusals: map[string]string{}, groups: map[string]metav1.Condition{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		sched.ScheduleOne(ctx)
	}()
	settle()
	select {
	case <-done:
		v.tried = true
	default: // nothing may enter the queue
	}
	sched.SchedulingQueue.Close()
	<-done
	settle()
	return v, v.read(ctx, w)
}

// read finds out what a scheduler has written.
func (v *groupVerdict) read(ctx context.Context, w *world) error {
	for _, a := range w.client.Actions() {
		if bound, ok := a.(clienttesting.CreateAction); ok && a.GetSubresource() == "binding" {
			if b, ok := bound.GetObject().(*v1.Binding); ok {
				v.nodes[b.Name] = b.Target.Name
			}
		}
		if gone, ok := a.(clienttesting.DeleteAction); ok && a.GetResource().Resource == "pods" {
			v.victims = append(v.victims, gone.GetNamespace()+"/"+gone.GetName())
		}
	}
	pods, err := w.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.Conditions {
			if c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse {
				v.refusals[p.Name] = c.Message
			}
		}
	}
	groups, err := w.client.SchedulingV1beta1().PodGroups("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, g := range groups.Items {
		if c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled); c != nil {
			v.groups[g.Name] = *c
		}
	}
	return nil
}

// withAll is the case with its nodes and pods among the other objects.
func (c *Case) withAll() *Case {
	all := c.copy()
	for _, n := range all.Nodes {
		all.Objects = append(all.Objects, n)
	}
	for _, p := range slices.Concat(all.Pods, all.Pending) {
		all.Objects = append(all.Objects, p)
	}
	return all
}

// askLeme asks Leme's scheduler.
func askLeme(ctx context.Context, c *Case) (*groupVerdict, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := newWorld(c.withAll())
	defer w.factory.Shutdown()
	defer cancel()
	gates := framework.Gates{GenericWorkload: true, TopologyAwareWorkloadScheduling: true, PodGroupPreemptionPolicy: true, CompositePodGroup: true}
	d, err := scheduler.NewDecider(ctx, lemeconfig.Default(), gates, w.client, w.factory, events.NewFakeRecorder(1000))
	if err != nil {
		return nil, err
	}
	w.factory.Start(ctx.Done())
	w.factory.WaitForCacheSync(ctx.Done())
	for _, n := range c.Nodes {
		d.Cluster.SetNode(n)
	}
	for _, p := range c.Pods {
		d.Cluster.SetPod(p)
	}
	made, err := d.DecideGroup(ctx, "default", c.Root)
	if err != nil {
		return nil, err
	}
	return &groupVerdict{tried: made.Held == nil, nodes: made.Nodes, refusals: made.Refusals, groups: made.Groups, victims: made.Victims}, nil
}

// GroupStats count what cases of groups were about.
type GroupStats struct{ Trees, Composites, Held, Placed, Refused, Preempted int }

func (s *GroupStats) String() string {
	return fmt.Sprintf("%d trees, %d of them with groups of groups: %d kept out of the queue, %d with pods that are placed, %d with none (%d of them evict others)",
		s.Trees, s.Composites, s.Held, s.Placed, s.Refused, s.Preempted)
}

// CompareGroups has both schedulers decide about a case of groups.
func CompareGroups(ctx context.Context, c *Case, stats *GroupStats, settle func()) (*Difference, error) {
	c = c.copy() // without pods on nodes that have been left out
	c.Pods = slices.DeleteFunc(c.Pods, func(p *v1.Pod) bool {
		return !slices.ContainsFunc(c.Nodes, func(n *v1.Node) bool { return n.Name == p.Spec.NodeName })
	})
	want, err := judgeGroups(ctx, c, settle)
	if err != nil {
		return nil, fmt.Errorf("the original: %w", err)
	}
	got, err := askLeme(ctx, c)
	settle()
	if err != nil {
		return nil, fmt.Errorf("Leme's: %w", err)
	}
	stats.Trees++
	if c.Root.Type == fwk.CompositePodGroupKeyType {
		stats.Composites++
	}
	switch {
	case !want.tried:
		stats.Held++
	case len(want.nodes) > 0:
		stats.Placed++
	default:
		if stats.Refused++; len(want.victims) > 0 {
			stats.Preempted++
		}
	}
	if what := differInGroups(c, want, got); what != "" {
		return &Difference{c.Root.String(), what}, nil
	}
	return nil, nil
}

func differInGroups(c *Case, want, got *groupVerdict) string {
	if want.tried != got.tried {
		return fmt.Sprintf("may the pods enter the queue?\n  original: %t\n  Leme:     %t", want.tried, got.tried)
	}
	if !want.tried {
		return ""
	}
	if a, b := c.counts(want.nodes), c.counts(got.nodes); !maps.Equal(a, b) {
		return fmt.Sprintf("how many pods of each group are placed\n  original: %v %v\n  Leme:     %v %v", a, want.nodes, b, got.nodes)
	}
	inFull := !c.divided()
	if a, b := words(want.groups, inFull), words(got.groups, inFull); !reflect.DeepEqual(a, b) {
		return fmt.Sprintf("what is said of the groups\n  original: %q\n  Leme:     %q", a, b)
	}
	if a, b := sorted(want.refusals), sorted(got.refusals); !slices.Equal(a, b) && inFull {
		return fmt.Sprintf("what is said of the pods\n  original: %q\n  Leme:     %q", a, b)
	}
	if (len(want.victims) > 0) != (len(got.victims) > 0) {
		return fmt.Sprintf("who goes\n  original: %v\n  Leme:     %v", want.victims, got.victims)
	}
	return ""
}

// counts counts pods by group.
func (c *Case) counts(nodes map[string]string) map[string]int {
	out := map[string]int{}
	for _, p := range c.Pending {
		if nodes[p.Name] != "" {
			out[*p.Spec.SchedulingGroup.PodGroupName]++
		}
	}
	return out
}

// divided says that the tree is tried in racks. The original tries them in any order, and tells what was wrong with
// the first.
func (c *Case) divided() bool {
	for _, o := range c.Objects {
		switch g := o.(type) {
		case *schedulingv1beta1.PodGroup:
			if t := g.Spec.SchedulingConstraints; t != nil && t.Topology[0].Key == "rack" {
				return true
			}
		case *schedulingv1alpha3.CompositePodGroup:
			if t := g.Spec.SchedulingConstraints; t != nil && t.Topology[0].Key == "rack" {
				return true
			}
		}
	}
	return false
}

func words(groups map[string]metav1.Condition, inFull bool) map[string]string {
	out := map[string]string{}
	for name, c := range groups {
		if out[name] = fmt.Sprintf("%s %s", c.Status, c.Reason); inFull {
			out[name] += ": " + plain(c.Message)
		}
	}
	return out
}

func sorted(messages map[string]string) []string {
	var out []string
	for _, m := range messages {
		out = append(out, plain(m))
	}
	slices.Sort(out)
	return out
}

var (
	freed   = regexp.MustCompile(`deallocation and deletion of ResourceClaims completed, `)
	victims = regexp.MustCompile(`preempting \d+ victims`)
)

// plain takes out of a message what is known to be said otherwise. The original says once for every group that shares
// a status what it has found out about preemption, and that claims have been freed where there are none. How many
// pods go depends on which of several nodes, that are as good, pods of the tree would go to.
func plain(message string) string {
	message = victims.ReplaceAllString(freed.ReplaceAllString(message, ""), "preempting victims")
	return strings.Join(slices.Compact(strings.Split(message, ", pod group preemption: ")), ", pod group preemption: ")
}
