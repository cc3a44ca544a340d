// Package autoscaling knows what is true of Scale, the subresource of the
// autoscaling group: what makes it invalid. It has no defaults.
package autoscaling

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers nothing: kinds of the group have no defaults.
func AddDefaults(*runtime.Scheme) error { return nil }

// AddFieldLabels registers nothing: kinds of the group take the field selectors
// that every kind takes.
func AddFieldLabels(*runtime.Scheme) error { return nil }

// ValidateScale says what is wrong with a Scale.
func ValidateScale(s *autoscalingv1.Scale) field.ErrorList {
	errs := rules.Namespaced(&s.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	return append(errs, rules.NonNegative(s.Spec.Replicas, field.NewPath("spec", "replicas"))...)
}
