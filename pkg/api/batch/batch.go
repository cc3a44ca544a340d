// Package batch knows what is true of the kinds of batch/v1 wherever they are
// handled: their defaults ([AddDefaults]), the field selectors that they take
// ([AddFieldLabels]) and what makes them invalid (the Validate functions).
package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// AddDefaults registers the defaults of every kind of the group.
func AddDefaults(s *runtime.Scheme) error {
	rules.Default(s, setJob)
	rules.Default(s, setCronJob)
	return nil
}

// AddFieldLabels registers the field selectors that kinds of the group take
// besides those that every kind takes.
func AddFieldLabels(s *runtime.Scheme) error {
	return s.AddFieldLabelConversionFunc(batchv1.SchemeGroupVersion.WithKind("Job"), func(label, value string) (string, string, error) {
		switch label {
		case "metadata.name", "metadata.namespace", "status.successful":
			return label, value, nil
		}
		return "", "", fmt.Errorf("field label %q not supported for Job", label)
	})
}

var (
	specPath   = field.NewPath("spec")
	statusPath = field.NewPath("status")
)
