package events

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// GroupName is the API group.
const GroupName = eventsv1.GroupName

// AddConversions registers the conversions between the group's Event and that of
// core/v1, in which events are stored.
func AddConversions(s *runtime.Scheme) error {
	toCore, fromCore := rules.Always(ToCore), rules.Always(FromCore)
	return errors.Join(
		rules.Convert(s, toCore),
		rules.Convert(s, fromCore),
		rules.Convert(s, func(in *eventsv1.EventList, out *corev1.EventList) error {
			out.ListMeta = in.ListMeta
			return rules.ConvertItems(in.Items, &out.Items, toCore)
		}),
		rules.Convert(s, func(in *corev1.EventList, out *eventsv1.EventList) error {
			out.ListMeta = in.ListMeta
			return rules.ConvertItems(in.Items, &out.Items, fromCore)
		}),
	)
}

// ToCore converts an event to core/v1. The two share what they point to.
func ToCore(in *eventsv1.Event, out *corev1.Event) {
	*out = corev1.Event{
		ObjectMeta:          in.ObjectMeta,
		InvolvedObject:      in.Regarding,
		Reason:              in.Reason,
		Message:             in.Note,
		Source:              in.DeprecatedSource,
		FirstTimestamp:      in.DeprecatedFirstTimestamp,
		LastTimestamp:       in.DeprecatedLastTimestamp,
		Count:               in.DeprecatedCount,
		Type:                in.Type,
		EventTime:           in.EventTime,
		Action:              in.Action,
		Related:             in.Related,
		ReportingController: in.ReportingController,
		ReportingInstance:   in.ReportingInstance,
	}
	if in.Series != nil {
		out.Series = &corev1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
}

// FromCore converts an event of core/v1 to this group. The two share what they point to.
func FromCore(in *corev1.Event, out *eventsv1.Event) {
	*out = eventsv1.Event{
		ObjectMeta:               in.ObjectMeta,
		Regarding:                in.InvolvedObject,
		Reason:                   in.Reason,
		Note:                     in.Message,
		DeprecatedSource:         in.Source,
		DeprecatedFirstTimestamp: in.FirstTimestamp,
		DeprecatedLastTimestamp:  in.LastTimestamp,
		DeprecatedCount:          in.Count,
		Type:                     in.Type,
		EventTime:                in.EventTime,
		Action:                   in.Action,
		Related:                  in.Related,
		ReportingController:      in.ReportingController,
		ReportingInstance:        in.ReportingInstance,
	}
	if in.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
}
