package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/scheduler"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// gangCluster is a cluster whose pods can be of groups.
type gangCluster struct {
	kubernetes.Interface
	cluster *testcluster.Cluster
	t       *testing.T
}

const gangGates = "--feature-gates=GenericWorkload=true,TopologyAwareWorkloadScheduling=true"

func startGangCluster(t *testing.T, more ...testcluster.Option) *gangCluster {
	t.Helper()
	options := append([]testcluster.Option{testcluster.WithAPIServerFlags(gangGates,
		"--runtime-config=scheduling.k8s.io/v1beta1=true", "--disable-admission-plugins=TaintNodesByCondition")}, more...)
	c := testcluster.Start(t, options...)
	g := &gangCluster{c.Client(t), c, t}
	for name, value := range map[string]int32{"high": 1000, "low": 1} {
		if _, err := g.SchedulingV1().PriorityClasses().Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func withGangScheduler(flags ...string) testcluster.Option {
	return testcluster.WithScheduler(append([]string{gangGates}, flags...)...)
}

// gang creates a group that wants so many pods at once; a basic one for none.
func (c *gangCluster) gang(name string, minCount int32, change ...func(*schedulingv1beta1.PodGroup)) {
	c.t.Helper()
	g := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if minCount > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: minCount}
	} else {
		g.Spec.SchedulingPolicy.Basic = &schedulingv1beta1.BasicSchedulingPolicy{}
	}
	for _, f := range change {
		f(g)
	}
	if _, err := c.SchedulingV1beta1().PodGroups("default").Create(c.t.Context(), g, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *gangCluster) pod(name, group, cpu string, change ...func(*v1.Pod)) {
	c.t.Helper()
	p := newPod(name, "", cpu, nil)
	p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](0)
	if group != "" {
		p.Spec.SchedulingGroup = &v1.PodSchedulingGroup{PodGroupName: &group}
	}
	for _, f := range change {
		f(p)
	}
	if _, err := c.CoreV1().Pods("default").Create(c.t.Context(), p, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *gangCluster) pods(group, cpu string, names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.pod(name, group, cpu)
	}
}

func (c *gangCluster) delete(name string) {
	c.t.Helper()
	if err := c.CoreV1().Pods("default").Delete(c.t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *gangCluster) get(name string) *v1.Pod {
	p, err := c.CoreV1().Pods("default").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return &v1.Pod{}
	}
	return p
}

// placed waits until all of some pods have nodes, and returns those.
func (c *gangCluster) placed(names ...string) []string {
	c.t.Helper()
	var nodes []string
	componenttest.EventuallyTold(c.t, fmt.Sprintf("%v to be placed", names), func() (bool, string) {
		nodes = nil
		for _, name := range names {
			p := c.get(name)
			if p.Spec.NodeName == "" {
				return false, fmt.Sprintf("%s: %v", name, p.Status.Conditions)
			}
			nodes = append(nodes, p.Spec.NodeName)
		}
		return true, ""
	})
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// pending waits until pods have been told that they get no node, and returns what the last was told.
func (c *gangCluster) pending(names ...string) (told string) {
	c.t.Helper()
	componenttest.EventuallyTold(c.t, fmt.Sprintf("%v to be told that they stay pending", names), func() (bool, string) {
		for _, name := range names {
			p := c.get(name)
			i := slices.IndexFunc(p.Status.Conditions, func(cond v1.PodCondition) bool {
				return cond.Type == v1.PodScheduled && cond.Status == v1.ConditionFalse && cond.Reason == v1.PodReasonUnschedulable
			})
			if i < 0 || p.Spec.NodeName != "" {
				return false, fmt.Sprintf("%s on %q: %v", name, p.Spec.NodeName, p.Status.Conditions)
			}
			told = p.Status.Conditions[i].Message
		}
		return true, ""
	})
	return told
}

// condition waits until the group says what came of it.
func (c *gangCluster) condition(group string, status metav1.ConditionStatus, reason, message string) {
	c.t.Helper()
	componenttest.EventuallyTold(c.t, fmt.Sprintf("group %s to say %s, %s", group, status, reason), func() (bool, string) {
		g, err := c.SchedulingV1beta1().PodGroups("default").Get(context.Background(), group, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		cond := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled)
		return cond != nil && cond.Status == status && cond.Reason == reason && strings.Contains(cond.Message, message) && cond.ObservedGeneration == g.Generation, fmt.Sprint(g.Status)
	})
}

// A gang waits for its PodGroup, for its pods and for room, in this order, and holds none
// of the room meanwhile.
func TestGang(t *testing.T) {
	c := startGangCluster(t, withGangScheduler())
	makeReady(t, c, "n")
	c.pods("", "500m", "blocker")
	c.placed("blocker")

	c.pods("g", "600m", "a", "b")
	c.gang("g", 3)
	c.pods("", "100m", "alone") // decided after them
	c.placed("alone")
	for _, name := range []string{"a", "b"} {
		if p := c.get(name); p.Spec.NodeName != "" || len(p.Status.Conditions) > 0 {
			t.Errorf("pod %s was tried before its gang was whole: %v", name, p.Status)
		}
	}
	c.pods("g", "600m", "c")
	c.pending("a", "b", "c")
	c.condition("g", metav1.ConditionFalse, "Unschedulable", "minCount (3) cannot be satisfied")

	c.pods("", "1300m", "fits") // all that is free: the gang holds nothing
	c.placed("fits")
	c.delete("fits")
	c.delete("blocker")
	c.placed("a", "b", "c")
	c.condition("g", metav1.ConditionTrue, "Scheduled", "")

	// One that comes later is scheduled beside them, or waits by itself.
	c.pods("g", "50m", "d")
	c.placed("d")
	c.pods("g", "1900m", "e")
	c.pending("e")
	c.condition("g", metav1.ConditionTrue, "Scheduled", "")
}

// Of two gangs for which there is not room enough, one gets all it needs and the other nothing.
func TestGangsCompete(t *testing.T) {
	c := startGangCluster(t, withGangScheduler())
	makeReady(t, c, "n1")
	makeReady(t, c, "n2")
	c.gang("x", 3)
	c.gang("y", 3)
	for i := range 3 {
		for _, group := range []string{"x", "y"} {
			c.pods(group, "900m", fmt.Sprint(group, i))
		}
	}
	c.placed("x0", "x1", "x2")
	c.pending("y0", "y1", "y2")
	for _, name := range []string{"x0", "x1", "x2"} {
		c.delete(name)
	}
	c.placed("y0", "y1", "y2")
}

// A pod of a waiting gang that is deleted is not waited for, and one that is held back
// holds all back.
func TestGangLosesPods(t *testing.T) {
	c := startGangCluster(t, withGangScheduler())
	makeReady(t, c, "n")
	c.gang("g", 2)
	c.pods("g", "900m", "a", "b")
	c.placed("a", "b")
	c.pods("g", "900m", "c")
	c.pending("c")
	c.delete("a")
	c.placed("c")

	c.delete("b")
	c.delete("c")
	c.gang("h", 2)
	gated := func(p *v1.Pod) { p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "example.com/later"}} }
	c.pod("held", "h", "100m", gated)
	c.pods("h", "100m", "d", "e")
	c.pods("", "100m", "alone")
	c.placed("alone")
	for _, name := range []string{"d", "e"} {
		if node := c.get(name).Spec.NodeName; node != "" {
			t.Errorf("pod %s is on %s while a mate is held back", name, node)
		}
	}
	c.delete("held") // with two left the gang is still whole
	c.placed("d", "e")
}

// A gang needs fewer pods than it did.
func TestGangShrinks(t *testing.T) {
	c := startGangCluster(t, withGangScheduler())
	makeReady(t, c, "n")
	c.gang("g", 3)
	c.pods("g", "900m", "a", "b", "c")
	c.pending("a", "b", "c")
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		g, err := c.SchedulingV1beta1().PodGroups("default").Get(t.Context(), "g", metav1.GetOptions{})
		if err != nil {
			return err
		}
		g.Spec.SchedulingPolicy.Gang.MinCount = 2
		_, err = c.SchedulingV1beta1().PodGroups("default").Update(t.Context(), g, metav1.UpdateOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c.condition("g", metav1.ConditionTrue, "Scheduled", "")
	componenttest.EventuallyTold(t, "two of three pods to be bound", func() (bool, string) {
		bound := 0
		for _, name := range []string{"a", "b", "c"} {
			if c.get(name).Spec.NodeName != "" {
				bound++
			}
		}
		return bound == 2, fmt.Sprint(bound)
	})
}

// A group without a policy of all or none gets what there is.
func TestBasicGroup(t *testing.T) {
	c := startGangCluster(t, withGangScheduler())
	makeReady(t, c, "n")
	c.pods("g", "900m", "a", "b", "c")
	c.gang("g", 0)
	c.condition("g", metav1.ConditionTrue, "Scheduled", "")
	componenttest.EventuallyTold(t, "two of three pods to be placed and one to be told", func() (bool, string) {
		bound, told := 0, 0
		for _, name := range []string{"a", "b", "c"} {
			p := c.get(name)
			if p.Spec.NodeName != "" {
				bound++
			} else if len(p.Status.Conditions) > 0 {
				told++
			}
		}
		return bound == 2 && told == 1, fmt.Sprint(bound, told)
	})
}

// A scheduler that is stopped while a gang waits, or in the middle of it, leaves the next one all it needs.
func TestGangOutlivesScheduler(t *testing.T) {
	c := startGangCluster(t)
	kubeconfig := writeKubeconfig(t, c.cluster)
	makeReady(t, c, "n")
	c.gang("g", 3)
	c.pods("g", "900m", "a", "b", "c")
	// As if one had been bound when the scheduler was killed.
	binding := &v1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Target: v1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := c.CoreV1().Pods("default").Bind(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	stop := startScheduler(t, kubeconfig, gangGates)
	c.pending("b", "c")
	stop()
	makeReady(t, c, "n2")
	startScheduler(t, kubeconfig, gangGates)
	c.placed("a", "b", "c")
}

// The pods of a group that is bound to a topology are in one domain of it.
func TestGangInOneDomain(t *testing.T) {
	c := startGangCluster(t, withGangScheduler())
	rack := func(node, rack string) {
		makeReady(t, c, node)
		if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
			n, err := c.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
			if err != nil {
				return err
			}
			n.Labels["rack"] = rack
			_, err = c.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	rack("a1", "a")
	rack("b1", "b")
	inRack := func(g *schedulingv1beta1.PodGroup) {
		g.Spec.SchedulingConstraints = &schedulingv1beta1.PodGroupSchedulingConstraints{Topology: []schedulingv1beta1.TopologyConstraint{{Key: "rack"}}}
	}
	c.gang("g", 3, inRack)
	c.pods("g", "900m", "p", "q", "r")
	c.pending("p", "q", "r")
	c.condition("g", metav1.ConditionFalse, "Unschedulable", "0/2 placements are available, first placement status: minCount (3) cannot be satisfied")
	rack("b2", "b")
	if nodes := c.placed("p", "q", "r"); !slices.Equal(nodes, []string{"b1", "b2"}) {
		t.Errorf("the pods are on %v, want those of rack b", nodes)
	}
	rack("c1", "c")
	c.pods("g", "1900m", "s") // there is room elsewhere
	c.pending("s")
}

// A gang has pods of lower priority go, and none of them for less than it needs.
func TestGangPreempts(t *testing.T) {
	c := startGangCluster(t, withGangScheduler())
	makeReady(t, c, "n1")
	makeReady(t, c, "n2")
	class := func(name string) func(*v1.Pod) { return func(p *v1.Pod) { p.Spec.PriorityClassName = name } }
	for i := range 4 {
		c.pod(fmt.Sprint("low", i), "", "900m", class("low"))
	}
	c.placed("low0", "low1", "low2", "low3")
	high := func(g *schedulingv1beta1.PodGroup) { g.Spec.PriorityClassName = "high" }

	c.gang("toomany", 5, high)
	for i := range 5 {
		c.pod(fmt.Sprint("m", i), "toomany", "900m", class("high"))
	}
	c.pending("m0", "m1", "m2", "m3", "m4")
	for i := range 4 {
		if c.get(fmt.Sprint("low", i)).DeletionTimestamp != nil {
			t.Error("a pod goes for a gang that does not fit all the same")
		}
	}

	c.gang("g", 3, high)
	for i := range 3 {
		c.pod(fmt.Sprint("h", i), "g", "900m", class("high"))
	}
	c.placed("h0", "h1", "h2")
	left := 0
	for i := range 4 {
		if c.get(fmt.Sprint("low", i)).Name != "" {
			left++
		}
	}
	if left != 1 {
		t.Errorf("%d of 4 pods are left, want 1", left)
	}
	componenttest.EventuallyTold(t, "the events", func() (bool, string) {
		list, err := c.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Preempted"})
		if err != nil {
			return false, err.Error()
		}
		for _, e := range list.Items {
			if !strings.HasPrefix(e.Message, "Preempted by podgroup ") {
				return false, e.Message
			}
		}
		return len(list.Items) == 3, fmt.Sprint(list.Items)
	})
}

// What is decided about gangs is recorded, and decided again the same way.
func TestGangReplays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	c := startGangCluster(t)
	kubeconfig := writeKubeconfig(t, c.cluster)
	makeReady(t, c, "n")
	stop := startScheduler(t, kubeconfig, gangGates, "--record-to="+file)
	c.gang("g", 3)
	c.pods("g", "900m", "a", "b", "c")
	c.pending("a", "b", "c")
	makeReady(t, c, "n2")
	c.placed("a", "b", "c")
	c.condition("g", metav1.ConditionTrue, "Scheduled", "")
	componenttest.EventuallyTold(t, "the recording to be written", func() (bool, string) {
		return replayed(t, file) >= 2, ""
	})
	stop()
}

// replayed replays a recording that may go on, and returns how many decisions about groups
// it has, all of which must be made again the same way.
func replayed(t *testing.T, file string) int {
	t.Helper()
	log, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	groups := 0
	err = scheduler.Replay(t.Context(), log, scheduler.ReplayConfig{Plugins: plugins.Registry()}, func(_ record.Header, r record.Replayed) error {
		if r.Recorded.Group != "" {
			groups++
		}
		if !r.Same {
			t.Errorf("recorded is %v, and now %v", r.Recorded, r.Now)
		}
		return nil
	})
	if err != nil && !errors.Is(err, record.ErrCut) && !errors.Is(err, io.ErrUnexpectedEOF) { // nothing is written out yet
		t.Fatal(err)
	}
	return groups
}
