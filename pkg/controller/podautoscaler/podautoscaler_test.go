package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/controller/internal/metricsapi"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// pod returns one that requests a CPU, in a state: ready, unready, pending, going, failed or young.
func pod(name, state string) *corev1.Pod {
	q := corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: q}}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-time.Hour)},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour).Add(10 * time.Second))}},
		},
	}
	switch state {
	case "unready":
		p.Status.Conditions[0].Status = corev1.ConditionFalse
	case "young":
		p.Status.StartTime = &metav1.Time{Time: now.Add(-time.Minute)}
		p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-30 * time.Second))
	case "pending":
		p.Status.Phase = corev1.PodPending
	case "failed":
		p.Status.Phase = corev1.PodFailed
	case "going":
		p.DeletionTimestamp = &metav1.Time{Time: now}
	}
	return p
}

// fake answers with what it has.
type fake struct {
	pods  metricsapi.Readings
	value []int64
	err   error
}

func (f fake) Resource(context.Context, string, labels.Selector, corev1.ResourceName, string) (metricsapi.Readings, error) {
	return f.pods, f.err
}
func (f fake) Pods(string, labels.Selector, autoscalingv2.MetricIdentifier) (metricsapi.Readings, error) {
	return f.pods, f.err
}
func (f fake) Object(string, autoscalingv2.CrossVersionObjectReference, autoscalingv2.MetricIdentifier) (int64, error) {
	return total(f.value), f.err
}
func (f fake) External(string, autoscalingv2.MetricIdentifier) ([]int64, error) {
	return f.value, f.err
}
func (f fake) Refresh() {}

func TestMetric(t *testing.T) {
	cpu := func(target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: target}}
	}
	percent := func(n int32) autoscalingv2.MetricSpec {
		return cpu(autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &n})
	}
	quantity := func(s string) *resource.Quantity { return ptr.To(resource.MustParse(s)) }
	id := autoscalingv2.MetricIdentifier{Name: "qps"}
	perPod := autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: id, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: quantity("1")}}}
	object := func(target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{Metric: id, Target: target, DescribedObject: autoscalingv2.CrossVersionObjectReference{Kind: "Service", Name: "s"}}}
	}
	external := func(target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: id, Target: target}}
	}
	container := func(name string) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
			Name: "cpu", Container: name, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](50)}}}
	}
	for name, tc := range map[string]struct {
		spec    autoscalingv2.MetricSpec
		pods    string // name=state:reading; a reading of - is none
		value   []int64
		desired int32 // as many as pods if zero
		err     error
		want    int32
		says    string // part of the name, or of the error
	}{
		"at target":                        {spec: percent(50), pods: "a=ready:500 b=ready:500", want: 2, says: "cpu resource utilization (percentage of request)"},
		"within tolerance":                 {spec: percent(50), pods: "a=ready:540 b=ready:540", want: 2},
		"above":                            {spec: percent(50), pods: "a=ready:900 b=ready:700", want: 4},
		"below":                            {spec: percent(50), pods: "a=ready:100 b=ready:100 c=ready:100", want: 1},
		"a pod without a reading, up":      {spec: percent(50), pods: "a=ready:1000 b=ready:1000 c=ready:-", want: 4},
		"a pod without a reading, down":    {spec: percent(50), pods: "a=ready:100 b=ready:100 c=ready:-", want: 3},
		"a pod without a reading, much":    {spec: percent(100), pods: "a=ready:100 b=ready:100 c=ready:-", want: 2},
		"pods that are going do not count": {spec: percent(50), pods: "a=ready:500 b=going:9000 c=failed:9000", desired: 1, want: 1},
		"a pod that starts, up":            {spec: percent(50), pods: "a=ready:1000 b=ready:1000 c=pending:-", want: 4},
		"its CPU does not count":           {spec: percent(50), pods: "a=ready:500 b=young:1000", want: 2},
		"nor is it waited for, down":       {spec: percent(50), pods: "a=ready:100 b=ready:100 c=pending:-", want: 1},
		"all start":                        {spec: percent(50), pods: "a=pending:-", says: "did not receive metrics"},
		"no pods":                          {spec: percent(50), says: "no pods returned by selector"},
		"no metrics":                       {spec: percent(50), pods: "a=ready:-", err: errors.New("no API"), says: "failed to get cpu utilization: unable to get metrics for resource cpu: no API"},
		"a value of CPU":                   {spec: cpu(autoscalingv2.MetricTarget{AverageValue: quantity("100m")}), pods: "a=ready:200 b=ready:200", want: 4, says: "cpu resource"},
		"no target":                        {spec: cpu(autoscalingv2.MetricTarget{}), pods: "a=ready:1", says: "neither"},
		"a container":                      {spec: container("c"), pods: "a=ready:1000", want: 2, says: "cpu container resource utilization"},
		"a container that is not":          {spec: container("d"), pods: "a=ready:1000", says: "container d not found in Pod a"},
		"pods":                             {spec: perPod, pods: "a=ready:2000 b=ready:4000", want: 6, says: "pods metric qps"},
		"pods, an unready one counts":      {spec: perPod, pods: "a=ready:2000 b=unready:4000", want: 6},
		"object":                           {spec: object(autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: quantity("10")}), pods: "a=ready:- b=unready:-", value: []int64{30000}, want: 3, says: "Service metric qps"},
		"object, shared":                   {spec: object(autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: quantity("10")}), pods: "a=ready:- b=ready:-", value: []int64{45000}, want: 5},
		"external":                         {spec: external(autoscalingv2.MetricTarget{Value: quantity("10")}), pods: "a=ready:- b=ready:-", value: []int64{15000, 15000}, want: 6, says: "external metric qps"},
		"external, from nothing":           {spec: external(autoscalingv2.MetricTarget{Value: quantity("10")}), desired: -1, value: []int64{25000}, want: 3},
		"external, a flood":                {spec: external(autoscalingv2.MetricTarget{AverageValue: quantity("1m")}), pods: "a=ready:-", value: []int64{1 << 62, 1 << 62}, want: 1<<31 - 1},
		"another source":                   {spec: autoscalingv2.MetricSpec{Type: "Dream"}, says: `unknown metric source type "Dream"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := fake{pods: metricsapi.Readings{}, value: tc.value, err: tc.err}
			e := evaluation{metrics: f, config: DefaultConfig(), now: now, selector: labels.Everything(), tolerance: tolerance{0.1, 0.1}}
			for _, field := range strings.Fields(tc.pods) {
				name, rest, _ := strings.Cut(field, "=")
				state, value, _ := strings.Cut(rest, ":")
				e.target.pods = append(e.target.pods, pod(name, state))
				if value != "-" {
					var n int64
					if _, err := fmt.Sscan(value, &n); err != nil {
						t.Fatal(err)
					}
					f.pods[name] = metricsapi.Reading{Value: n, At: now, Window: time.Minute}
				}
			}
			e.target.desired = int32(len(e.target.pods))
			if tc.desired != 0 {
				e.target.desired = max(tc.desired, 0)
			}
			e.target.observed = e.target.desired
			n, says, _, err := e.metric(t.Context(), tc.spec)
			if err != nil {
				says = err.Error()
			}
			if n != tc.want || (err != nil) != (tc.want == 0) || !strings.Contains(says, tc.says) {
				t.Errorf("%d, %q, want %d, %q", n, says, tc.want, tc.says)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	policy := func(kind autoscalingv2.HPAScalingPolicyType, value, period int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: kind, Value: value, PeriodSeconds: period}
	}
	rules := func(window int32, selected autoscalingv2.ScalingPolicySelect, policies ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
		return &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &window, SelectPolicy: &selected, Policies: policies}
	}
	free := rules(0, "Max", policy("Percent", 1000, 1))
	for name, tc := range map[string]struct {
		history  history // ages in seconds stand in for times
		current  int32
		proposed int32
		behavior *autoscalingv2.HorizontalPodAutoscalerBehavior
		want     int32
		able     string
		limit    string
	}{
		"as proposed":       {current: 3, proposed: 5, want: 5, able: "ReadyForNewScale", limit: "DesiredWithinRange"},
		"twice at a time":   {current: 3, proposed: 9, want: 6, able: "ReadyForNewScale", limit: "ScaleUpLimit"},
		"four at the least": {current: 1, proposed: 9, want: 4, able: "ReadyForNewScale", limit: "ScaleUpLimit"},
		"the maximum":       {current: 8, proposed: 20, want: 10, able: "ReadyForNewScale", limit: "TooManyReplicas"},
		"the minimum":       {current: 3, proposed: 1, want: 2, able: "ReadyForNewScale", limit: "TooFewReplicas"},
		"not down at once":  {history: history{proposals: []change{{5, ago(100)}, {9, ago(400)}}}, current: 6, proposed: 3, want: 5, able: "ScaleDownStabilized", limit: "DesiredWithinRange"},
		"behavior, up after a while": {history: history{proposals: []change{{4, ago(20)}}}, current: 3, proposed: 8, want: 4, able: "ScaleUpStabilized", limit: "DesiredWithinRange",
			behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(60, "Max", policy("Percent", 1000, 1)), ScaleDown: free}},
		"behavior, down after a while": {history: history{proposals: []change{{5, ago(20)}}}, current: 8, proposed: 3, want: 5, able: "ScaleDownStabilized", limit: "DesiredWithinRange",
			behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: rules(60, "Max", policy("Percent", 100, 1))}},
		"behavior, pods in a minute": {history: history{ups: []change{{1, ago(30)}, {5, ago(90)}}}, current: 4, proposed: 9, want: 6, able: "ReadyForNewScale", limit: "ScaleUpLimit",
			behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(0, "Max", policy("Pods", 3, 60)), ScaleDown: free}},
		"behavior, the lesser of two": {current: 4, proposed: 9, want: 5, able: "ReadyForNewScale", limit: "ScaleUpLimit",
			behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(0, "Min", policy("Pods", 3, 60), policy("Percent", 10, 60)), ScaleDown: free}},
		"behavior, never up": {current: 4, proposed: 9, want: 4, able: "ReadyForNewScale", limit: "ScaleUpLimit",
			behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(0, "Disabled"), ScaleDown: free}},
		"behavior, half of them": {current: 9, proposed: 2, want: 4, able: "ReadyForNewScale", limit: "ScaleDownLimit",
			behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: rules(0, "Max", policy("Percent", 50, 60), policy("Pods", 1, 60))}},
		"behavior, slowly down": {history: history{downs: []change{{1, ago(30)}}}, current: 8, proposed: 2, want: 7, able: "ReadyForNewScale", limit: "ScaleDownLimit",
			behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: rules(0, "Max", policy("Pods", 2, 60))}},
		"behavior, the minimum": {current: 4, proposed: 1, want: 2, able: "ReadyForNewScale", limit: "TooFewReplicas",
			behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: rules(0, "Max", policy("Percent", 100, 60))}},
	} {
		d := tc.history.decide(tc.proposed, limits{current: tc.current, min: 2, max: 10, behavior: tc.behavior, window: 5 * time.Minute}, now)
		if d.replicas != tc.want || d.able.reason != tc.able || d.limit.reason != tc.limit || d.limited != (tc.limit != "DesiredWithinRange") {
			t.Errorf("%s: %+v, want %d, %s, %s", name, d, tc.want, tc.able, tc.limit)
		}
	}
}

func ago(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
