package autoscaling

import (
	"fmt"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	maxStabilizationSeconds = 3600
	maxPeriodSeconds        = 1800
)

// ValidateHorizontalPodAutoscaler says what is wrong with a new HorizontalPodAutoscaler.
func ValidateHorizontalPodAutoscaler(a *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	errs := rules.Namespaced(&a.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, validateTargetGroup(&a.Spec.ScaleTargetRef)...)
	return append(errs, validateSpec(&a.Spec)...)
}

// ValidateHorizontalPodAutoscalerUpdate says what is wrong with an update of a HorizontalPodAutoscaler.
func ValidateHorizontalPodAutoscalerUpdate(a, old *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	errs := rules.MetaUpdate(&a.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateSpec(&a.Spec)...)
	if a.Spec.ScaleTargetRef.APIVersion != old.Spec.ScaleTargetRef.APIVersion {
		errs = append(errs, validateTargetGroup(&a.Spec.ScaleTargetRef)...)
	}
	return errs
}

// ValidateHorizontalPodAutoscalerStatusUpdate says what is wrong with an update of the status of a HorizontalPodAutoscaler.
func ValidateHorizontalPodAutoscalerStatusUpdate(a, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	p := field.NewPath("status")
	errs := rules.NonNegative(a.Status.CurrentReplicas, p.Child("currentReplicas"))
	return append(errs, rules.NonNegative(a.Status.DesiredReplicas, p.Child("desiredReplicas"))...)
}

var specPath = field.NewPath("spec")

// validateTargetGroup wants to know the group of what is scaled, which older clients did not say.
func validateTargetGroup(ref *autoscalingv2.CrossVersionObjectReference) field.ErrorList {
	p := specPath.Child("scaleTargetRef", "apiVersion")
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return field.ErrorList{field.Invalid(p, ref.APIVersion, err.Error())}
	}
	if gv.Group == "" && ref.Kind != "ReplicationController" {
		return field.ErrorList{field.Invalid(p, ref.APIVersion, "apiVersion must specify API group")}
	}
	return nil
}

func validateSpec(spec *autoscalingv2.HorizontalPodAutoscalerSpec) field.ErrorList {
	errs := validateReference(&spec.ScaleTargetRef, specPath.Child("scaleTargetRef"))
	p := specPath.Child("minReplicas")
	if m := spec.MinReplicas; m != nil && *m < 0 {
		errs = append(errs, field.Invalid(p, *m, "must be greater than or equal to 0"))
	}
	if m := spec.MinReplicas; m != nil && *m == 0 && !slices.ContainsFunc(spec.Metrics, seenFromOutside) {
		errs = append(errs, field.Forbidden(specPath.Child("metrics"), "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	p = specPath.Child("maxReplicas")
	switch m := spec.MaxReplicas; {
	case m == 0:
		errs = append(errs, field.Required(p, ""))
	case m < 1:
		errs = append(errs, field.Invalid(p, m, "must be greater than or equal to 1"))
	}
	if m := spec.MinReplicas; m != nil && spec.MaxReplicas < *m {
		errs = append(errs, field.Invalid(p, spec.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, rules.Each(spec.Metrics, specPath.Child("metrics"), validateMetric)...)
	if b := spec.Behavior; b != nil {
		errs = append(errs, validateScaling(b.ScaleUp, specPath.Child("behavior", "scaleUp"))...)
		errs = append(errs, validateScaling(b.ScaleDown, specPath.Child("behavior", "scaleDown"))...)
	}
	return errs
}

// seenFromOutside reports whether a metric has a value when no pod runs.
func seenFromOutside(m autoscalingv2.MetricSpec) bool {
	return m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
}

func validateReference(ref *autoscalingv2.CrossVersionObjectReference, p *field.Path) field.ErrorList {
	errs := validatePathSegment(ref.Kind, p.Child("kind"), "")
	return append(errs, validatePathSegment(ref.Name, p.Child("name"), "")...)
}

func validatePathSegment(value string, p *field.Path, missing string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(p, missing)}
	}
	return rules.Messages(p, value, path.IsValidPathSegmentName(value))
}

func validateScaling(r *autoscalingv2.HPAScalingRules, p *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if s := r.StabilizationWindowSeconds; s != nil && *s < 0 {
		errs = append(errs, field.Invalid(p.Child("stabilizationWindowSeconds"), *s, "must be greater than or equal to zero"))
	} else if s != nil && *s > maxStabilizationSeconds {
		errs = append(errs, field.Invalid(p.Child("stabilizationWindowSeconds"), *s, fmt.Sprintf("must be less than or equal to %d", maxStabilizationSeconds)))
	}
	if s := r.SelectPolicy; s != nil {
		errs = append(errs, rules.OneOf(*s, p.Child("selectPolicy"),
			autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)...)
	}
	if t := r.Tolerance; t != nil && t.Sign() < 0 {
		errs = append(errs, field.Invalid(p.Child("tolerance"), t.String(), "must be greater than or equal to 0"))
	}
	if len(r.Policies) == 0 {
		return append(errs, field.Required(p.Child("policies"), "must specify at least one Policy"))
	}
	for i, policy := range r.Policies {
		at := p.Child("policies").Index(i)
		errs = append(errs, rules.OneOf(policy.Type, at.Child("type"), autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)...)
		if policy.Value <= 0 {
			errs = append(errs, field.Invalid(at.Child("value"), policy.Value, "must be greater than zero"))
		}
		if s := policy.PeriodSeconds; s <= 0 {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), s, "must be greater than zero"))
		} else if s > maxPeriodSeconds {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), s, fmt.Sprintf("must be less than or equal to %d", maxPeriodSeconds)))
		}
	}
	return errs
}

func validateMetric(m *autoscalingv2.MetricSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.Type == "" {
		errs = append(errs, field.Required(p.Child("type"), "must specify a metric source type"))
	}
	errs = append(errs, rules.OneOf(m.Type, p.Child("type"), autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType,
		autoscalingv2.ObjectMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType)...)
	errs = append(errs, validateUnion(m, p)...)
	// Of several sources only the first is looked into.
	switch {
	case m.Object != nil:
		errs = append(errs, validateObject(m.Object, p.Child("object"))...)
	case m.External != nil:
		errs = append(errs, validateExternal(m.External, p.Child("external"))...)
	case m.Pods != nil:
		s := m.Pods
		errs = append(errs, validateIdentifier(&s.Metric, p.Child("pods", "metric"))...)
		errs = append(errs, validateTarget(&s.Target, p.Child("pods", "target"))...)
		if s.Target.AverageValue == nil {
			errs = append(errs, field.Required(p.Child("pods", "target", "averageValue"), "must specify a positive target averageValue"))
		}
	case m.Resource != nil:
		errs = append(errs, validateResource(string(m.Resource.Name), &m.Resource.Target, p.Child("resource"))...)
	case m.ContainerResource != nil:
		errs = append(errs, validateContainerResource(m.ContainerResource, p.Child("containerResource"))...)
	}
	return errs
}

func validateContainerResource(r *autoscalingv2.ContainerResourceMetricSource, p *field.Path) field.ErrorList {
	errs := validateResource(string(r.Name), &r.Target, p)
	if r.Name != "" {
		errs = append(errs, core.ValidateContainerResourceName(r.Name, p.Child("name"))...)
	}
	if r.Container == "" {
		return append(errs, field.Required(p.Child("container"), "must specify a container"))
	}
	return append(errs, rules.Messages(p.Child("container"), r.Container, validation.IsDNS1123Label(r.Container))...)
}

// validateUnion wants the member that belongs to the type, and no other.
func validateUnion(m *autoscalingv2.MetricSpec, p *field.Path) field.ErrorList {
	members := []struct {
		kind  autoscalingv2.MetricSourceType
		name  string
		given bool
	}{
		{autoscalingv2.ObjectMetricSourceType, "object", m.Object != nil},
		{autoscalingv2.PodsMetricSourceType, "pods", m.Pods != nil},
		{autoscalingv2.ResourceMetricSourceType, "resource", m.Resource != nil},
		{autoscalingv2.ContainerResourceMetricSourceType, "containerResource", m.ContainerResource != nil},
		{autoscalingv2.ExternalMetricSourceType, "external", m.External != nil},
	}
	var errs, others field.ErrorList
	given := 0
	for _, member := range members {
		if member.given {
			given++
		}
		if member.kind == m.Type && !member.given {
			errs = append(errs, field.Required(p.Child(member.name), "must populate information for the given metric source"))
		}
		if member.kind != m.Type && member.given {
			others = append(others, field.Forbidden(p.Child(member.name), "must populate the given metric source only"))
		}
	}
	if given > 1 {
		errs = append(errs, others...)
	}
	return errs
}

func validateIdentifier(m *autoscalingv2.MetricIdentifier, p *field.Path) field.ErrorList {
	return validatePathSegment(m.Name, p.Child("name"), "must specify a metric name")
}

func validateTarget(t *autoscalingv2.MetricTarget, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Type == "" {
		errs = append(errs, field.Required(p.Child("type"), "must specify a metric target type"))
	}
	switch t.Type {
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	default:
		errs = append(errs, field.Invalid(p.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	positive := func(q *resource.Quantity, name string) {
		if q != nil && q.Sign() <= 0 {
			errs = append(errs, field.Invalid(p.Child(name), q.String(), "must be positive"))
		}
	}
	positive(t.Value, "value")
	positive(t.AverageValue, "averageValue")
	if u := t.AverageUtilization; u != nil && *u < 1 {
		errs = append(errs, field.Invalid(p.Child("averageUtilization"), *u, "must be greater than 0"))
	}
	return errs
}

func validateObject(o *autoscalingv2.ObjectMetricSource, p *field.Path) field.ErrorList {
	errs := validateReference(&o.DescribedObject, p.Child("describedObject"))
	if _, err := schema.ParseGroupVersion(o.DescribedObject.APIVersion); err != nil {
		errs = append(errs, field.Invalid(p.Child("describedObject", "apiVersion"), o.DescribedObject.APIVersion, err.Error()))
	}
	errs = append(errs, validateIdentifier(&o.Metric, p.Child("metric"))...)
	errs = append(errs, validateTarget(&o.Target, p.Child("target"))...)
	if o.Target.Value == nil && o.Target.AverageValue == nil {
		errs = append(errs, field.Required(p.Child("target", "averageValue"), "must set either a target value or averageValue"))
	}
	return errs
}

func validateResource(name string, t *autoscalingv2.MetricTarget, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(p.Child("name"), "must specify a resource name"))
	}
	p = p.Child("target")
	errs = append(errs, validateTarget(t, p)...)
	switch {
	case t.AverageUtilization == nil && t.AverageValue == nil:
		errs = append(errs, field.Required(p.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	case t.AverageUtilization != nil && t.AverageValue != nil:
		errs = append(errs, field.Forbidden(p.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func validateExternal(e *autoscalingv2.ExternalMetricSource, p *field.Path) field.ErrorList {
	errs := validateIdentifier(&e.Metric, p.Child("metric"))
	p = p.Child("target")
	errs = append(errs, validateTarget(&e.Target, p)...)
	switch {
	case e.Target.Value == nil && e.Target.AverageValue == nil:
		errs = append(errs, field.Required(p.Child("averageValue"), "must set either a target value for metric or a per-pod target"))
	case e.Target.Value != nil && e.Target.AverageValue != nil:
		errs = append(errs, field.Forbidden(p.Child("value"), "may not set both a target value for metric and a per-pod target"))
	}
	return errs
}
