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
		r.reportedEvent(event)
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

// reportedEvent validates who reports what.
func (r *report) reportedEvent(event *corev1.Event) {
	component := field.NewPath("reportingComponent")
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
