package events

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// GroupName is the API group.
const GroupName = eventsv1.GroupName

// AddConversions registers the conversions between the group's Event and that of
// core/v1, in which events are stored.
func AddConversions(s *runtime.Scheme) error {
	for _, add := range []func() error{
		func() error { return convert(s, ToCore) },
		func() error { return convert(s, FromCore) },
		func() error {
			return convert(s, func(in *eventsv1.EventList, out *corev1.EventList) {
				out.ListMeta = in.ListMeta
				out.Items = make([]corev1.Event, len(in.Items))
				for i := range in.Items {
					ToCore(&in.Items[i], &out.Items[i])
				}
			})
		},
		func() error {
			return convert(s, func(in *corev1.EventList, out *eventsv1.EventList) {
				out.ListMeta = in.ListMeta
				out.Items = make([]eventsv1.Event, len(in.Items))
				for i := range in.Items {
					FromCore(&in.Items[i], &out.Items[i])
				}
			})
		},
	} {
		if err := add(); err != nil {
			return err
		}
	}
	return nil
}

func convert[In, Out any](s *runtime.Scheme, f func(*In, *Out)) error {
	return s.AddConversionFunc((*In)(nil), (*Out)(nil), func(in, out any, _ conversion.Scope) error {
		f(in.(*In), out.(*Out))
		return nil
	})
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
