// Package node knows what is true of the kinds of node.k8s.io/v1 wherever they are
// handled: what makes them invalid (the Validate functions). They have no defaults.
package node

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

var metadata = field.NewPath("metadata")

// ValidateRuntimeClass says what is wrong with a new RuntimeClass.
func ValidateRuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, metadata) // any finalizer
	p := field.NewPath("handler")
	if c.Handler == "" {
		errs = append(errs, field.Required(p, ""))
	} else {
		errs = append(errs, validate.ShortName(context.Background(), operation.Operation{}, p, &c.Handler, nil)...)
	}
	if c.Overhead != nil {
		// The path is that of the resources of a container.
		errs = append(errs, core.ValidateResourceRequirements(&corev1.ResourceRequirements{Limits: c.Overhead.PodFixed}, nil, field.NewPath("overhead"))...)
	}
	if c.Scheduling != nil {
		errs = append(errs, validateScheduling(c.Scheduling, field.NewPath("scheduling"))...)
	}
	return errs
}

func validateScheduling(s *nodev1.Scheduling, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.NodeSelector != nil {
		errs = append(errs, metavalidation.ValidateLabels(s.NodeSelector, p.Child("nodeSelector"))...)
	}
	tolerations := p.Child("tolerations")
	errs = append(errs, core.ValidateTolerations(s.Tolerations, tolerations)...)
	for i := range s.Tolerations {
		for j := range i {
			if equality.Semantic.DeepEqual(s.Tolerations[i], s.Tolerations[j]) {
				errs = append(errs, field.Duplicate(tolerations.Index(i), s.Tolerations[i]))
				break
			}
		}
	}
	return errs
}

// ValidateRuntimeClassUpdate says what is wrong with an update of a RuntimeClass.
func ValidateRuntimeClassUpdate(c, old *nodev1.RuntimeClass) field.ErrorList {
	errs := append(ValidateRuntimeClass(c), apivalidation.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, rules.Fixed(c.Handler, old.Handler, field.NewPath("handler"))...)
}

// WarningsRuntimeClass are what the author of a RuntimeClass should know. old is nil on creation.
func WarningsRuntimeClass(c, _ *nodev1.RuntimeClass) []string {
	if c.Scheduling == nil {
		return nil
	}
	var warnings []string
	for key := range c.Scheduling.NodeSelector {
		warnings = append(warnings, rules.NodeLabelWarnings(key, field.NewPath("scheduling", "nodeSelector"))...)
	}
	return warnings
}
