// Package storage knows what is true of the kinds of storage.k8s.io/v1 wherever
// they are handled: their defaults ([AddDefaults]) and what makes them invalid (the
// Validate functions).
package storage

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, setStorageClass)
	rules.Default(s, setCSIDriver)
	return nil
}

var specPath = field.NewPath("spec")

// Bounds of the parameters that a class hands to its driver.
const (
	maxParameters     = 512
	maxParametersSize = 256 << 10
)

// validateParameters checks parameters that mean something to a driver alone.
func validateParameters(parameters map[string]string, allowNone bool, p *field.Path) field.ErrorList {
	if len(parameters) == 0 && !allowNone {
		return field.ErrorList{field.Required(p, "must contain at least one key/value pair")}
	}
	var errs field.ErrorList
	if len(parameters) > maxParameters {
		errs = append(errs, field.TooLong(p, "" /*unused*/, maxParameters))
	}
	size := 0
	for key, value := range parameters {
		if key == "" {
			errs = append(errs, field.Invalid(p, key, "field can not be empty."))
		}
		size += len(key) + len(value)
	}
	if size > maxParametersSize {
		errs = append(errs, field.TooLong(p, "" /*unused*/, maxParametersSize))
	}
	return errs
}
