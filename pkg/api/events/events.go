// Package events knows what is true of Event of events.k8s.io/v1 wherever it is
// handled: its relation to the Event of core/v1, in which form it is stored
// ([AddConversions]), the field selectors that it takes ([AddFieldLabels]) and what
// makes it invalid (the Validate functions).
package events

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

const (
	maxReason    = 128
	maxAction    = 128
	maxReporter  = 128
	maxNote      = 1024
	minimalCount = 2
)

// AddFieldLabels registers the field selectors that Event takes. Selectors are
// answered by the stored form, whose fields have other names.
func AddFieldLabels(s *runtime.Scheme) error {
	gvk := eventsv1.SchemeGroupVersion.WithKind("Event")
	err := s.AddFieldLabelConversionFunc(gvk, func(label, value string) (string, string, error) {
		switch label {
		case "reason", "type", "metadata.name", "metadata.namespace":
			return label, value, nil
		case "reportingController":
			return "reportingComponent", value, nil
		case "regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid",
			"regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath":
			return "involvedObject." + strings.TrimPrefix(label, "regarding."), value, nil
		}
		return "", "", fmt.Errorf("field label not supported: %s", label)
	})
	if err != nil {
		return fmt.Errorf("field labels of %s: %w", gvk.Kind, err)
	}
	return nil
}

// ValidateEvent says what is wrong with a new Event. The paths are those of the
// stored form.
func ValidateEvent(e *eventsv1.Event) field.ErrorList {
	errs := rules.Namespaced(&e.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, validateNamespace(e)...)
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", "has invalid value: "+e.Type))
	}
	unset := func(name string, isUnset bool) {
		if !isUnset {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset("firstTimestamp", e.DeprecatedFirstTimestamp == metav1.Time{})
	unset("lastTimestamp", e.DeprecatedLastTimestamp == metav1.Time{})
	unset("count", e.DeprecatedCount == 0)
	unset("source", e.DeprecatedSource == corev1.EventSource{})
	if e.EventTime.IsZero() {
		return append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	return append(errs, validateCommon(e)...)
}

// ValidateEventUpdate says what is wrong with an update of an Event: only its
// series may change.
func ValidateEventUpdate(e, old *eventsv1.Event) field.ErrorList {
	errs := rules.MetaUpdate(&e.ObjectMeta, &old.ObjectMeta)
	for _, f := range []struct {
		name       string
		value, old any
	}{
		{"involvedObject", e.Regarding, old.Regarding},
		{"reason", e.Reason, old.Reason},
		{"message", e.Note, old.Note},
		{"source", e.DeprecatedSource, old.DeprecatedSource},
		{"firstTimestamp", e.DeprecatedFirstTimestamp, old.DeprecatedFirstTimestamp},
		{"lastTimestamp", e.DeprecatedLastTimestamp, old.DeprecatedLastTimestamp},
		{"count", e.DeprecatedCount, old.DeprecatedCount},
		{"reason", e.Reason, old.Reason},
		{"type", e.Type, old.Type},
		{"eventTime", e.EventTime, old.EventTime},
		{"action", e.Action, old.Action},
		{"related", e.Related, old.Related},
		{"reportingController", e.ReportingController, old.ReportingController},
		{"reportingInstance", e.ReportingInstance, old.ReportingInstance},
	} {
		errs = append(errs, rules.Immutable(f.value, f.old, field.NewPath(f.name))...)
	}
	errs = append(errs, validateNamespace(e)...)
	return append(errs, validateCommon(e)...)
}

// validateNamespace says that an Event about what is in no namespace is kept in one of
// the cluster's own.
func validateNamespace(e *eventsv1.Event) field.ErrorList {
	kept, about := e.Namespace, e.Regarding.Namespace
	fits := about != "" || kept == metav1.NamespaceDefault || kept == metav1.NamespaceSystem
	if e.EventTime.IsZero() {
		fits = kept == about || about == "" && kept == metav1.NamespaceDefault
	}
	if fits {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("involvedObject", "namespace"), about, "does not match event.namespace")}
}

func validateCommon(e *eventsv1.Event) field.ErrorList {
	var errs field.ErrorList
	controller := field.NewPath("reportingController")
	if e.ReportingController == "" {
		errs = append(errs, field.Required(controller, ""))
	}
	errs = append(errs, rules.QualifiedName(e.ReportingController, controller)...)
	atMost := func(name, value string, limit int, required bool) {
		p := field.NewPath(name)
		if required && value == "" {
			errs = append(errs, field.Required(p, ""))
		}
		if len(value) > limit {
			errs = append(errs, field.Invalid(p, "", fmt.Sprintf("can have at most %v characters", limit)))
		}
	}
	atMost("reportingInstance", e.ReportingInstance, maxReporter, true)
	atMost("action", e.Action, maxAction, true)
	atMost("reason", e.Reason, maxReason, true)
	atMost("message", e.Note, maxNote, false)
	if e.Series != nil {
		p := field.NewPath("series")
		if e.Series.Count < minimalCount {
			errs = append(errs, field.Invalid(p.Child("count"), "", fmt.Sprintf("should be at least %d", minimalCount)))
		}
		if e.Series.LastObservedTime.IsZero() {
			errs = append(errs, field.Required(p.Child("lastObservedTime"), ""))
		}
	}
	return errs
}
