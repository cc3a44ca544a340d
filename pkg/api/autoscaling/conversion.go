package autoscaling

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// GroupName is the API group.
const GroupName = autoscalingv2.GroupName

// AddConversions registers the conversions between the versions of
// HorizontalPodAutoscaler. What autoscaling/v1 has no fields for, it shows and takes
// as annotations.
func AddConversions(s *runtime.Scheme) error {
	return errors.Join(
		rules.Convert(s, ToV2),
		rules.Convert(s, FromV2),
		rules.Convert(s, func(in *autoscalingv1.HorizontalPodAutoscalerList, out *autoscalingv2.HorizontalPodAutoscalerList) error {
			out.ListMeta = in.ListMeta
			return rules.ConvertItems(in.Items, &out.Items, ToV2)
		}),
		rules.Convert(s, func(in *autoscalingv2.HorizontalPodAutoscalerList, out *autoscalingv1.HorizontalPodAutoscalerList) error {
			out.ListMeta = in.ListMeta
			return rules.ConvertItems(in.Items, &out.Items, FromV2)
		}),
	)
}

const annotationPrefix = "autoscaling.alpha.kubernetes.io/"

// The annotations.
const (
	metricsAnnotation        = annotationPrefix + "metrics"
	currentMetricsAnnotation = annotationPrefix + "current-metrics"
	conditionsAnnotation     = annotationPrefix + "conditions"
	behaviorAnnotation       = annotationPrefix + "behavior"
)

func isAnnotation(key, _ string) bool {
	switch key {
	case metricsAnnotation, currentMetricsAnnotation, conditionsAnnotation, behaviorAnnotation:
		return true
	}
	return false
}

// ToV2 converts an autoscaler of autoscaling/v1. The two share what they point to.
// An annotation that cannot be read says nothing.
func ToV2(in *autoscalingv1.HorizontalPodAutoscaler, out *autoscalingv2.HorizontalPodAutoscaler) error {
	*out = autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: in.ObjectMeta}
	out.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference(in.Spec.ScaleTargetRef),
		MinReplicas:    in.Spec.MinReplicas,
		MaxReplicas:    in.Spec.MaxReplicas,
	}
	out.Status = autoscalingv2.HorizontalPodAutoscalerStatus{
		ObservedGeneration: in.Status.ObservedGeneration,
		LastScaleTime:      in.Status.LastScaleTime,
		CurrentReplicas:    in.Status.CurrentReplicas,
		DesiredReplicas:    in.Status.DesiredReplicas,
	}
	if metrics, ok := decode[[]autoscalingv1.MetricSpec](in, metricsAnnotation); ok {
		for i := range metrics {
			out.Spec.Metrics = append(out.Spec.Metrics, metricToV2(&metrics[i]))
		}
	}
	if percent := in.Spec.TargetCPUUtilizationPercentage; percent != nil {
		out.Spec.Metrics = append(out.Spec.Metrics, cpuUtilization(*percent))
	}
	if len(out.Spec.Metrics) == 0 {
		out.Spec.Metrics = []autoscalingv2.MetricSpec{cpuUtilization(80)}
	}
	out.Spec.Behavior, _ = decode[*autoscalingv2.HorizontalPodAutoscalerBehavior](in, behaviorAnnotation)
	if metrics, ok := decode[[]autoscalingv1.MetricStatus](in, currentMetricsAnnotation); ok {
		for i := range metrics {
			out.Status.CurrentMetrics = append(out.Status.CurrentMetrics, statusToV2(&metrics[i]))
		}
	} else if percent := in.Status.CurrentCPUUtilizationPercentage; percent != nil {
		out.Status.CurrentMetrics = []autoscalingv2.MetricStatus{{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricStatus{
				Name: corev1.ResourceCPU, Current: autoscalingv2.MetricValueStatus{AverageUtilization: percent},
			},
		}}
	}
	conditions, _ := decode[[]autoscalingv1.HorizontalPodAutoscalerCondition](in, conditionsAnnotation)
	for _, c := range conditions {
		out.Status.Conditions = append(out.Status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{
			Type: autoscalingv2.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
		})
	}
	out.Annotations = withoutAnnotations(in.Annotations)
	return nil
}

// FromV2 converts an autoscaler to autoscaling/v1. The two share what they point to.
func FromV2(in *autoscalingv2.HorizontalPodAutoscaler, out *autoscalingv1.HorizontalPodAutoscaler) error {
	*out = autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: in.ObjectMeta}
	out.Spec = autoscalingv1.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(in.Spec.ScaleTargetRef),
		MinReplicas:    in.Spec.MinReplicas,
		MaxReplicas:    in.Spec.MaxReplicas,
	}
	out.Status = autoscalingv1.HorizontalPodAutoscalerStatus{
		ObservedGeneration: in.Status.ObservedGeneration,
		LastScaleTime:      in.Status.LastScaleTime,
		CurrentReplicas:    in.Status.CurrentReplicas,
		DesiredReplicas:    in.Status.DesiredReplicas,
	}
	var others []autoscalingv1.MetricSpec
	for i := range in.Spec.Metrics {
		m := &in.Spec.Metrics[i]
		if m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && m.Resource.Target.AverageUtilization != nil {
			rules.SetPtr(&out.Spec.TargetCPUUtilizationPercentage, *m.Resource.Target.AverageUtilization) // the first has it
			continue
		}
		others = append(others, metricFromV2(m))
	}
	var current []autoscalingv1.MetricStatus
	for i := range in.Status.CurrentMetrics {
		m := &in.Status.CurrentMetrics[i]
		if m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil && m.Resource.Name == corev1.ResourceCPU {
			out.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization
		}
		current = append(current, statusFromV2(m))
	}
	var conditions []autoscalingv1.HorizontalPodAutoscalerCondition
	for _, c := range in.Status.Conditions {
		conditions = append(conditions, autoscalingv1.HorizontalPodAutoscalerCondition{
			Type: autoscalingv1.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
		})
	}
	out.Annotations = withoutAnnotations(in.Annotations)
	for key, value := range map[string]any{
		metricsAnnotation: others, currentMetricsAnnotation: current, conditionsAnnotation: conditions, behaviorAnnotation: annotatedBehavior(in.Spec.Behavior),
	} {
		if err := encode(out, key, value); err != nil {
			return err
		}
	}
	return nil
}

// withoutAnnotations returns a copy without those that stand for fields.
func withoutAnnotations(annotations map[string]string) map[string]string {
	if annotations == nil {
		return nil
	}
	rest := maps.Clone(annotations)
	maps.DeleteFunc(rest, isAnnotation)
	return rest
}

func decode[T any](a *autoscalingv1.HorizontalPodAutoscaler, key string) (value T, ok bool) {
	text, ok := a.Annotations[key]
	if !ok {
		return value, false
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		var none T
		return none, false
	}
	return value, true
}

// encode annotates a with a value that is not empty.
func encode(a *autoscalingv1.HorizontalPodAutoscaler, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding the annotation %s: %w", key, err)
	}
	if string(data) == "null" {
		return nil
	}
	if a.Annotations == nil {
		a.Annotations = map[string]string{}
	}
	a.Annotations[key] = string(data)
	return nil
}

// behavior is a behavior as its annotation shows it: in these names, nothing left out.
type behavior struct{ ScaleUp, ScaleDown *scalingRules }

type scalingRules struct {
	StabilizationWindowSeconds *int32
	SelectPolicy               *autoscalingv2.ScalingPolicySelect
	Policies                   []scalingPolicy
	Tolerance                  *resource.Quantity
}

type scalingPolicy struct {
	Type                 autoscalingv2.HPAScalingPolicyType
	Value, PeriodSeconds int32
}

func annotatedBehavior(b *autoscalingv2.HorizontalPodAutoscalerBehavior) *behavior {
	if b == nil {
		return nil
	}
	scaling := func(r *autoscalingv2.HPAScalingRules) *scalingRules {
		if r == nil {
			return nil
		}
		s := &scalingRules{StabilizationWindowSeconds: r.StabilizationWindowSeconds, SelectPolicy: r.SelectPolicy, Tolerance: r.Tolerance}
		for _, p := range r.Policies {
			s.Policies = append(s.Policies, scalingPolicy(p))
		}
		return s
	}
	return &behavior{ScaleUp: scaling(b.ScaleUp), ScaleDown: scaling(b.ScaleDown)}
}
