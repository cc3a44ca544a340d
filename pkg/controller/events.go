package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// events make the recorders of the controllers. Each has a broadcaster of its own: one
// writes events one after the other and drops what does not fit into its queue, so that a
// controller with much to say would keep the others from being heard. Most never say anything, so that a broadcaster,
// which has room for two thousand events, comes with the first.
type events struct {
	ctx    context.Context // of the manager's run, for what broadcasters log
	sink   record.EventSink
	scheme *runtime.Scheme

	mu      sync.Mutex
	started []record.EventBroadcaster
	stopped bool
}

func newEvents(ctx context.Context, cfg *rest.Config, scheme *runtime.Scheme) (*events, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("building the client for events: %w", err)
	}
	return &events{ctx: ctx, scheme: scheme, sink: &gatherer{
		EventSink: &typedcorev1.EventSinkImpl{Interface: cs.CoreV1().Events("")},
		ctx:       ctx, newest: map[types.NamespacedName]repetition{},
	}}, nil
}

// recorder returns the recorder of a controller.
func (e *events) recorder(source string) record.EventRecorder {
	return recorder(sync.OnceValue(func() record.EventRecorder { return e.start(source) }))
}

// start makes a broadcaster. When they have been stopped, it tells nobody.
func (e *events) start(source string) record.EventRecorder {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := record.NewBroadcaster(record.WithContext(e.ctx))
	if e.stopped {
		b.Shutdown()
	} else {
		b.StartRecordingToSink(e.sink)
		e.started = append(e.started, b)
	}
	return b.NewRecorder(e.scheme, corev1.EventSource{Component: source})
}

// stop ends the broadcasters.
func (e *events) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	for _, b := range e.started {
		b.Shutdown()
	}
}

// A recorder returns who records, and makes it at the first event.
type recorder func() record.EventRecorder

// Event implements record.EventRecorder.
func (r recorder) Event(o runtime.Object, kind, reason, message string) {
	r().Event(o, kind, reason, message)
}

// Eventf implements record.EventRecorder.
func (r recorder) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	r().Eventf(o, kind, reason, format, args...)
}

// AnnotatedEventf implements record.EventRecorder.
func (r recorder) AnnotatedEventf(o runtime.Object, annotations map[string]string, kind, reason, format string, args ...any) {
	r().AnnotatedEventf(o, annotations, kind, reason, format, args...)
}

// gathering is for how long what repeats an event is gathered before it is written.
const gathering = time.Second

// A gatherer is a sink that writes what only repeats an event, its number and its last time, once for several that come
// in quick succession. It is as true as the newest.
type gatherer struct {
	record.EventSink
	ctx context.Context // of the manager's run; nothing is written after it

	mu      sync.Mutex
	newest  map[types.NamespacedName]repetition
	waiting bool // for write, which has not begun or goes on
}

// A repetition changes an event that has been written.
type repetition struct {
	event *corev1.Event
	patch []byte
}

// Patch implements record.EventSink.
func (g *gatherer) Patch(e *corev1.Event, patch []byte) (*corev1.Event, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newest[types.NamespacedName{Namespace: e.Namespace, Name: e.Name}] = repetition{e.DeepCopy(), patch}
	if !g.waiting {
		g.waiting = true
		time.AfterFunc(gathering, g.write)
	}
	return e, nil
}

// write writes what has been gathered, and will again if more has come or something was in vain.
func (g *gatherer) write() {
	g.mu.Lock()
	newest := g.newest
	g.newest = map[types.NamespacedName]repetition{}
	g.mu.Unlock()
	failed := map[types.NamespacedName]repetition{}
	for name, r := range newest {
		if g.ctx.Err() != nil {
			return
		}
		if err := g.writeOne(r); err != nil {
			failed[name] = r
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, r := range failed {
		if _, newer := g.newest[name]; !newer {
			g.newest[name] = r
		}
	}
	if g.waiting = len(g.newest) > 0; g.waiting {
		time.AfterFunc(gathering, g.write)
	}
}

// writeOne writes a repetition. The error is that the API server has not answered. An event that is gone is made anew.
func (g *gatherer) writeOne(r repetition) error {
	_, err := g.EventSink.Patch(r.event, r.patch)
	if apierrors.IsNotFound(err) {
		r.event.ResourceVersion = ""
		_, err = g.Create(r.event)
	}
	if status := apierrors.APIStatus(nil); !errors.As(err, &status) {
		return err
	}
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		klog.FromContext(g.ctx).Error(err, "An event is not written", "event", klog.KObj(r.event))
	}
	return nil
}
