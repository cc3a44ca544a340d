// Package apps knows what is true of the kinds of apps/v1 wherever they are
// handled: their defaults ([AddDefaults]), the field selectors that they take
// ([AddFieldLabels]) and what makes them invalid (the Validate functions).
package apps

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, setDeployment)
	rules.Default(s, setReplicaSet)
	rules.Default(s, setDaemonSet)
	rules.Default(s, setStatefulSet)
	return nil
}

var (
	specPath     = field.NewPath("spec")
	statusPath   = field.NewPath("status")
	templatePath = specPath.Child("template")
	selectorPath = specPath.Child("selector")
)

// validateSelector checks the selector of a Deployment or ReplicaSet, which must
// select something, and returns it.
func validateSelector(s *metav1.LabelSelector) (labels.Selector, field.ErrorList) {
	var errs field.ErrorList
	if s == nil {
		errs = append(errs, field.Required(selectorPath, ""))
	} else {
		errs = append(errs, rules.LabelSelector(s, selectorPath)...)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(selectorPath, s, "empty selector is invalid for deployment"))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, append(errs, field.Invalid(selectorPath, s, "invalid label selector"))
	}
	return selector, errs
}

// validateRunsForever checks a template of pods that a controller of the kind
// keeps running, and that its selector finds. selector is nil if it is unusable.
func validateRunsForever(t *corev1.PodTemplateSpec, selector labels.Selector, kind string) field.ErrorList {
	if selector == nil { // which is reported, and has to be mended first
		return core.ValidateEvictionResponders(&t.Spec, templatePath.Child("spec"))
	}
	errs := validateSelected(t, selector)
	errs = append(errs, core.ValidatePodTemplateSpec(t, templatePath)...)
	return append(errs, validateNeverEnds(t, kind)...)
}

func validateSelected(t *corev1.PodTemplateSpec, selector labels.Selector) field.ErrorList {
	if selector == nil || selector.Matches(labels.Set(t.Labels)) {
		return nil
	}
	return field.ErrorList{field.Invalid(templatePath.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`")}
}

func validateNeverEnds(t *corev1.PodTemplateSpec, kind string) field.ErrorList {
	errs := rules.OneOf(t.Spec.RestartPolicy, templatePath.Child("spec", "restartPolicy"), corev1.RestartPolicyAlways)
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(templatePath.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported"))
	}
	return errs
}

// counter is a number in a status.
type counter struct {
	name  string
	value int32
}

// validateCounters checks that no number is negative.
func validateCounters(counters ...counter) field.ErrorList {
	var errs field.ErrorList
	for _, c := range counters {
		errs = append(errs, rules.NonNegative(c.value, statusPath.Child(c.name))...)
	}
	return errs
}

// validateAtMost checks that no number exceeds the limit, which the message names.
func validateAtMost(limit int32, name string, counters ...counter) field.ErrorList {
	var errs field.ErrorList
	for _, c := range counters {
		if c.value > limit {
			errs = append(errs, field.Invalid(statusPath.Child(c.name), c.value, "cannot be greater than "+name))
		}
	}
	return errs
}
