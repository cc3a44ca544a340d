// Package lifecycle knows what is true of the kinds of lifecycle.k8s.io wherever they are
// handled: what makes them invalid (the Validate functions).
//
//	lifecycle.go   EvictionRequests, Evictions, and what their fields may be
//	responders.go  what an update of an Eviction's status may do to its responders
package lifecycle

import (
	"context"
	"fmt"
	"time"

	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	maxConditions = 100
	maxRequesters = 100
	maxMessage    = 4000
	maxPriority   = 100_000
	// maxResponders is one more than those of a pod: the last is Kubernetes' own.
	maxResponders = 11
)

var (
	specPath   = field.NewPath("spec")
	statusPath = field.NewPath("status")
	targetPath = specPath.Child("target")

	update = operation.Operation{Type: operation.Update}
)

// ValidateEvictionRequest says what is wrong with a new EvictionRequest.
func ValidateEvictionRequest(r *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
	s := &r.Spec
	errs := append(rules.NamespacedLongName(&r.ObjectMeta), validateTarget((*lifecyclev1alpha1.EvictionPodReference)(s.Target.Pod))...)
	requester := specPath.Child("requester")
	errs = append(errs, validateName(s.Requester, requester)...)
	errs = append(errs, rules.NotReserved(s.Requester, requester, ".k8s.io", ".kubernetes.io")...)
	return append(errs, validateIntent(s.Intent)...)
}

// ValidateEvictionRequestUpdate says what is wrong with an update of an EvictionRequest.
func ValidateEvictionRequestUpdate(r, old *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
	s := &r.Spec
	errs := append(rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta), rules.Fixed(s.Target, old.Spec.Target, targetPath)...)
	requester := specPath.Child("requester")
	errs = append(errs, rules.Fixed(s.Requester, old.Spec.Requester, requester)...)
	if s.Requester == "" {
		errs = append(errs, field.Required(requester, ""))
	}
	return append(errs, validateIntent(s.Intent)...)
}

func validateIntent(intent lifecyclev1alpha1.EvictionRequestIntent) field.ErrorList {
	return oneOf(intent, specPath.Child("intent"), lifecyclev1alpha1.EvictionRequestIntentEviction, lifecyclev1alpha1.EvictionRequestIntentWithdrawn)
}

// ValidateEvictionRequestStatusUpdate says what is wrong with an update of the status of an EvictionRequest.
func ValidateEvictionRequestStatusUpdate(r, old *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
	s, was := &r.Status, &old.Status
	errs := append(rules.MetaUpdate(&r.ObjectMeta, &old.ObjectMeta), validateConditions(s.Conditions, was.Conditions)...)
	return append(errs, validateObserved(s.ObservedGeneration, was.ObservedGeneration)...)
}

// ValidateEviction says what is wrong with a new Eviction.
func ValidateEviction(e *lifecyclev1alpha1.Eviction) field.ErrorList {
	return append(rules.NamespacedLongName(&e.ObjectMeta), validateTarget(e.Spec.Target.Pod)...)
}

// ValidateEvictionUpdate says what is wrong with an update of an Eviction.
func ValidateEvictionUpdate(e, old *lifecyclev1alpha1.Eviction) field.ErrorList {
	return append(rules.MetaUpdate(&e.ObjectMeta, &old.ObjectMeta), rules.Fixed(e.Spec.Target, old.Spec.Target, targetPath)...)
}

// ValidateEvictionStatusUpdate says what is wrong with an update of the status of an Eviction.
func ValidateEvictionStatusUpdate(e, old *lifecyclev1alpha1.Eviction, now time.Time) field.ErrorList {
	s, was := &e.Status, &old.Status
	errs := append(rules.MetaUpdate(&e.ObjectMeta, &old.ObjectMeta), validateConditions(s.Conditions, was.Conditions)...)
	evicted, reverted := happened(lifecyclev1alpha1.EvictionConditionTargetEvicted, s.Conditions, was.Conditions)
	errs = append(errs, reverted...)
	failed, reverted := happened(lifecyclev1alpha1.EvictionConditionFailed, s.Conditions, was.Conditions)
	errs = append(errs, reverted...)
	errs = append(errs, validateTargetResponders(s, was, evicted || failed, now)...)
	errs = append(errs, validateResponderStatuses(s, was, now)...)

	errs = append(errs, validateObserved(s.ObservedGeneration, was.ObservedGeneration)...)
	errs = append(errs, validateItems(s.Requesters, was.Requesters, statusPath.Child("requesters"), maxRequesters, requesterName, validateRequester)...)
	errs = append(errs, validateItems(s.TargetResponders, was.TargetResponders, targetRespondersPath, maxResponders, targetResponderName, validateTargetResponder)...)
	return append(errs, validateItems(s.Responders, was.Responders, respondersPath, maxResponders, responderName, validateResponder)...)
}

// happened tells whether a condition without return is true, or was and is taken back, which is wrong.
func happened(kind lifecyclev1alpha1.EvictionConditionType, conditions, old []metav1.Condition) (bool, field.ErrorList) {
	is, was := meta.FindStatusCondition(conditions, string(kind)), meta.FindStatusCondition(old, string(kind))
	if was != nil && was.Status == metav1.ConditionTrue && (is == nil || is.Status == metav1.ConditionFalse || is.Reason != was.Reason) {
		return true, field.ErrorList{field.Invalid(statusPath.Child("conditions"), conditions, fmt.Sprintf("%s condition status cannot be reverted", kind))}
	}
	return is != nil && is.Status == metav1.ConditionTrue, nil
}

func validateTarget(pod *lifecyclev1alpha1.EvictionPodReference) field.ErrorList {
	if pod == nil {
		return field.ErrorList{field.Invalid(targetPath, "", "must specify one of: `pod`")}
	}
	name, uid := targetPath.Child("pod", "name"), targetPath.Child("pod", "uid")
	return append(required(pod.Name, name, validate.LongName[string]), required(pod.UID, uid, validate.UUID[types.UID])...)
}

// validateName wants a name such as "example.com/drainer".
func validateName(name string, p *field.Path) field.ErrorList {
	return required(name, p, validate.PrefixedLabelKey[string])
}

func required[T ~string](value T, p *field.Path, check validate.ValidateFunc[*T]) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	return check(context.Background(), update, p, &value, nil)
}

func oneOf[T ~string](value T, p *field.Path, supported ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	return rules.OneOf(value, p, supported...)
}

func validateConditions(conditions, old []metav1.Condition) field.ErrorList {
	p := statusPath.Child("conditions")
	errs := metavalidation.ValidateConditions(conditions, p)
	if !equality.Semantic.DeepEqual(conditions, old) {
		errs = append(errs, validate.MaxItems(context.Background(), update, p, conditions, old, maxConditions)...)
	}
	return errs
}

func validateObserved(generation, old *int64) field.ErrorList {
	if equality.Semantic.DeepEqual(generation, old) {
		return nil
	}
	ctx, p := context.Background(), statusPath.Child("observedGeneration")
	errs := append(validate.UpdatePointer(ctx, update, p, generation, old, validate.NoUnset), validate.Minimum(ctx, update, p, generation, old, 1)...)
	return append(errs, validate.Monotonic(ctx, update, p, generation, old)...)
}

// validateItems checks a list without two items of the same name. What was there already is not checked again.
func validateItems[T any](items, old []T, p *field.Path, limit int, name func(*T) string, check validate.ValidateFunc[*T]) field.ErrorList {
	if equality.Semantic.DeepEqual(items, old) {
		return nil
	}
	ctx := context.Background()
	if errs := validate.MaxItems(ctx, update, p, items, old, limit); len(errs) > 0 {
		return errs
	}
	same := func(a, b *T) bool { return name(a) == name(b) }
	errs := validate.ValSliceUnique(ctx, update, p, items, old, same)
	return append(errs, validate.EachValSliceVal(ctx, update, p, items, old, same, validate.SemanticDeepEqual, check)...)
}

func requesterName(r *lifecyclev1alpha1.Requester) string             { return r.Name }
func targetResponderName(r *lifecyclev1alpha1.TargetResponder) string { return r.Name }
func responderName(r *lifecyclev1alpha1.ResponderStatus) string       { return r.Name }

func validateRequester(_ context.Context, _ operation.Operation, p *field.Path, r, _ *lifecyclev1alpha1.Requester) field.ErrorList {
	return append(validateName(r.Name, p.Child("name")),
		oneOf(r.Intent, p.Child("intent"), lifecyclev1alpha1.RequesterIntentEviction, lifecyclev1alpha1.RequesterIntentWithdrawn)...)
}

func validateTargetResponder(ctx context.Context, op operation.Operation, p *field.Path, r, old *lifecyclev1alpha1.TargetResponder) field.ErrorList {
	errs := append(validateName(r.Name, p.Child("name")), oneOf(r.State, p.Child("state"),
		lifecyclev1alpha1.ResponderStateActive, lifecyclev1alpha1.ResponderStateCanceled, lifecyclev1alpha1.ResponderStateCompleted,
		lifecyclev1alpha1.ResponderStateInactive, lifecyclev1alpha1.ResponderStateInterrupted)...)
	priority := p.Child("priority")
	if r.Priority == nil {
		errs = append(errs, field.Required(priority, ""))
	}
	if old != nil {
		if fixed := fixedOnceSet(r.Priority, old.Priority, priority); len(fixed) > 0 {
			return append(errs, fixed...)
		}
	}
	errs = append(errs, validate.Minimum(ctx, op, priority, r.Priority, nil, 0)...)
	return append(errs, validate.Maximum(ctx, op, priority, r.Priority, nil, maxPriority)...)
}

func validateResponder(ctx context.Context, op operation.Operation, p *field.Path, r, old *lifecyclev1alpha1.ResponderStatus) field.ErrorList {
	errs := append(validateName(r.Name, p.Child("name")), validate.MaxLength(ctx, op, p.Child("message"), r.Message, nil, maxMessage)...)
	if old == nil {
		return errs
	}
	errs = append(errs, fixedOnceSet(r.StartTime, old.StartTime, p.Child("startTime"))...)
	return append(errs, fixedOnceSet(r.CompletionTime, old.CompletionTime, p.Child("completionTime"))...)
}

// fixedOnceSet refuses to change or to clear a value.
func fixedOnceSet[T any](value, old *T, p *field.Path) field.ErrorList {
	if equality.Semantic.DeepEqual(value, old) {
		return nil
	}
	return validate.UpdatePointer(context.Background(), update, p, value, old, validate.NoUnset, validate.NoModify)
}
