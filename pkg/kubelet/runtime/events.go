package runtime

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// A Watcher tells which pods to look at anew: at once from the runtime's events, and
// from a slow look at everything, which repairs what an interrupted stream has missed.
type Watcher struct {
	CRI      cri.RuntimeService
	Observer *Observer
	// Relist is the time between two looks at everything while events flow; without
	// an event stream it is a second.
	Relist time.Duration
	// Again asks for a look at everything now.
	Again <-chan struct{}
	// Changed is called with the pod that something happened to.
	Changed func(uid types.UID)
	// Listed is called with everything there is.
	Listed func(map[types.UID]*State, error)
	// Metrics are the watcher's own.
	Metrics *WatcherMetrics
}

// Run watches until ctx is cancelled.
func (w *Watcher) Run(ctx context.Context) {
	events := make(chan *runtimeapi.ContainerEventResponse, 256)
	connected := make(chan bool, 1)
	go w.stream(ctx, events, connected)
	period := time.Second
	var last time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			w.Metrics.heard(e.GetCreatedAt())
			if uid := e.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
				w.Changed(types.UID(uid))
			} else if uid := podOf(e); uid != "" {
				w.Changed(uid)
			}
		case ok := <-connected:
			// What happened before the stream was there is seen by listing once more.
			if period = time.Second; ok {
				period = w.Relist
			}
			timer.Reset(0)
		case <-w.Again:
			timer.Reset(0)
		case <-timer.C:
			began := time.Now()
			states, err := w.Observer.All(ctx)
			if ctx.Err() != nil {
				return
			}
			w.Metrics.relisted(began, last)
			last = began
			w.Listed(states, err)
			timer.Reset(period)
		}
	}
}

// podOf finds the pod of an event whose sandbox is gone already.
func podOf(e *runtimeapi.ContainerEventResponse) types.UID {
	for _, c := range e.ContainersStatuses {
		if uid := c.Labels[kubelettypes.KubernetesPodUIDLabel]; uid != "" {
			return types.UID(uid)
		}
	}
	return types.UID(e.GetPodSandboxStatus().GetLabels()[kubelettypes.KubernetesPodUIDLabel])
}

func (w *Watcher) stream(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, connected chan bool) {
	logger := klog.FromContext(ctx)
	// A stream that keeps failing is tried less and less often.
	const least, most = 100 * time.Millisecond, 10 * time.Second
	for wait := least; ; wait = min(2*wait, most) {
		started := time.Now()
		established := false
		err := w.CRI.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) {
			established = true
			w.Metrics.connected.Inc()
			send(ctx, connected, true)
		})
		if ctx.Err() != nil {
			return
		}
		if !established {
			w.Metrics.refused.Inc()
		}
		logger.V(2).Info("The stream of container events ended", "err", err)
		send(ctx, connected, false)
		if time.Since(started) > most {
			wait = least
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func send(ctx context.Context, c chan bool, v bool) {
	select {
	case c <- v:
	case <-ctx.Done():
	}
}
