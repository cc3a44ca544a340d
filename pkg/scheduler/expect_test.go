package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/component-base/metrics/legacyregistry"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/extender"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
)

// slow is a plugin that has pods wait before they are bound, in one way or another.
type slow struct {
	permit  fwk.Code
	flight  *fwk.Status
	preBind error
}

func (*slow) Name() string { return "Slow" }

func (p *slow) Permit(context.Context, fwk.CycleState, *v1.Pod, string) (*fwk.Status, time.Duration) {
	return fwk.NewStatus(p.permit), time.Minute
}

func (p *slow) PreBindPreFlight(context.Context, fwk.CycleState, *v1.Pod, string) (*fwk.PreBindPreFlightResult, *fwk.Status) {
	return nil, p.flight
}

func (p *slow) PreBind(context.Context, fwk.CycleState, *v1.Pod, string) *fwk.Status {
	return fwk.AsStatus(p.preBind)
}

// Others are told where a pod is going to be if something is waited for before it is bound,
// and told otherwise if it comes to nothing. Nothing is written for a pod that is bound at once.
func TestExpectedNode(t *testing.T) {
	skip := fwk.NewStatus(fwk.Skip)
	for _, tc := range []struct {
		name     string
		plugin   slow
		promised string   // before
		told     []string // nodes written to the status of the pod, one after the other
		bound    bool
	}{
		{name: "nothing to wait for", plugin: slow{flight: skip}, bound: true},
		{name: "a plugin permits it later", plugin: slow{permit: fwk.Wait, flight: skip}, told: []string{"n"}, bound: true},
		{name: "work before the binding", told: []string{"n"}, bound: true},
		{name: "told before", promised: "n", bound: true},
		{name: "told otherwise before", promised: "gone", told: []string{"n"}, bound: true},
		{name: "the work fails", plugin: slow{preBind: errors.New("no")}, told: []string{"n", ""}},
		{name: "the plugin does not know whether it has work", plugin: slow{flight: fwk.NewStatus(fwk.Unschedulable)}},
		{name: "it does not know, while the pod waits", plugin: slow{permit: fwk.Wait, flight: fwk.NewStatus(fwk.Error, "no")}},
		{name: "a plugin forbids it", plugin: slow{permit: fwk.Unschedulable, flight: skip}, promised: "gone", told: []string{""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := makePod("p", "1", "1Gi", func(p *v1.Pod) { p.Status.NominatedNodeName = tc.promised })
			client := bindable(100, makeNode("n", "2", "4Gi"), pod)
			s := startWith(t, client, &tc.plugin)
			if tc.plugin.permit == fwk.Wait && tc.bound {
				fw := s.profiles[config.DefaultSchedulerName]
				componenttest.Eventually(t, "the pod to wait", func() bool {
					w := fw.GetWaitingPod(pod.UID)
					if w == nil || len(nominations(t, client)) == 0 {
						return false
					}
					w.Allow("Slow")
					return true
				})
			}
			componenttest.Eventually(t, "the end of the attempt", func() bool {
				p, err := client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
				return err == nil && (p.Spec.NodeName != "" || len(p.Status.Conditions) > 0)
			})
			got, err := client.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if (got.Spec.NodeName == "n") != tc.bound {
				t.Errorf("the pod is on %q: %v", got.Spec.NodeName, got.Status.Conditions)
			}
			if told := nominations(t, client); fmt.Sprintf("%q", told) != fmt.Sprintf("%q", tc.told) {
				t.Errorf("its status was told of %q, want %q", told, tc.told)
			}
			if w := s.profiles[config.DefaultSchedulerName].GetWaitingPod(pod.UID); w != nil {
				t.Error("the pod is still waiting")
			}
		})
	}
}

func (*slow) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) { return nil, nil }

// startWith runs a scheduler with one more plugin, until the test ends.
func startWith(t *testing.T, client *fake.Clientset, plugin fwk.Plugin) *Scheduler {
	t.Helper()
	c := config.Default()
	*c.LeaderElection.LeaderElect = false
	*c.PodInitialBackoffSeconds, *c.PodMaxBackoffSeconds = 600, 600
	c.Profiles[0].Plugins.MultiPoint.Enabled = append(c.Profiles[0].Plugins.MultiPoint.Enabled, configv1.Plugin{Name: plugin.Name()})
	registry := plugins.Registry()
	registry[plugin.Name()] = func(context.Context, runtime.Object, fwk.Handle) (fwk.Plugin, error) { return plugin, nil }
	s, err := assemble(t.Context(), Config{KubeConfig: &rest.Config{Host: "https://192.0.2.1"}, Component: c, Plugins: registry, MaxUnschedulable: time.Hour}, client)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// How long the plugins of a point took is counted while a scheduler is at work.
func TestPointsAreTimed(t *testing.T) {
	client := bindable(100, makeNode("n", "2", "4Gi"), makePod("p", "1", "1Gi"))
	startWith(t, client, &slow{})
	componenttest.Eventually(t, "the pod to be bound, and all that to be counted", func() bool {
		families, err := legacyregistry.DefaultGatherer.Gather()
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if f.GetName() == "scheduler_framework_extension_point_duration_seconds" && l.GetName() == "extension_point" {
						seen[l.GetValue()] = true
					}
				}
			}
		}
		return !slices.ContainsFunc([]string{"PreEnqueue", "PreFilter", "Filter", "Reserve", "Permit", "PreBindPreFlight", "PreBind", "Bind", "PostBind"}, func(point string) bool { return !seen[point] })
	})
}

// nominations are the nodes that were written to the status of pods, one after the other.
func nominations(t *testing.T, client *fake.Clientset) []string {
	t.Helper()
	var nodes []string
	for _, a := range client.Actions() {
		p, ok := a.(clienttesting.PatchAction)
		if !ok || !a.Matches("patch", "pods") && a.GetSubresource() != "status" {
			continue
		}
		var patch struct{ Status map[string]any }
		if err := json.Unmarshal(p.GetPatch(), &patch); err != nil {
			t.Fatal(err)
		}
		if node, ok := patch.Status["nominatedNodeName"]; ok {
			name, _ := node.(string) // null takes it away
			nodes = append(nodes, name)
		}
	}
	return nodes
}

// A pod is tried first on the node that its status names, whoever named it, and elsewhere
// only if it cannot be there.
func TestNamedNodeFirst(t *testing.T) {
	named := func(node string) func(*v1.Pod) {
		return func(p *v1.Pod) { p.Status.NominatedNodeName = node }
	}
	small, big := makeNode("small", "2", "4Gi"), makeNode("big", "8", "16Gi")
	strikes := func(node string) configv1.Extender {
		return configv1.Extender{URLPrefix: answers(t, map[string]string{node: "no"}, ""), FilterVerb: "filter", NodeCacheCapable: true}
	}
	for _, tc := range []struct {
		name      string
		pod       *v1.Pod
		extenders []configv1.Extender
		want      string
	}{
		{name: "nobody named one", pod: makePod("p", "1", "1Gi"), want: "big"},
		{name: "one that scores less", pod: makePod("p", "1", "1Gi", named("small")), want: "small"},
		{name: "one where it does not fit", pod: makePod("p", "4", "1Gi", named("small")), want: "big"},
		{name: "one that is gone", pod: makePod("p", "1", "1Gi", named("gone")), want: "big"},
		{name: "one that an extender does not mind", pod: makePod("p", "1", "1Gi", named("small")), extenders: []configv1.Extender{strikes("other")}, want: "small"},
		{name: "one that an extender strikes out", pod: makePod("p", "1", "1Gi", named("small")), extenders: []configv1.Extender{strikes("small")}, want: "big"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, []*v1.Node{small, big}, nil)
			for _, c := range tc.extenders {
				e, err := extender.New(c)
				if err != nil {
					t.Fatal(err)
				}
				w.fw.Deps.Extenders = append(w.fw.Deps.Extenders, e)
			}
			if got := w.where(t, tc.pod); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}
