package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxEventMessage is how long what an event says can be; its other fields can be
// as long as maxEventField.
const (
	maxEventMessage = 1024
	maxEventField   = 128
)

// ValidateEvent says what is wrong with a new Event of core/v1. One that has a
// time of its own, as those of events.k8s.io have, says also who reports what.
func ValidateEvent(event *corev1.Event) field.ErrorList {
	var r report
	r.eventNamespace(event)
	if !event.EventTime.IsZero() {
		r.reportedEvent(event, "reportingComponent")
	}
	return r.errs
}

// ValidateEventsV1Event says what is wrong with a new Event that was written as
// one of events.k8s.io/v1, in which the fields of older events have no place.
func ValidateEventsV1Event(event *corev1.Event) field.ErrorList {
	var r report
	r.eventNamespace(event)
	if r.requireIf(event.EventTime.IsZero(), field.NewPath("eventTime"), "") {
		r.reportedEvent(event, "reportingController")
		if s := event.Series; s != nil {
			at := field.NewPath("series")
			r.invalidIf(s.Count < 2, at.Child("count"), "", "should be at least 2")
			r.requireIf(s.LastObservedTime.IsZero(), at.Child("lastObservedTime"), "")
		}
	}
	r.invalidIf(event.Type != corev1.EventTypeNormal && event.Type != corev1.EventTypeWarning, field.NewPath("type"), "", "has invalid value: "+event.Type)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"firstTimestamp", !event.FirstTimestamp.IsZero()},
		{"lastTimestamp", !event.LastTimestamp.IsZero()},
		{"count", event.Count != 0},
		{"source", event.Source != corev1.EventSource{}},
	} {
		r.invalidIf(f.set, field.NewPath(f.name), "", "needs to be unset")
	}
	return r.errs
}

// eventNamespace says that an event is kept beside the object that it is about;
// those about objects of the cluster are kept in the default namespace.
func (r *report) eventNamespace(event *corev1.Event) {
	kept, about := event.Namespace, event.InvolvedObject.Namespace
	same := kept == about || about == "" && kept == corev1.NamespaceDefault
	if !event.EventTime.IsZero() {
		same = about != "" || kept == corev1.NamespaceDefault || kept == metav1.NamespaceSystem
	}
	r.invalidIf(!same, field.NewPath("involvedObject", "namespace"), about, "does not match event.namespace")
	r.invalid(field.NewPath("namespace"), kept, validation.IsDNS1123Subdomain(kept)...)
}

// reportedEvent validates who reports what. reporter is the name that the version
// of the event has for the field.
func (r *report) reportedEvent(event *corev1.Event, reporter string) {
	component := field.NewPath(reporter)
	r.required(event.ReportingController, component)
	r.invalid(component, event.ReportingController, validation.IsQualifiedName(event.ReportingController)...)
	for _, f := range []struct{ name, value string }{
		{"reportingInstance", event.ReportingInstance}, {"action", event.Action}, {"reason", event.Reason},
	} {
		p := field.NewPath(f.name)
		r.required(f.value, p)
		r.eventText(f.value, maxEventField, p)
	}
	r.eventText(event.Message, maxEventMessage, field.NewPath("message"))
}

func (r *report) eventText(s string, limit int, p *field.Path) {
	r.invalidIf(len(s) > limit, p, "", fmt.Sprintf("can have at most %d characters", limit))
}

// ValidateEventUpdate says what is wrong with an update of an Event of core/v1.
func ValidateEventUpdate(event, _ *corev1.Event) field.ErrorList { return ValidateEvent(event) }

// ValidateEventsV1EventUpdate says what is wrong with an update of an Event that was
// written as one of events.k8s.io/v1: but for its series it stays as it is.
func ValidateEventsV1EventUpdate(event, old *corev1.Event) field.ErrorList {
	r := report{errs: ValidateEventsV1Event(event)}
	r.objectMetaUpdate(event, old, metaPath)
	for _, f := range []struct {
		name     string
		now, was any
	}{
		{"involvedObject", event.InvolvedObject, old.InvolvedObject},
		{"reason", event.Reason, old.Reason},
		{"message", event.Message, old.Message},
		{"source", event.Source, old.Source},
		{"firstTimestamp", event.FirstTimestamp, old.FirstTimestamp},
		{"lastTimestamp", event.LastTimestamp, old.LastTimestamp},
		{"count", event.Count, old.Count},
		{"type", event.Type, old.Type},
		{"eventTime", event.EventTime, old.EventTime},
		{"action", event.Action, old.Action},
		{"related", event.Related, old.Related},
		{"reportingController", event.ReportingController, old.ReportingController},
		{"reportingInstance", event.ReportingInstance, old.ReportingInstance},
	} {
		r.immutable(f.now, f.was, field.NewPath(f.name))
	}
	return r.errs
}
