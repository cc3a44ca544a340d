package events

import (
	"testing"

	eventsv1 "k8s.io/api/events/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestEvent(t *testing.T) {
	apitest.Run(t, "testdata/event.txtar", apitest.Kind[eventsv1.Event, *eventsv1.Event]{
		Path:   "/apis/events.k8s.io/v1/namespaces/default/events",
		Create: ValidateEvent,
		Update: ValidateEventUpdate,
	})
}
