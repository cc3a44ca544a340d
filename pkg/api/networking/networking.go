// Package networking knows what is true of the kinds of networking.k8s.io/v1
// wherever they are handled: their defaults ([AddDefaults]) and what makes them
// invalid (the Validate functions).
package networking

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, setIngressClass)
	rules.Default(s, setNetworkPolicy)
	return nil
}

var specPath = field.NewPath("spec")

// validateSegment checks a part of the name of something else.
func validateSegment(value string, required bool, p *field.Path) field.ErrorList {
	if value == "" {
		if required {
			return field.ErrorList{field.Required(p, "")}
		}
		return nil
	}
	return rules.Messages(p, value, rules.PathSegment(value, false))
}
