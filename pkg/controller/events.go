package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
)

// events make the recorders of the controllers. Each has a broadcaster of its own: one
// writes events one after the other and drops what does not fit into its queue, so that a
// controller with much to say would keep the others from being heard.
type events struct {
	ctx     context.Context // of the manager's run, for what broadcasters log
	sink    record.EventSink
	scheme  *runtime.Scheme
	started []record.EventBroadcaster
}

func newEvents(ctx context.Context, cfg *rest.Config, scheme *runtime.Scheme) (*events, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("building the client for events: %w", err)
	}
	return &events{ctx: ctx, sink: &typedcorev1.EventSinkImpl{Interface: cs.CoreV1().Events("")}, scheme: scheme}, nil
}

// recorder returns the recorder of a controller.
func (e *events) recorder(source string) record.EventRecorder {
	b := record.NewBroadcaster(record.WithContext(e.ctx))
	b.StartRecordingToSink(e.sink)
	e.started = append(e.started, b)
	return b.NewRecorder(e.scheme, corev1.EventSource{Component: source})
}

// stop ends the broadcasters.
func (e *events) stop() {
	for _, b := range e.started {
		b.Shutdown()
	}
}
