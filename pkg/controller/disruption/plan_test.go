package disruption

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// podsOf reads "a b:unready c:going".
func podsOf(text string) (all []*corev1.Pod) {
	for word := range strings.FieldsSeq(text) {
		name, state, _ := strings.Cut(word, ":")
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		switch state {
		case "unready":
			p.Status.Conditions[0].Status = corev1.ConditionFalse
		case "going":
			p.DeletionTimestamp = ptr.To(metav1.NewTime(now))
		}
		all = append(all, p)
	}
	return all
}

func TestDecide(t *testing.T) {
	minutesAgo := func(n int) metav1.Time { return metav1.NewTime(now.Add(-time.Duration(n) * time.Minute)) }
	for _, c := range []struct {
		name       string
		min, max   string
		pods       string
		scale      int
		disrupted  map[string]metav1.Time
		want       string // allowed, healthy, desired, expected
		kept, left string
		again      time.Duration
	}{
		{name: "no pods", min: "1", want: "0 0 1 0"},
		{name: "one more than needed", min: "2", pods: "a b c", want: "1 3 2 3"},
		{name: "one is not ready", min: "2", pods: "a b c:unready", want: "0 2 2 3"},
		{name: "one goes", min: "2", pods: "a b c:going", want: "0 2 2 3"},
		{name: "all may go", min: "0", pods: "a b", want: "2 2 0 2"},
		{name: "a share of what is meant to be", min: "28%", pods: "a b", scale: 10, want: "0 2 3 10"},
		{name: "a share of nothing", min: "28%", pods: "a", want: "0 1 0 0"},
		{name: "one may be missing", max: "1", pods: "a b c", scale: 3, want: "1 3 2 3"},
		{name: "and is", max: "1", pods: "a b", scale: 3, want: "0 2 2 3"},
		{name: "more may be missing than there are", max: "5", pods: "a", scale: 3, want: "1 1 0 3"},
		{name: "a share may be missing, rounded up", max: "30%", pods: "a b c d e", scale: 5, want: "2 5 3 5"},
		{name: "no limit", pods: "a", want: "0 1 0 0"},
		{name: "disruptions under way", min: "1", pods: "a:going b c", disrupted: map[string]metav1.Time{
			"a": minutesAgo(0), "b": minutesAgo(3), "c": minutesAgo(1), "gone": minutesAgo(0),
		}, want: "0 1 1 3", kept: "b", left: "c", again: time.Minute},
	} {
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 3}}
		if c.min != "" {
			b.Spec.MinAvailable = ptr.To(intstr.Parse(c.min))
		}
		if c.max != "" {
			b.Spec.MaxUnavailable = ptr.To(intstr.Parse(c.max))
		}
		b.Status.DisruptedPods = c.disrupted
		b.Status.Conditions = []metav1.Condition{{Type: "Other", Status: metav1.ConditionTrue}}
		p, err := decide(b, podsOf(c.pods), c.scale, now)
		if err != nil {
			t.Fatal(err)
		}
		s := p.status
		if got := fmt.Sprint(s.DisruptionsAllowed, s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		var kept, left []string
		for _, p := range p.kept {
			kept = append(kept, p.Name)
		}
		for name := range s.DisruptedPods {
			left = append(left, name)
		}
		if strings.Join(kept, " ") != c.kept || strings.Join(left, " ") != c.left || p.again != c.again {
			t.Errorf("%s: %q kept, %q under way, again in %v", c.name, kept, left, p.again)
		}
		cond := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
		if len(s.Conditions) != 2 || (cond.Status == metav1.ConditionTrue) != (s.DisruptionsAllowed > 0) || cond.ObservedGeneration != 3 {
			t.Errorf("%s: conditions %+v", c.name, s.Conditions)
		}
	}
}

func TestRefuse(t *testing.T) {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 3}, Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 2, CurrentHealthy: 5}}
	s := refuse(b, errors.New("no one knows"))
	c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	if s.DisruptionsAllowed != 0 || s.CurrentHealthy != 5 || s.ObservedGeneration != 3 || c == nil || c.Status != metav1.ConditionFalse || c.Reason != policyv1.SyncFailedReason || c.Message != "no one knows" {
		t.Errorf("%+v", s)
	}
}

func TestStaleIn(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := podsOf("a")[0]
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-90 * time.Second))}}
		change(p)
		return p
	}
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		left time.Duration
		ok   bool
	}{
		{"not yet", pod(func(*corev1.Pod) {}), 30 * time.Second, true},
		{"stale", pod(func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Hour)) }), 0, true},
		{"no disruption", podsOf("a")[0], 0, false},
		{"taken back", pod(func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }), 0, false},
		{"under way", pod(func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.NewTime(now)) }), 0, false},
		{"over", pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), 0, false},
		{"the kubelet's", pod(func(p *corev1.Pod) { p.Status.Conditions[0].Reason = corev1.PodReasonTerminationByKubelet }), 0, false},
	} {
		if left, ok := staleIn(c.pod, now); left != c.left || ok != c.ok {
			t.Errorf("%s: %v, %v", c.name, left, ok)
		}
	}
}
