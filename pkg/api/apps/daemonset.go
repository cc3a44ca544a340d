package apps

import (
	"cmp"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

func setDaemonSet(d *appsv1.DaemonSet) {
	// Whoever creates a DaemonSet owns the annotation, by which early clients count changes of the template.
	if _, ok := d.Annotations[appsv1.DeprecatedTemplateGeneration]; !ok {
		annotations := map[string]string{appsv1.DeprecatedTemplateGeneration: "0"}
		maps.Copy(annotations, d.Annotations)
		d.Annotations = annotations
	}
	rules.SetPtr(&d.Spec.RevisionHistoryLimit, 10)
	strategy := &d.Spec.UpdateStrategy
	strategy.Type = cmp.Or(strategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if strategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		rules.SetPtr(&strategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		rules.SetPtr(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		rules.SetPtr(&strategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	core.SetDefaultsPodTemplateSpec(&d.Spec.Template)
}

// ValidateDaemonSet says what is wrong with a new DaemonSet.
func ValidateDaemonSet(d *appsv1.DaemonSet) field.ErrorList {
	errs := rules.Namespaced(&d.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, validateDaemonSetSpec(&d.Spec)...)
}

// ValidateDaemonSetUpdate says what is wrong with an update of a DaemonSet.
func ValidateDaemonSetUpdate(d, old *appsv1.DaemonSet) field.ErrorList {
	errs := rules.MetaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateDaemonSetSpec(&d.Spec)...)
	return append(errs, rules.Immutable(d.Spec.Selector, old.Spec.Selector, selectorPath)...)
}

func validateDaemonSetSpec(spec *appsv1.DaemonSetSpec) field.ErrorList {
	errs := rules.LabelSelector(spec.Selector, selectorPath)
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil {
		errs = append(errs, validateSelected(&spec.Template, selector)...)
	}
	if s := spec.Selector; s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(selectorPath, s, "empty selector is invalid for daemonset"))
	}
	errs = append(errs, core.ValidatePodTemplateSpec(&spec.Template, templatePath)...)
	errs = append(errs, validateNeverEnds(&spec.Template, "DaemonSet")...)
	errs = append(errs, rules.NonNegative(spec.MinReadySeconds, specPath.Child("minReadySeconds"))...)
	errs = append(errs, validateDaemonSetStrategy(&spec.UpdateStrategy)...)
	return append(errs, rules.NonNegativePtr(spec.RevisionHistoryLimit, specPath.Child("revisionHistoryLimit"))...)
}

func validateDaemonSetStrategy(s *appsv1.DaemonSetUpdateStrategy) field.ErrorList {
	p := specPath.Child("updateStrategy")
	rolling := p.Child("rollingUpdate")
	switch s.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "")}
		}
	default:
		return field.ErrorList{field.NotSupported(p, s, []appsv1.DaemonSetUpdateStrategyType{
			appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType,
		})}
	}
	unavailable, surge := s.RollingUpdate.MaxUnavailable, s.RollingUpdate.MaxSurge
	hasUnavailable, hasSurge := !rules.IsZero(unavailable), !rules.IsZero(surge)
	var errs field.ErrorList
	check := func(v *intstr.IntOrString, p *field.Path) {
		if v != nil {
			errs = append(errs, rules.CountOrPercent(*v, p)...)
			errs = append(errs, rules.AtMost100Percent(*v, p)...)
		}
	}
	check(unavailable, rolling.Child("maxUnavailable"))
	check(surge, rolling.Child("maxSurge"))
	switch {
	case hasUnavailable && hasSurge:
		errs = append(errs, field.Invalid(rolling.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !hasUnavailable && !hasSurge:
		errs = append(errs, field.Required(rolling.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

// ValidateDaemonSetStatusUpdate says what is wrong with an update of the status of a DaemonSet.
func ValidateDaemonSetStatusUpdate(d, old *appsv1.DaemonSet) field.ErrorList {
	errs := rules.MetaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	s := &d.Status
	errs = append(errs, validateCounters(
		counter{"currentNumberScheduled", s.CurrentNumberScheduled},
		counter{"numberMisscheduled", s.NumberMisscheduled},
		counter{"desiredNumberScheduled", s.DesiredNumberScheduled},
		counter{"numberReady", s.NumberReady},
		counter{"updatedNumberScheduled", s.UpdatedNumberScheduled},
		counter{"numberAvailable", s.NumberAvailable},
		counter{"numberUnavailable", s.NumberUnavailable},
	)...)
	errs = append(errs, rules.NonNegative(s.ObservedGeneration, statusPath.Child("observedGeneration"))...)
	errs = append(errs, rules.NonNegativePtr(s.CollisionCount, statusPath.Child("collisionCount"))...)
	return append(errs, validateCollisionCount(s.CollisionCount, old.Status.CollisionCount)...)
}
