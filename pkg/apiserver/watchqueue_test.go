package apiserver

import (
	"strconv"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

func TestQueuedWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := watch.NewFake() // each event waits until it is taken
		w := queueEvents(from)
		sent := 0
		go func() {
			for i := range 3 * queuedEvents {
				from.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: strconv.Itoa(i)}})
				sent++
			}
			from.Stop()
		}()
		synctest.Wait()
		if sent != queuedEvents+1+sentTogether {
			t.Fatalf("nobody reads, and %d events have been taken", sent)
		}
		i := 0
		for e := range w.ResultChan() {
			if got := e.Object.(*corev1.Pod).Name; got != strconv.Itoa(i) {
				t.Fatalf("event %d is that of %s", i, got)
			}
			i++
		}
		if i != 3*queuedEvents {
			t.Errorf("%d events", i)
		}
		w.Stop()
	})
}

// Who stops watching ends it whether or not there are events.
func TestQueuedWatchStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for events := range 3 {
			from := watch.NewFake()
			w := queueEvents(from)
			for range events {
				from.Add(&corev1.Pod{})
			}
			w.Stop()
			w.Stop()
			synctest.Wait()
			if !from.IsStopped() {
				t.Errorf("with %d events, it goes on", events)
			}
		}
	})
}
