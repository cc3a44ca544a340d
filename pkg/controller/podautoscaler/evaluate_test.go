package podautoscaler

import (
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// What an autoscaler says of a metric that it cannot get begins with what the metric is.
func TestDescribe(t *testing.T) {
	one := resource.MustParse("1")
	queue := autoscalingv2.MetricIdentifier{Name: "queue"}
	for want, m := range map[string]autoscalingv2.MetricSpec{
		"cpu resource metric value": {Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU}},
		"queue external metric value: failed to get queue external metric": {Type: autoscalingv2.ExternalMetricSourceType,
			External: &autoscalingv2.ExternalMetricSource{Metric: queue, Target: autoscalingv2.MetricTarget{AverageValue: &one}}},
		"queue external metric value: failed to get external metric queue": {Type: autoscalingv2.ExternalMetricSourceType,
			External: &autoscalingv2.ExternalMetricSource{Metric: queue, Target: autoscalingv2.MetricTarget{Value: &one}}},
		"object metric value": {Type: autoscalingv2.ObjectMetricSourceType,
			Object: &autoscalingv2.ObjectMetricSource{Metric: queue, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType}}},
		"object metric value: failed to get queue object metric": {Type: autoscalingv2.ObjectMetricSourceType,
			Object: &autoscalingv2.ObjectMetricSource{Metric: queue, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType}}},
	} {
		if got := describe(m); got != want {
			t.Errorf("it is called %q, want %q", got, want)
		}
	}
}
