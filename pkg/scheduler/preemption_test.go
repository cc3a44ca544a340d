package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// world is a scheduler's profile over a cluster that does not change.
type world struct {
	fw       *framework.Framework
	queue    *queue.Queue
	snapshot *cache.Snapshot
	client   *fake.Clientset
	events   *events.FakeRecorder
}

// newWorld makes one. other are objects that informers know besides nodes and pods.
func newWorld(t *testing.T, nodes []*v1.Node, pods []*v1.Pod, other ...runtime.Object) *world {
	t.Helper()
	var objects []runtime.Object
	for _, p := range pods {
		objects = append(objects, p)
	}
	w := &world{client: fake.NewClientset(append(objects, other...)...), events: events.NewFakeRecorder(100)}
	countVersions(w.client)
	placed := slices.DeleteFunc(slices.Clone(pods), func(p *v1.Pod) bool { return p.Spec.NodeName == "" })
	w.snapshot = cache.NewSnapshotOf(nodes, placed)
	factory := informers.NewSharedInformerFactory(w.client, 0)
	var err error
	w.fw, err = framework.New(t.Context(), config.Specs(config.Default(), framework.Gates{})[0], plugins.Registry(), framework.Deps{
		Client: w.client, Recorder: w.events, Informers: factory,
		Snapshot: w.snapshot, Nominator: func() *queue.Queue { return w.queue }, Waiting: framework.NewWaitingPods(), Parallelism: 4,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.queue = queue.New(queue.Config{Less: w.fw.Less})
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	return w
}

// countVersions has versions of claims counted, which a fake does not do: what is written must be
// newer than what was there.
func countVersions(client *fake.Clientset) {
	for _, verb := range []string{"create", "update"} {
		client.PrependReactor(verb, "resourceclaims", func(a clienttesting.Action) (bool, runtime.Object, error) {
			c := a.(clienttesting.UpdateAction).GetObject().(*resourceapi.ResourceClaim)
			n, _ := strconv.Atoi(c.ResourceVersion) // none is 0
			c.ResourceVersion = strconv.Itoa(n + 1)
			return false, nil, nil
		})
	}
}

// preempt runs a cycle for pod and what follows if it fits nowhere. It returns the node
// that is promised to the pod and what its status will say.
func (w *world) preempt(t *testing.T, pod *v1.Pod) (node, message string) {
	t.Helper()
	ctx := context.Background()
	state := framework.NewCycleState(false)
	p, err := (&cycle{fw: w.fw, snapshot: w.snapshot}).run(ctx, state, pod, 1)
	var fit *framework.FitError
	if !errors.As(err, &fit) {
		t.Fatalf("the pod fits on %q (%v)", p.node, err)
	}
	result, s := w.fw.RunPostFilter(ctx, state, pod, fit.Diagnosis)
	if result != nil {
		node = result.NominatedNodeName
	}
	return node, s.Message()
}

// deleted waits until n pods have been deleted and names them.
func (w *world) deleted(t *testing.T, n int) []string {
	t.Helper()
	var names []string
	componenttest.EventuallyTold(t, fmt.Sprintf("the deletion of %d pods", n), func() (bool, string) {
		names = nil
		for _, a := range w.client.Actions() {
			if d, ok := a.(clienttesting.DeleteAction); ok {
				names = append(names, d.GetName())
			}
		}
		return len(names) >= n, fmt.Sprint(names)
	})
	slices.Sort(names)
	return names
}

func priority(p int32) func(*v1.Pod) { return func(pod *v1.Pod) { pod.Spec.Priority = &p } }

func labelled(key, value string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		if p.Labels == nil {
			p.Labels = map[string]string{}
		}
		p.Labels[key] = value
	}
}

func TestPreemption(t *testing.T) {
	a, b := makeNode("a", "4", "8Gi"), makeNode("b", "4", "8Gi")
	cordoned := makeNode("cordoned", "4", "8Gi", func(n *v1.Node) { n.Spec.Unschedulable = true })
	nodes := []*v1.Node{a, b}
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "keep"},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "keep"}}},
	}
	never := func(p *v1.Pod) {
		p.Spec.PreemptionPolicy = new(v1.PreemptionPolicy)
		*p.Spec.PreemptionPolicy = v1.PreemptNever
	}
	promised := func(node string) func(*v1.Pod) { return func(p *v1.Pod) { p.Status.NominatedNodeName = node } }
	ending := func(p *v1.Pod) {
		p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: time.Now()}, []string{"x/y"}
		p.Status.Conditions = []v1.PodCondition{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonPreemptionByScheduler}}
	}
	host := func(p *v1.Pod) { p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80}} }
	for _, tc := range []struct {
		name    string
		pod     *v1.Pod
		nodes   []*v1.Node
		pods    []*v1.Pod
		node    string
		message string
		victims []string
	}{
		{"the less important pod goes", makePod("p", "3", "1Gi", priority(100)), nodes,
			[]*v1.Pod{makePod("x", "3", "1Gi", on("a"), priority(50)), makePod("y", "3", "1Gi", on("b"), priority(10))}, "b", "found a potential placement", []string{"y"}},
		{"no more go than must", makePod("p", "2", "1Gi", priority(100)), nodes[:1],
			[]*v1.Pod{makePod("x", "1", "", on("a"), priority(3)), makePod("y", "1", "", on("a"), priority(2)), makePod("z", "2", "", on("a"), priority(1))}, "a", "found", []string{"z"}},
		{"equals do not go", makePod("p", "3", "1Gi", priority(100)), nodes[:1], []*v1.Pod{makePod("x", "3", "1Gi", on("a"), priority(100))}, "",
			"preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.", nil},
		{"where it does not help", makePod("p", "3", "1Gi", priority(100)), []*v1.Node{cordoned}, []*v1.Pod{makePod("x", "3", "1Gi", on("cordoned"))}, "",
			"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.", nil},
		{"not even without all", makePod("p", "3", "1Gi", priority(100)), nodes[:1],
			[]*v1.Pod{makePod("x", "3", "1Gi", on("a"), priority(100)), makePod("y", "1", "1Gi", on("a"))}, "", "preemption: 0/1 nodes are available: 1 Insufficient cpu.", nil},
		{"policy Never", makePod("p", "3", "1Gi", priority(100), never), nodes[:1], []*v1.Pod{makePod("x", "3", "1Gi", on("a"))}, "",
			"preemption: not eligible due to preemptionPolicy=Never.", nil},
		{"victims on their way out are waited for", makePod("p", "3", "1Gi", priority(100), promised("a")), nodes[:1], []*v1.Pod{makePod("x", "3", "1Gi", on("a"), ending)}, "",
			"preemption: not eligible due to a terminating pod on the nominated node.", nil},
		{"budgets weigh more than priority", makePod("p", "3", "1Gi", priority(100)), nodes,
			[]*v1.Pod{makePod("x", "3", "1Gi", on("a"), priority(50)), makePod("y", "3", "1Gi", on("b"), priority(10), labelled("app", "keep"))}, "a", "found", []string{"x"}},
		{"a budget is broken when there is no other way", makePod("p", "3", "1Gi", priority(100)), nodes[:1],
			[]*v1.Pod{makePod("y", "3", "1Gi", on("a"), priority(10), labelled("app", "keep"))}, "a", "found", []string{"y"}},
		{"a port is freed", makePod("p", "1", "1Gi", priority(100), host), nodes[:1],
			[]*v1.Pod{makePod("x", "1", "1Gi", on("a"), host), makePod("y", "1", "1Gi", on("a"))}, "a", "found", []string{"x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tc.nodes, append(tc.pods, tc.pod), budget)
			node, message := w.preempt(t, tc.pod)
			if node != tc.node || !strings.Contains(message, tc.message) {
				t.Errorf("promised is %q (%s), want %q (%s)", node, message, tc.node, tc.message)
			}
			if got := w.deleted(t, len(tc.victims)); !slices.Equal(got, tc.victims) {
				t.Errorf("evicted are %v, want %v", got, tc.victims)
			}
		})
	}
}

// A victim is told why it goes, and the pod that gains stays out of the queue meanwhile.
func TestVictimsAreTold(t *testing.T) {
	pod, low := makePod("p", "3", "1Gi", priority(100)), makePod("x", "3", "1Gi", on("a"))
	w := newWorld(t, []*v1.Node{makeNode("a", "4", "8Gi")}, []*v1.Pod{pod, low})
	going, proceed := make(chan struct{}), make(chan struct{})
	w.client.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		close(going)
		<-proceed
		return false, nil, nil
	})
	if node, msg := w.preempt(t, pod); node != "a" {
		t.Fatalf("promised is %q: %s", node, msg)
	}
	<-going
	if s := w.fw.RunPreEnqueue(t.Context(), pod); s.Message() != "waiting for the preemption for this pod to be finished" {
		t.Errorf("the pod may enter the queue: %v", s)
	}
	close(proceed)
	select {
	case e := <-w.events.Events:
		if e != "Normal Preempted Preempted by pod p on node a" {
			t.Errorf("the event is %q", e)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no event")
	}
	var told v1.Pod
	for _, a := range w.client.Actions() {
		if patch, ok := a.(clienttesting.PatchAction); ok {
			if err := json.Unmarshal(patch.GetPatch(), &told); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(told.Status.Conditions) != 1 {
		t.Fatalf("the conditions are %v", told.Status.Conditions)
	}
	got := told.Status.Conditions[0]
	got.LastTransitionTime = metav1.Time{}
	if want := (v1.PodCondition{
		Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "PreemptionByScheduler",
		Message: "default-scheduler: preempting to accommodate a higher priority pod",
	}); got != want {
		t.Errorf("the condition is %v, want %v", got, want)
	}
}

// A node that has been promised is taken for full by pods of no higher priority.
func TestPromisedNodes(t *testing.T) {
	w := newWorld(t, []*v1.Node{makeNode("a", "4", "8Gi")}, nil)
	promised := makePod("high", "3", "1Gi", priority(100), func(p *v1.Pod) { p.Status.NominatedNodeName = "a" })
	info, err := cache.NewPodInfo(promised)
	if err != nil {
		t.Fatal(err)
	}
	w.queue.AddNominatedPod(klog.Background(), info, nil)
	for _, tc := range []struct {
		pod  *v1.Pod
		fits bool
	}{
		{makePod("lower", "2", "1Gi", priority(10)), false},
		{makePod("equal", "2", "1Gi", priority(100)), false},
		{makePod("small", "1", "1Gi", priority(10)), true},
		{makePod("higher", "2", "1Gi", priority(200)), true},
		{promised, true},
	} {
		_, err := (&cycle{fw: w.fw, snapshot: w.snapshot}).run(t.Context(), framework.NewCycleState(false), tc.pod, 1)
		if (err == nil) != tc.fits {
			t.Errorf("%s: %v, want it to fit: %t", tc.pod.Name, err, tc.fits)
		}
	}
}

// A pod that was refused since another was promised the room is tried again when that one goes elsewhere, or nowhere.
func TestBrokenPromise(t *testing.T) {
	for name, broken := range map[string]func(context.Context, *mind, *v1.Pod){
		"elsewhere": func(ctx context.Context, m *mind, p *v1.Pod) {
			if _, err := m.assume(ctx, p, "b"); err != nil {
				t.Error(err)
			}
		},
		"gone": func(ctx context.Context, m *mind, p *v1.Pod) { m.podGone(ctx, p) },
		"taken back": func(ctx context.Context, m *mind, p *v1.Pod) {
			now := p.DeepCopy()
			now.Status.NominatedNodeName = ""
			m.podChanged(ctx, p, now)
		},
		"bound elsewhere": func(ctx context.Context, m *mind, p *v1.Pod) {
			now := p.DeepCopy()
			now.Spec.NodeName, now.Status.NominatedNodeName = "b", ""
			m.podChanged(ctx, p, now)
		},
		"nowhere": func(ctx context.Context, m *mind, p *v1.Pod) { m.promise(ctx, p, noPromise) },
		"kept":    func(ctx context.Context, m *mind, p *v1.Pod) { m.promise(ctx, p, nil) },
		"fulfilled": func(ctx context.Context, m *mind, p *v1.Pod) {
			if _, err := m.assume(ctx, p, "a"); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			refused := makePod("refused", "3", "1Gi")
			promised := makePod("promised", "3", "1Gi", func(p *v1.Pod) { p.Status.NominatedNodeName = "a" })
			m := gangWorld(t, framework.Gates{}, []*v1.Node{makeNode("a", "4", "8Gi"), makeNode("b", "4", "8Gi")}, []*v1.Pod{refused, promised}, nil)
			m.queue = queue.New(queue.Config{Less: m.less(), Hints: map[string][]queue.Hint{config.DefaultSchedulerName: m.profiles[config.DefaultSchedulerName].Hints()}})
			m.queue.Add(ctx, refused)
			q := m.queue.Pop()
			info, err := cache.NewPodInfo(promised)
			if err != nil {
				t.Fatal(err)
			}
			m.queue.AddNominatedPod(klog.Background(), info, nil)
			q.UnschedulablePlugins = sets.New("NodeResourcesFit")
			m.queue.Return(ctx, q)
			broken(ctx, m, promised)
			again := true
			m.queue.Each(func(p *queue.Pod, at queue.Place) {
				again = again && (p.Pod.Name != "refused" || at != queue.Unschedulable)
			})
			if want := name != "kept" && name != "fulfilled"; again != want {
				t.Errorf("it is tried again: %t", again)
			}
		})
	}
}
