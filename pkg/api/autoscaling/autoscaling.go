// Package autoscaling knows what is true of Scale and HorizontalPodAutoscaler
// wherever they are handled: defaults, what makes them invalid (the Validate
// functions), and how an autoscaler of autoscaling/v1 becomes one of autoscaling/v2,
// in which autoscalers are stored.
package autoscaling

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers the defaulting functions of both versions.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, func(a *autoscalingv1.HorizontalPodAutoscaler) { rules.SetPtr(&a.Spec.MinReplicas, 1) })
	rules.Default(s, func(a *autoscalingv2.HorizontalPodAutoscaler) {
		rules.SetPtr(&a.Spec.MinReplicas, 1)
		if len(a.Spec.Metrics) == 0 {
			a.Spec.Metrics = []autoscalingv2.MetricSpec{cpuUtilization(80)}
		}
		defaultBehavior(a.Spec.Behavior)
	})
	return nil
}

// cpuUtilization is the metric that autoscaling/v1 has a field for.
func cpuUtilization(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
		},
	}
}

func defaultBehavior(b *autoscalingv2.HorizontalPodAutoscalerBehavior) {
	if b == nil {
		return
	}
	all := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}
	rules.SetPtr(&b.ScaleUp, autoscalingv2.HPAScalingRules{})
	rules.SetPtr(&b.ScaleUp.StabilizationWindowSeconds, 0)
	rules.SetPtr(&b.ScaleUp.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if b.ScaleUp.Policies == nil {
		b.ScaleUp.Policies = []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}, all}
	}
	rules.SetPtr(&b.ScaleDown, autoscalingv2.HPAScalingRules{})
	rules.SetPtr(&b.ScaleDown.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if b.ScaleDown.Policies == nil {
		b.ScaleDown.Policies = []autoscalingv2.HPAScalingPolicy{all}
	}
}

// ValidateScale says what is wrong with a Scale.
func ValidateScale(s *autoscalingv1.Scale) field.ErrorList {
	errs := rules.Namespaced(&s.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, rules.NonNegative(s.Spec.Replicas, field.NewPath("spec", "replicas"))...)
}
