package queue

import (
	"context"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
)

var (
	nodeAdded   = fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.Add}
	podDeleted  = fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}
	nodeLabeled = fwk.ClusterEvent{Resource: fwk.Node, ActionType: fwk.UpdateNodeLabel}
)

type fixture struct {
	*Queue
	t     *testing.T
	clock *clocktesting.FakeClock
}

// newQueue has two plugins: Fit is interested in new nodes and in pods that go, Gate
// keeps pods with scheduling gates out.
func newQueue(t *testing.T) *fixture {
	clock := clocktesting.NewFakeClock(time.Unix(1000, 0))
	f := &fixture{t: t, clock: clock}
	f.Queue = New(Config{
		Clock: clock,
		Less: func(a, b fwk.QueuedEntityInfo) bool {
			if a.GetPriority() != b.GetPriority() {
				return a.GetPriority() > b.GetPriority()
			}
			return a.GetTimestamp().Before(b.GetTimestamp())
		},
		PreEnqueue: func(_ context.Context, p *v1.Pod) *fwk.Status {
			if len(p.Spec.SchedulingGates) > 0 {
				return fwk.NewStatus(fwk.UnschedulableAndUnresolvable).WithPlugin("Gate")
			}
			return nil
		},
		Hints: map[string][]Hint{"default": {
			{Plugin: "Fit", Event: nodeAdded},
			{Plugin: "Fit", Event: podDeleted, Fn: func(_ klog.Logger, _ *v1.Pod, old, _ any) (fwk.QueueingHint, error) {
				if old.(*v1.Pod).Name == "irrelevant" {
					return fwk.QueueSkip, nil
				}
				return fwk.Queue, nil
			}},
			{Plugin: "Gate", Event: fwk.ClusterEvent{Resource: fwk.TargetPod, ActionType: fwk.UpdatePodSchedulingGatesEliminated}},
		}},
	})
	return f
}

func pod(name string, priority int32) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec:       v1.PodSpec{SchedulerName: "default", Priority: ptr.To(priority)},
	}
}

func (f *fixture) add(p *v1.Pod) {
	f.Add(context.Background(), p)
	f.clock.Step(time.Millisecond)
}

func (f *fixture) pop(want string) *Pod {
	f.t.Helper()
	p := f.Pop()
	if p.Pod.Name != want {
		f.t.Fatalf("popped %s, want %s", p.Pod.Name, want)
	}
	return p
}

func (f *fixture) reject(p *Pod, plugin string) {
	p.UnschedulablePlugins = sets.New(plugin)
	p.UnschedulableCount++
	f.Return(context.Background(), p)
}

func (f *fixture) counts(active, backingOff, unschedulable, gated int) {
	f.t.Helper()
	a, b, u, g := f.Counts()
	if a != active || b != backingOff || u != unschedulable || g != gated {
		f.t.Fatalf("active %d, backing off %d, unschedulable %d, gated %d; want %d, %d, %d, %d", a, b, u, g, active, backingOff, unschedulable, gated)
	}
}

func TestOrder(t *testing.T) {
	f := newQueue(t)
	f.add(pod("a", 0))
	f.add(pod("b", 0))
	f.add(pod("urgent", 10))
	for _, want := range []string{"urgent", "a", "b"} {
		f.Done(f.pop(want).Pod.UID)
	}
	if f.events.end() != 0 || len(f.inFlight) != 0 {
		t.Error("pods in flight are left")
	}
}

func TestRejectedPodWaitsForAnEventThatMatters(t *testing.T) {
	f := newQueue(t)
	ctx := context.Background()
	f.add(pod("a", 0))
	f.reject(f.pop("a"), "Fit")
	f.counts(0, 0, 1, 0)
	f.Event(ctx, nodeLabeled, &v1.Node{}, &v1.Node{})
	f.Event(ctx, podDeleted, pod("irrelevant", 0), nil)
	f.counts(0, 0, 1, 0)
	f.Event(ctx, podDeleted, pod("other", 0), nil)
	f.counts(0, 1, 0, 0) // its back-off has not ended
	f.clock.Step(time.Second)
	f.flushBackoff()
	f.counts(1, 0, 0, 0)
	f.reject(f.pop("a"), "Fit")
	f.clock.Step(2 * time.Second) // twice as long the second time
	f.Event(ctx, nodeAdded, nil, &v1.Node{})
	f.counts(1, 0, 0, 0)
}

// What happens while a pod is looked at counts for it as well.
func TestEventInFlight(t *testing.T) {
	f := newQueue(t)
	ctx := context.Background()
	f.add(pod("a", 0))
	f.add(pod("b", 0))
	a := f.pop("a")
	f.Event(ctx, nodeAdded, nil, &v1.Node{})
	b := f.pop("b")
	f.reject(a, "Fit")
	f.reject(b, "Fit")
	f.counts(0, 1, 1, 0) // a missed the node, b was popped after it
	if f.events.first != f.events.end() {
		t.Error("the log of events is kept with nothing in flight")
	}
}

func TestBackoffIsCutShortWhenIdle(t *testing.T) {
	f := newQueue(t)
	ctx := context.Background()
	f.add(pod("a", 0))
	f.reject(f.pop("a"), "Fit")
	f.Event(ctx, nodeAdded, nil, &v1.Node{})
	f.counts(0, 1, 0, 0)
	f.pop("a") // at once: nothing else is to do

	f = newQueue(t)
	f.add(pod("a", 0))
	a := f.pop("a")
	a.ConsecutiveErrors++
	f.Return(ctx, a)
	f.counts(0, 1, 0, 0)
	if p := f.popBackoff(); p != nil {
		t.Error("a pod that met an error is tried again before its back-off ends")
	}
}

func TestGates(t *testing.T) {
	f := newQueue(t)
	gated := pod("a", 0)
	gated.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "g"}}
	f.add(gated)
	f.counts(0, 0, 0, 1)
	f.Event(context.Background(), nodeAdded, nil, &v1.Node{})
	f.counts(0, 0, 0, 1)
	f.Update(context.Background(), gated, pod("a", 0))
	f.counts(1, 0, 0, 0)
}

func TestPendingPluginIsServedAtOnce(t *testing.T) {
	f := newQueue(t)
	f.add(pod("a", 0))
	a := f.pop("a")
	a.UnschedulableCount++
	a.PendingPlugins = sets.New("Fit")
	f.Return(context.Background(), a)
	f.Event(context.Background(), nodeAdded, nil, &v1.Node{})
	f.counts(1, 0, 0, 0)
}

func TestForgottenPodsAreTriedAgain(t *testing.T) {
	f := newQueue(t)
	f.add(pod("a", 0))
	f.reject(f.pop("a"), "Fit")
	f.clock.Step(4 * time.Minute)
	f.flushUnschedulable(context.Background())
	f.counts(0, 0, 1, 0)
	f.clock.Step(2 * time.Minute)
	f.flushUnschedulable(context.Background())
	f.counts(1, 0, 0, 0)
}

func TestDelete(t *testing.T) {
	f := newQueue(t)
	f.add(pod("a", 0))
	f.Delete(pod("a", 0))
	f.counts(0, 0, 0, 0)

	f.add(pod("b", 0))
	f.add(pod("b", 0)) // shown twice
	f.counts(1, 0, 0, 0)
}

func TestNominator(t *testing.T) {
	f := newQueue(t)
	f.add(pod("a", 0))
	info := f.find("a").PodInfo
	f.AddNominatedPod(klog.Background(), info, &fwk.NominatingInfo{NominatingMode: fwk.ModeOverride, NominatedNodeName: "n1"})
	if got := f.NominatedPodsForNode("n1"); len(got) != 1 {
		t.Fatalf("promised: %v", got)
	}
	f.Update(context.Background(), pod("a", 0), pod("a", 0)) // its status does not say so yet
	if got := f.NominatedPodsForNode("n1"); len(got) != 1 {
		t.Errorf("the promise did not outlive an update: %v", got)
	}
	f.Delete(pod("a", 0))
	if got := f.NominatedPodsForNode("n1"); len(got) != 0 {
		t.Errorf("still promised: %v", got)
	}
}
