// Package event serves Event, of v1 and of events.k8s.io: both are views of the
// same stored objects.
package event

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/events"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Storage returns the storage of events, which etcd forgets after ttl.
func Storage(o generic.Options, ttl time.Duration) (generic.Storage, error) {
	s, err := generic.NewStore(resource, o)
	if err != nil {
		return nil, err
	}
	s.TTLFunc = func(runtime.Object, uint64, bool) (uint64, error) { return uint64(ttl.Seconds()), nil }
	return generic.Storage{"events": s}, nil
}

var doc = corev1.Event{}.SwaggerDoc()

var resource = generic.Resource[*corev1.Event]{
	GroupVersion: corev1.SchemeGroupVersion,
	Name:         "events",
	ShortNames:   []string{"ev"},

	CreateOnUpdate:    true,
	GarbageCollection: rest.Unsupported,
	Validate: func(ctx context.Context, obj *corev1.Event) field.ErrorList {
		if viaEvents(ctx) {
			var e eventsv1.Event
			events.FromCore(obj, &e)
			return events.ValidateEvent(&e)
		}
		return core.ValidateEvent(obj)
	},
	ValidateUpdate: func(ctx context.Context, obj, old *corev1.Event) field.ErrorList {
		if viaEvents(ctx) {
			var e, was eventsv1.Event
			events.FromCore(obj, &e)
			events.FromCore(old, &was)
			return events.ValidateEventUpdate(&e, &was)
		}
		return core.ValidateEventUpdate(obj, old)
	},

	Fields: func(e *corev1.Event) fields.Set {
		source := e.Source.Component
		if source == "" {
			source = e.ReportingController
		}
		return fields.Set{
			"involvedObject.kind":            e.InvolvedObject.Kind,
			"involvedObject.namespace":       e.InvolvedObject.Namespace,
			"involvedObject.name":            e.InvolvedObject.Name,
			"involvedObject.uid":             string(e.InvolvedObject.UID),
			"involvedObject.apiVersion":      e.InvolvedObject.APIVersion,
			"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
			"involvedObject.fieldPath":       e.InvolvedObject.FieldPath,
			"reason":                         e.Reason,
			"reportingComponent":             e.ReportingController,
			"source":                         source,
			"type":                           e.Type,
		}
	},
	Columns: []metav1.TableColumnDefinition{
		generic.Column("Last Seen", "string", doc["lastTimestamp"]),
		generic.Column("Type", "string", doc["type"]),
		generic.Column("Reason", "string", doc["reason"]),
		generic.Column("Object", "string", doc["involvedObject"]),
		generic.WideColumn("Subobject", "string", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]),
		generic.WideColumn("Source", "string", doc["source"]),
		generic.Column("Message", "string", doc["message"]),
		generic.WideColumn("First Seen", "string", doc["firstTimestamp"]),
		generic.WideColumn("Count", "string", doc["count"]),
		{Name: "Name", Type: "string", Format: "name", Priority: 1, Description: generic.NameColumn.Description},
	},
	Cells: cells,
}

// viaEvents reports whether the client speaks events.k8s.io.
func viaEvents(ctx context.Context) bool {
	info, ok := request.RequestInfoFrom(ctx)
	return ok && info.APIGroup == eventsv1.GroupName
}

func cells(e *corev1.Event) []any {
	first := generic.Age(e.FirstTimestamp)
	if e.FirstTimestamp.IsZero() {
		first = generic.Age(metav1.Time(e.EventTime))
	}
	last := generic.Age(e.LastTimestamp)
	if e.LastTimestamp.IsZero() {
		last = first
	}
	count := max(e.Count, 1) // an event that happened once carries no count
	if e.Series != nil {
		last, count = generic.Age(metav1.Time(e.Series.LastObservedTime)), e.Series.Count
	}
	object := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		object += "/" + e.InvolvedObject.Name
	}
	return []any{
		last, e.Type, e.Reason, object, e.InvolvedObject.FieldPath, source(e), strings.TrimSpace(e.Message),
		first, int64(count), e.Name,
	}
}

// source says who reported the event, and from where.
func source(e *corev1.Event) string {
	component, instance := e.Source.Component, e.Source.Host
	if component == "" {
		component = e.ReportingController
	}
	if instance == "" {
		instance = e.ReportingInstance
	}
	if instance == "" {
		return component
	}
	return fmt.Sprintf("%s, %s", component, instance)
}
