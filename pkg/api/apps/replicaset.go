package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

func setReplicaSet(r *appsv1.ReplicaSet) {
	rules.SetPtr(&r.Spec.Replicas, 1)
	core.SetDefaultsPodTemplateSpec(&r.Spec.Template)
}

// ValidateReplicaSet says what is wrong with a new ReplicaSet.
func ValidateReplicaSet(r *appsv1.ReplicaSet) field.ErrorList {
	errs := rules.Namespaced(&r.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, validateReplicaSetSpec(&r.Spec)...)
}

// ValidateReplicaSetUpdate says what is wrong with an update of a ReplicaSet.
func ValidateReplicaSetUpdate(r, old *appsv1.ReplicaSet) field.ErrorList {
	errs := rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateReplicaSetSpec(&r.Spec)...)
	return append(errs, rules.Immutable(r.Spec.Selector, old.Spec.Selector, selectorPath)...)
}

func validateReplicaSetSpec(spec *appsv1.ReplicaSetSpec) field.ErrorList {
	errs := rules.NonNegativePtr(spec.Replicas, specPath.Child("replicas"))
	errs = append(errs, rules.NonNegative(spec.MinReadySeconds, specPath.Child("minReadySeconds"))...)
	selector, selectorErrs := validateSelector(spec.Selector)
	errs = append(errs, selectorErrs...)
	return append(errs, validateRunsForever(&spec.Template, selector, "ReplicaSet")...)
}

// ValidateReplicaSetStatusUpdate says what is wrong with an update of the status of a ReplicaSet.
func ValidateReplicaSetStatusUpdate(r, old *appsv1.ReplicaSet) field.ErrorList {
	errs := rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	s := &r.Status
	labeled, ready, available := counter{"fullyLabeledReplicas", s.FullyLabeledReplicas}, counter{"readyReplicas", s.ReadyReplicas}, counter{"availableReplicas", s.AvailableReplicas}
	errs = append(errs, validateCounters(counter{"replicas", s.Replicas}, labeled, ready, available)...)
	errs = append(errs, rules.NonNegativePtr(s.TerminatingReplicas, statusPath.Child("terminatingReplicas"))...)
	errs = append(errs, rules.NonNegative(s.ObservedGeneration, statusPath.Child("observedGeneration"))...)
	errs = append(errs, validateAtMost(s.Replicas, "status.replicas", labeled, ready, available)...)
	return append(errs, validateAtMost(s.ReadyReplicas, "readyReplicas", available)...)
}
