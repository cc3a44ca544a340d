package eviction

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCells(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(d))) }
	eviction := func(a, b lifecyclev1alpha1.ResponderStateType, r lifecyclev1alpha1.ResponderStatus) *lifecyclev1alpha1.EvictionStatus {
		r.Name = "example.com/a"
		return &lifecyclev1alpha1.EvictionStatus{
			TargetResponders: []lifecyclev1alpha1.TargetResponder{{Name: "example.com/a", State: a}, {Name: "example.com/b", State: b}},
			Responders:       []lifecyclev1alpha1.ResponderStatus{r, {Name: "example.com/b"}},
		}
	}
	for name, tc := range map[string]struct {
		status *lifecyclev1alpha1.EvictionStatus
		want   report
	}{
		"new": {&lifecyclev1alpha1.EvictionStatus{}, report{"<unset> (0/0)", "<unset>", "<unknown>", "<unset>", "<unset>"}},
		"active": {
			eviction("Active", "Inactive", lifecyclev1alpha1.ResponderStatus{StartTime: at(-10 * time.Second), ExpectedCompletionTime: at(time.Minute), HeartbeatTime: at(-5 * time.Second), Message: new(" half ")}),
			report{"example.com/a (1/2)", "Started (10s ago)", "in 60s", "5s ago", "half"},
		},
		"late": {
			eviction("Active", "Inactive", lifecyclev1alpha1.ResponderStatus{StartTime: at(-10 * time.Second), ExpectedCompletionTime: at(-time.Second)}),
			report{"example.com/a (1/2)", "Started (10s ago)", "1s ago", "<unset>", "<unset>"},
		},
		"completed": {
			eviction("Completed", "Inactive", lifecyclev1alpha1.ResponderStatus{CompletionTime: at(-2 * time.Second)}),
			report{"example.com/a (1/2)", "Completed (2s ago)", "-", "<unset>", "<unset>"},
		},
		"the next": {
			eviction("Interrupted", "Active", lifecyclev1alpha1.ResponderStatus{}),
			report{"example.com/b (2/2)", "Active", "<unknown>", "<unset>", "<unset>"},
		},
	} {
		if got := newReport(tc.status, now); got != tc.want {
			t.Errorf("%s: %s", name, cmp.Diff(tc.want, got, cmp.AllowUnexported(report{})))
		}
	}

	r := func(name string, intent lifecyclev1alpha1.RequesterIntent) lifecyclev1alpha1.Requester {
		return lifecyclev1alpha1.Requester{Name: name, Intent: intent}
	}
	for want, all := range map[string][]lifecyclev1alpha1.Requester{
		"<none>": nil, "<withdrawn>": {r("a", "Withdrawn")}, "b": {r("b", "Eviction"), r("a", "Withdrawn")},
		"a + 2 more...": {r("c", "Eviction"), r("a", "Eviction"), r("b", "Eviction")},
	} {
		if got := requesters(all); got != want {
			t.Errorf("%v: %s, want %s", all, got, want)
		}
	}
}
