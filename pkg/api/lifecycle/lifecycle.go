package lifecycle

import (
	"context"
	"fmt"
	"time"

	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// maxResponders is one more than those of a pod: the last is Kubernetes' own.
const maxResponders = 11

var (
	specPath       = field.NewPath("spec")
	statusPath     = field.NewPath("status")
	conditionsPath = statusPath.Child("conditions")
)

// ValidateEvictionRequest says what is wrong with a new EvictionRequest.
func ValidateEvictionRequest(r *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
	return append(rules.NamespacedLongName(&r.ObjectMeta), rules.Declared(Validate_EvictionRequestSpec, specPath, &r.Spec, nil, nil)...)
}

// ValidateEvictionRequestUpdate says what is wrong with an update of an EvictionRequest.
func ValidateEvictionRequestUpdate(r, old *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
	return append(rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta), rules.Declared(Validate_EvictionRequestSpec, specPath, &r.Spec, &old.Spec, nil)...)
}

// ValidateEvictionRequestStatusUpdate says what is wrong with an update of the status of an EvictionRequest.
func ValidateEvictionRequestStatusUpdate(r, old *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
	errs := append(rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta), metavalidation.ValidateConditions(r.Status.Conditions, conditionsPath)...)
	return append(errs, rules.Declared(Validate_EvictionRequestStatus, statusPath, &r.Status, &old.Status, nil)...)
}

// ValidateEviction says what is wrong with a new Eviction.
func ValidateEviction(e *lifecyclev1alpha1.Eviction) field.ErrorList {
	return append(rules.NamespacedLongName(&e.ObjectMeta), rules.Declared(Validate_EvictionSpec, specPath, &e.Spec, nil, nil)...)
}

// ValidateEvictionUpdate says what is wrong with an update of an Eviction.
func ValidateEvictionUpdate(e, old *lifecyclev1alpha1.Eviction) field.ErrorList {
	return append(rules.MetaUpdate(&e.ObjectMeta, &old.ObjectMeta), rules.Declared(Validate_EvictionSpec, specPath, &e.Spec, &old.Spec, nil)...)
}

// ValidateEvictionStatusUpdate says what is wrong with an update of the status of an Eviction.
func ValidateEvictionStatusUpdate(e, old *lifecyclev1alpha1.Eviction, now time.Time) field.ErrorList {
	s, was := &e.Status, &old.Status
	errs := append(rules.MetaUpdate(&e.ObjectMeta, &old.ObjectMeta), metavalidation.ValidateConditions(s.Conditions, conditionsPath)...)
	evicted, reverted := happened(lifecyclev1alpha1.EvictionConditionTargetEvicted, s.Conditions, was.Conditions)
	errs = append(errs, reverted...)
	failed, reverted := happened(lifecyclev1alpha1.EvictionConditionFailed, s.Conditions, was.Conditions)
	errs = append(errs, reverted...)
	errs = append(errs, validateTargetResponders(s, was, evicted || failed, now)...)
	errs = append(errs, validateResponderStatuses(s, was, now)...)
	return append(errs, rules.Declared(Validate_EvictionStatus, statusPath, s, was, nil)...)
}

// happened tells whether a condition without return is true, or was and is taken back, which is wrong.
func happened(kind lifecyclev1alpha1.EvictionConditionType, conditions, old []metav1.Condition) (bool, field.ErrorList) {
	is, was := meta.FindStatusCondition(conditions, string(kind)), meta.FindStatusCondition(old, string(kind))
	if was != nil && was.Status == metav1.ConditionTrue && (is == nil || is.Status == metav1.ConditionFalse || is.Reason != was.Reason) {
		return true, field.ErrorList{field.Invalid(conditionsPath, conditions, fmt.Sprintf("%s condition status cannot be reverted", kind))}
	}
	return is != nil && is.Status == metav1.ConditionTrue, nil
}

func targetResponderName(r *lifecyclev1alpha1.TargetResponder) string { return r.Name }
func responderName(r *lifecyclev1alpha1.ResponderStatus) string       { return r.Name }

// ValidateCustom_EvictionRequestSpec_Requester says that the domains of Kubernetes' own responders are no requester's.
func ValidateCustom_EvictionRequestSpec_Requester(_ context.Context, _ operation.Operation, p *field.Path, name, _ *string) field.ErrorList {
	return rules.NotReserved(*name, p, ".k8s.io", ".kubernetes.io")
}
