package apps

import (
	"cmp"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

func setDeployment(d *appsv1.Deployment) {
	rules.SetPtr(&d.Spec.Replicas, 1)
	rules.SetPtr(&d.Spec.RevisionHistoryLimit, 10)
	rules.SetPtr(&d.Spec.ProgressDeadlineSeconds, 600)
	strategy := &d.Spec.Strategy
	strategy.Type = cmp.Or(strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		rules.SetPtr(&strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		rules.SetPtr(&strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		rules.SetPtr(&strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	core.SetDefaultsPodTemplateSpec(&d.Spec.Template)
}

// ValidateDeployment says what is wrong with a new Deployment.
func ValidateDeployment(d *appsv1.Deployment) field.ErrorList {
	errs := rules.Namespaced(&d.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, validateDeploymentSpec(&d.Spec)...)
}

// ValidateDeploymentUpdate says what is wrong with an update of a Deployment.
func ValidateDeploymentUpdate(d, old *appsv1.Deployment) field.ErrorList {
	errs := rules.MetaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateDeploymentSpec(&d.Spec)...)
	return append(errs, rules.Immutable(d.Spec.Selector, old.Spec.Selector, selectorPath)...)
}

func validateDeploymentSpec(spec *appsv1.DeploymentSpec) field.ErrorList {
	errs := rules.NonNegativePtr(spec.Replicas, specPath.Child("replicas"))
	selector, selectorErrs := validateSelector(spec.Selector)
	errs = append(errs, selectorErrs...)
	errs = append(errs, validateRunsForever(&spec.Template, selector, "ReplicaSet")...)
	errs = append(errs, validateDeploymentStrategy(&spec.Strategy)...)
	errs = append(errs, rules.NonNegative(spec.MinReadySeconds, specPath.Child("minReadySeconds"))...)
	errs = append(errs, rules.NonNegativePtr(spec.RevisionHistoryLimit, specPath.Child("revisionHistoryLimit"))...)
	if deadline := spec.ProgressDeadlineSeconds; deadline != nil {
		p := specPath.Child("progressDeadlineSeconds")
		errs = append(errs, rules.NonNegative(*deadline, p)...)
		if *deadline <= spec.MinReadySeconds {
			errs = append(errs, field.Invalid(p, *deadline, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateDeploymentStrategy(s *appsv1.DeploymentStrategy) field.ErrorList {
	p := specPath.Child("strategy")
	rolling := p.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "this should be defaulted and never be nil")}
		}
	default:
		return field.ErrorList{field.NotSupported(p, s, []appsv1.DeploymentStrategyType{
			appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType,
		})}
	}
	unavailable, surge := s.RollingUpdate.MaxUnavailable, s.RollingUpdate.MaxSurge
	var errs field.ErrorList
	if unavailable != nil {
		errs = append(errs, rules.CountOrPercent(*unavailable, rolling.Child("maxUnavailable"))...)
	}
	if surge != nil {
		errs = append(errs, rules.CountOrPercent(*surge, rolling.Child("maxSurge"))...)
	}
	if rules.IsZero(unavailable) && rules.IsZero(surge) {
		errs = append(errs, field.Invalid(rolling.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	if unavailable != nil {
		errs = append(errs, rules.AtMost100Percent(*unavailable, rolling.Child("maxUnavailable"))...)
	}
	return errs
}

// ValidateDeploymentStatusUpdate says what is wrong with an update of the status of a Deployment.
func ValidateDeploymentStatusUpdate(d, old *appsv1.Deployment) field.ErrorList {
	errs := rules.MetaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	s, was := &d.Status, &old.Status
	updated, ready, available := counter{"updatedReplicas", s.UpdatedReplicas}, counter{"readyReplicas", s.ReadyReplicas}, counter{"availableReplicas", s.AvailableReplicas}
	errs = append(errs, rules.NonNegative(s.ObservedGeneration, statusPath.Child("observedGeneration"))...)
	errs = append(errs, validateCounters(counter{"replicas", s.Replicas}, updated, ready, available, counter{"unavailableReplicas", s.UnavailableReplicas})...)
	errs = append(errs, rules.NonNegativePtr(s.TerminatingReplicas, statusPath.Child("terminatingReplicas"))...)
	errs = append(errs, rules.NonNegativePtr(s.CollisionCount, statusPath.Child("collisionCount"))...)
	errs = append(errs, validateAtMost(s.Replicas, "status.replicas", updated, ready, available)...)
	errs = append(errs, validateAtMost(s.ReadyReplicas, "readyReplicas", available)...)
	return append(errs, validateCollisionCount(s.CollisionCount, was.CollisionCount)...)
}

// validateCollisionCount lets a count grow only: names made with it must not return.
func validateCollisionCount(count, old *int32) field.ErrorList {
	if old == nil || count != nil && *count >= *old {
		return nil
	}
	return field.ErrorList{field.Invalid(statusPath.Child("collisionCount"), ptr.Deref(count, 0), "cannot be decremented")}
}
