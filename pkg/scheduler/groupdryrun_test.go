package scheduler

import (
	"slices"
	"strings"
	"testing"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/plan"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
)

// A dry run places a gang as a whole, preempts for it, and leaves it pending as a whole.
func TestDryRunOfGangs(t *testing.T) {
	low := makePod("low", "2", "", on("a"), priority(1))
	groups := []*schedulingv1beta1.PodGroup{makeGroup("g", 2, groupPriority(100)), makeGroup("h", 3, groupPriority(100))}
	s, err := assemble(t.Context(), Config{KubeConfig: &rest.Config{Host: "https://192.0.2.1"}, Component: config.Default(), Plugins: plugins.Registry(), Gates: allGates},
		fake.NewClientset(makeNode("a", "2", "8Gi"), makeNode("b", "2", "8Gi"), low, groups[0], groups[1]))
	if err != nil {
		t.Fatal(err)
	}
	ready, err := s.watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ready(); err != nil {
		t.Fatal(err)
	}
	request := func(names ...string) *plan.Request {
		r := &plan.Request{}
		for _, name := range names {
			r.Pods = append(r.Pods, *makePod(name, "2", "", of(name[:1]), priority(100)))
		}
		return r
	}
	got := where(t, s, request("g1", "g2"))
	slices.Sort(got)
	if len(got) != 2 || !strings.HasPrefix(got[0], "a") || !strings.Contains(got[0]+got[1], "default/low") || !strings.HasPrefix(got[1], "b") {
		t.Errorf("the gang goes to %v", got)
	}
	for _, message := range where(t, s, request("h1", "h2", "h3")) {
		if !strings.Contains(message, "minCount (3) cannot be satisfied") && !strings.Contains(message, "Insufficient cpu") {
			t.Errorf("a pod of a gang that does not fit: %s", message)
		}
	}
	for _, message := range where(t, s, request("h1")) {
		if message != "held back by GangScheduling: waiting for minCount pods from a gang to appear in scheduling queue" {
			t.Errorf("a pod of a gang that is not whole: %s", message)
		}
	}
	for _, message := range where(t, s, request("x1")) {
		if !strings.Contains(message, `waiting for pods's pod group "x"`) {
			t.Errorf("a pod of a gang that is not there: %s", message)
		}
	}
}
