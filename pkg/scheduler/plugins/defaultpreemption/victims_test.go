package defaultpreemption

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
)

var now = time.Unix(1_000_000, 0)

// victim has a priority and has run for some seconds.
func victim(priority int32, seconds int) *v1.Pod {
	started := metav1.NewTime(now.Add(-time.Duration(seconds) * time.Second))
	return &v1.Pod{Spec: v1.PodSpec{Priority: &priority}, Status: v1.PodStatus{StartTime: &started}}
}

func TestLeastHarm(t *testing.T) {
	on := func(node string, violations int, victims ...*v1.Pod) candidate {
		return candidate{node, victims, violations}
	}
	for _, tc := range []struct {
		name       string
		candidates []candidate
		want       string
	}{
		{"the only one", []candidate{on("a", 9, victim(9, 1))}, "a"},
		{"fewest broken budgets", []candidate{on("a", 1, victim(0, 1)), on("b", 0, victim(9, 1))}, "b"},
		{"lowest of the highest priorities", []candidate{on("a", 0, victim(5, 1)), on("b", 0, victim(4, 1), victim(4, 1), victim(4, 1))}, "b"},
		{"lowest sum", []candidate{on("a", 0, victim(5, 1), victim(4, 1)), on("b", 0, victim(5, 1), victim(3, 1))}, "b"},
		{"one victim is better than two of negative priority", []candidate{on("a", 0, victim(-5, 1), victim(-6, 1)), on("b", 0, victim(-5, 1))}, "b"},
		{"the last to start", []candidate{on("a", 0, victim(5, 20)), on("b", 0, victim(5, 10))}, "b"},
		{"the first start of the most important counts", []candidate{
			on("a", 0, victim(5, 20), victim(4, 1)), on("b", 0, victim(5, 10), victim(4, 90)),
		}, "b"},
		{"equal: the first", []candidate{on("a", 0, victim(5, 20)), on("b", 0, victim(5, 20))}, "a"},
	} {
		if got := leastHarm(tc.candidates).node; got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestSplitByBudget(t *testing.T) {
	pod := func(name, app string) fwk.PodInfo {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
		if app != "" {
			p.Labels = map[string]string{"app": app}
		}
		info, err := cache.NewPodInfo(p)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	budget := func(ns, app string, allowed int32, disrupted ...string) *policyv1.PodDisruptionBudget {
		b := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns},
			Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
			Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed, DisruptedPods: map[string]metav1.Time{}},
		}
		if app == "" {
			b.Spec.Selector = &metav1.LabelSelector{}
		}
		for _, d := range disrupted {
			b.Status.DisruptedPods[d] = metav1.Now()
		}
		return b
	}
	pods := []fwk.PodInfo{pod("a1", "a"), pod("a2", "a"), pod("b1", "b"), pod("x", "")}
	for _, tc := range []struct {
		name    string
		budgets []*policyv1.PodDisruptionBudget
		want    string
	}{
		{"no budgets", nil, ""},
		{"one may go", []*policyv1.PodDisruptionBudget{budget("n", "a", 1)}, "a2 "},
		{"none may go", []*policyv1.PodDisruptionBudget{budget("n", "a", 0), budget("n", "b", 0)}, "a1 a2 b1 "},
		{"either of two budgets", []*policyv1.PodDisruptionBudget{budget("n", "a", 2), budget("n", "a", 0)}, "a1 a2 "},
		{"one that was counted before", []*policyv1.PodDisruptionBudget{budget("n", "a", 0, "a1")}, "a2 "},
		{"of another namespace", []*policyv1.PodDisruptionBudget{budget("m", "a", 0)}, ""},
		{"an empty selector protects nothing", []*policyv1.PodDisruptionBudget{budget("n", "", 0)}, ""},
	} {
		protected, others := splitByBudget(pods, tc.budgets)
		got := ""
		for _, p := range protected {
			got += p.GetPod().Name + " "
		}
		if got != tc.want || len(protected)+len(others) != len(pods) {
			t.Errorf("%s: protected are %s, want %s", tc.name, got, tc.want)
		}
	}
}
