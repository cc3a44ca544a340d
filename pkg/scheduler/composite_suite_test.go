package scheduler_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	schedulingv1alpha3 "k8s.io/api/scheduling/v1alpha3"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

const compositeGates = gangGates + ",CompositePodGroup=true"

// startCompositeCluster starts a cluster with groups of groups, and a scheduler.
func startCompositeCluster(t *testing.T, flags ...string) *gangCluster {
	return startGangCluster(t, testcluster.WithAPIServerFlags(compositeGates, "--runtime-config=scheduling.k8s.io/v1beta1=true,scheduling.k8s.io/v1alpha3=true"),
		testcluster.WithScheduler(append([]string{compositeGates}, flags...)...))
}

// composite creates a group of groups that wants so many groups at once; a basic one for none.
func (c *gangCluster) composite(name, parent string, minGroups int32, change ...func(*schedulingv1alpha3.CompositePodGroup)) {
	c.t.Helper()
	g := &schedulingv1alpha3.CompositePodGroup{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: schedulingv1alpha3.CompositePodGroupSpec{
		WorkloadRef: &schedulingv1alpha3.WorkloadReference{WorkloadName: "w", TemplateName: "t"},
	}}
	if parent != "" {
		g.Spec.ParentCompositePodGroupName = &parent
	}
	if minGroups > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1alpha3.CompositeGangSchedulingPolicy{MinGroupCount: minGroups}
	} else {
		g.Spec.SchedulingPolicy.Basic = &schedulingv1alpha3.CompositeBasicSchedulingPolicy{}
	}
	for _, f := range change {
		f(g)
	}
	if _, err := c.SchedulingV1alpha3().CompositePodGroups("default").Create(c.t.Context(), g, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func under(parent string) func(*schedulingv1beta1.PodGroup) {
	return func(g *schedulingv1beta1.PodGroup) {
		g.Spec.ParentCompositePodGroupName = &parent
		g.Spec.WorkloadRef = &schedulingv1beta1.WorkloadReference{WorkloadName: "w", TemplateName: "t"}
	}
}

// untried makes sure that pods have not been tried: others, that come after them, have been.
func (c *gangCluster) untried(names ...string) {
	c.t.Helper()
	c.pods("", "1m", "after-"+names[0])
	c.placed("after-" + names[0])
	for _, name := range names {
		if p := c.get(name); p.Spec.NodeName != "" || len(p.Status.Conditions) > 0 {
			c.t.Errorf("pod %s was tried before its tree was whole: %v", name, p.Status)
		}
	}
}

// A tree of groups waits for its root and for enough groups, and goes where enough fit; others
// that come later go beside it.
func TestCompositePodGroup(t *testing.T) {
	c := startCompositeCluster(t, "--record-to="+filepath.Join(t.TempDir(), "log"))
	makeReady(t, c, "n") // 2 CPUs
	c.gang("a", 2, under("sub"))
	c.gang("b", 1, under("sub"))
	c.pods("a", "200m", "a0", "a1")
	c.pods("b", "200m", "b0")
	c.composite("sub", "root", 2)
	c.untried("a0", "a1", "b0")
	c.composite("root", "", 2)
	c.untried("a1", "a0", "b0") // the root needs another group
	c.gang("z", 0, under("root"))
	c.pods("z", "3", "z0")
	c.pending("a0", "a1", "b0", "z0")
	const nowhere = "pod group is unschedulable, 0/1 placements are available, first placement status: "
	c.condition("a", metav1.ConditionFalse, "Unschedulable", nowhere+"minCount (2) cannot be satisfied: 1 scheduled, 0 remaining")
	c.condition("z", metav1.ConditionFalse, "Unschedulable", nowhere+"minCount (1) cannot be satisfied: 0 scheduled, 0 remaining")
	c.pods("", "1300m", "fits") // the tree holds nothing
	c.placed("fits")
	c.delete("fits")

	c.gang("e", 1, under("root"))
	c.pods("e", "100m", "e0")
	c.placed("a0", "a1", "b0", "e0")
	c.condition("e", metav1.ConditionTrue, "Scheduled", "")
	c.pending("z0")
	c.gang("f", 1, under("sub"))
	c.pods("f", "100m", "f0")
	c.placed("f0")
	above, err := c.SchedulingV1alpha3().CompositePodGroups("default").Get(t.Context(), "root", metav1.GetOptions{})
	if err != nil || len(above.Status.Conditions) > 0 {
		t.Errorf("the root says %v (%v); the original's says nothing", above.Status, err)
	}
}

// A tree of groups has pods of lower priority go, the whole tree of them if that is how they go.
func TestCompositePodGroupPreempts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	c := startCompositeCluster(t, "--record-to="+file)
	makeReady(t, c, "n1")
	makeReady(t, c, "n2")
	class := func(name string) func(*v1.Pod) { return func(p *v1.Pod) { p.Spec.PriorityClassName = name } }
	groupClass := func(name string) func(*schedulingv1beta1.PodGroup) {
		return func(g *schedulingv1beta1.PodGroup) { g.Spec.PriorityClassName = name }
	}
	c.composite("victim", "", 2, func(g *schedulingv1alpha3.CompositePodGroup) {
		g.Spec.PriorityClassName = "low"
		g.Spec.DisruptionMode = &schedulingv1alpha3.CompositeDisruptionMode{All: &schedulingv1alpha3.AllCompositeDisruptionMode{}}
	})
	for _, group := range []string{"v", "w"} {
		c.gang(group, 2, under("victim"), groupClass("low"))
		c.pod(group+"0", group, "900m", class("low"))
		c.pod(group+"1", group, "900m", class("low"))
	}
	c.placed("v0", "v1", "w0", "w1")
	c.composite("root", "", 2, func(g *schedulingv1alpha3.CompositePodGroup) { g.Spec.PriorityClassName = "high" })
	for _, group := range []string{"g", "h"} {
		c.gang(group, 1, under("root"), groupClass("high"))
		c.pod(group+"0", group, "900m", class("high"))
	}
	c.placed("g0", "h0")
	componenttest.EventuallyTold(t, "the events", func() (bool, string) {
		list, err := c.CoreV1().Events("default").List(context.Background(), metav1.ListOptions{FieldSelector: "reason=Preempted"})
		if err != nil {
			return false, err.Error()
		}
		gone := []string{}
		for _, e := range list.Items {
			if !strings.HasPrefix(e.Message, "Preempted by compositepodgroup ") || e.Related == nil || e.Related.Kind != "CompositePodGroup" {
				return false, fmt.Sprint(e)
			}
			gone = append(gone, e.InvolvedObject.Name)
		}
		slices.Sort(gone)
		return slices.Equal(gone, []string{"v0", "v1", "w0", "w1"}), fmt.Sprint(gone)
	})
	componenttest.EventuallyTold(t, "the recording to be written", func() (bool, string) { return replayed(t, file) >= 3, "" })
}
