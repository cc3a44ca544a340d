package apiserver

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/utils/buffer"
)

// queuedEvents is how many events may wait for who watches. The library's caches let as many wait once a resource
// changes often, but ten before: whoever watches what has been at rest loses the watch when much happens at once.
const queuedEvents = 1000

// sentTogether is how many events may be handed over before they are read. The library sends those to a client together,
// which costs less than to send each.
const sentTogether = 32

// queuedStore lets events wait for those who watch.
type queuedStore struct{ *cacher.CacheDelegator }

// Watch implements storage.Interface.
func (s queuedStore) Watch(ctx context.Context, key string, options storage.ListOptions) (watch.Interface, error) {
	w, err := s.CacheDelegator.Watch(ctx, key, options)
	if err != nil {
		return nil, err
	}
	return queueEvents(w), nil
}

// queuedWatch passes on the events of a watch.
type queuedWatch struct {
	from    watch.Interface
	result  chan watch.Event
	stopped chan struct{}
	stop    func()
}

var _ watch.Interface = &queuedWatch{}

func queueEvents(from watch.Interface) watch.Interface {
	w := &queuedWatch{from: from, result: make(chan watch.Event, sentTogether), stopped: make(chan struct{})}
	w.stop = sync.OnceFunc(func() { close(w.stopped) })
	go w.run()
	return w
}

// ResultChan implements watch.Interface.
func (w *queuedWatch) ResultChan() <-chan watch.Event { return w.result }

// Stop implements watch.Interface.
func (w *queuedWatch) Stop() { w.stop() }

func (w *queuedWatch) run() {
	defer close(w.result)
	defer w.from.Stop()
	var (
		events  = w.from.ResultChan() // nil once there are no more
		waiting = buffer.NewRing[watch.Event](buffer.RingOptions{NormalSize: 16})
		next    watch.Event // not in waiting any more
		ready   bool        // there is a next one
	)
	for events != nil || ready {
		in, out := events, w.result
		if waiting.Len() >= queuedEvents {
			in = nil
		}
		if !ready {
			out = nil
		}
		select {
		case e, open := <-in:
			switch {
			case !open:
				events = nil
			case ready:
				waiting.WriteOne(e)
			default:
				next, ready = e, true
			}
		case out <- next:
			next, ready = waiting.ReadOne()
		case <-w.stopped:
			return
		}
	}
}
