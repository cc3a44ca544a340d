package explain

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

func pod(name string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}}
}

func TestBookIsBounded(t *testing.T) {
	b := NewBook()
	for i := range maxPods + 10 {
		b.Add(pod(fmt.Sprint(i)), Attempt{Number: 1})
	}
	for n := 2; n <= maxAttempts+3; n++ {
		b.Add(pod("20"), Attempt{Number: n})
	}
	if _, ok := b.Get("shop", "5"); ok {
		t.Error("the oldest pods are kept")
	}
	p, ok := b.Get("shop", "20")
	if !ok || len(p.Attempts) != maxAttempts || p.Attempts[0].Number != maxAttempts+3 {
		t.Errorf("kept of a pod is %v", p)
	}
	if len(b.pods) != maxPods || b.order.Len() != maxPods {
		t.Errorf("%d pods are kept", len(b.pods))
	}
}

func TestRefusalsAndScores(t *testing.T) {
	d := framework.NewDiagnosis()
	for i := range 7 {
		d.Refuse(fmt.Sprint("n", i), fwk.NewStatus(fwk.Unschedulable, "Insufficient cpu", "Too many pods").WithPlugin("NodeResourcesFit"))
	}
	d.Refuse("t", fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "tainted").WithPlugin("TaintToleration"))
	got := d.Refusals(0, 8)
	if len(got) != 3 || got[0].Count != 7 || len(got[0].Nodes) != 5 || !got[0].Evictable || got[2].Evictable || got[2].Nodes[0] != "t" {
		t.Errorf("refusals are %v", got)
	}
	var all []fwk.NodePluginScores
	for i, total := range []int64{3, 9, 1, 9, 4, 7, 2, 8} {
		all = append(all, fwk.NodePluginScores{Name: fmt.Sprint("n", i), TotalScore: total})
	}
	names := ""
	for _, s := range Scores(all) {
		names += s.Node + " "
	}
	if names != "n1 n3 n7 n5 n4 " {
		t.Errorf("the best nodes are %s", names)
	}
}

func TestHandlerAndPage(t *testing.T) {
	b := NewBook()
	now := time.Unix(1000, 0)
	b.Add(pod("web"), Attempt{
		Number: 2, Time: now.Add(-3 * time.Second), Took: time.Millisecond, Message: "0/2 nodes are available", Nodes: 2, Evaluated: 2,
		Refusals:   []Refusal{{Plugin: "NodeResourcesFit", Reason: "Insufficient cpu", Count: 2, Nodes: []string{"a"}, Evictable: true}},
		Preemption: &Preemption{Chosen: "a", Candidates: []Candidate{{Node: "a", Victims: []string{"shop/old"}, Violations: 1}}},
	})
	h := b.Handler(func(_, name string) string {
		if name == "gated" {
			return "held back by SchedulingGates"
		}
		return ""
	})
	for path, want := range map[string]int{"shop/web": 200, "shop/gated": 200, "shop/none": 404, "shop": 400, "shop/a/b": 400} {
		r := httptest.NewRecorder()
		h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, Path+path, nil))
		if r.Code != want {
			t.Errorf("%s: %d, want %d", path, r.Code, want)
		}
	}
	p, _ := b.Get("shop", "web")
	var page strings.Builder
	if err := p.Write(&page, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Attempt 2, 3s ago, took 1ms: no node.", "2 of 2 nodes were looked at, 0 fit.", "NodeResourcesFit  Insufficient cpu  a, …   could help",
		"node a (chosen): shop/old would go, which breaks disruption budgets 1 times.",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, page.String())
		}
	}
}
