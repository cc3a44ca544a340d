package runtime

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	critest "k8s.io/cri-api/pkg/apis/testing"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
)

func TestCalls(t *testing.T) {
	calls := NewCalls()
	registry := metrictest.New(calls)
	service, images := calls.Runtime(critest.NewFakeRuntimeService()), calls.Images(critest.NewFakeImageService())
	id, err := service.RunPodSandbox(t.Context(), &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Uid: "u"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := service.PodSandboxStatus(t.Context(), id, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := service.StartContainer(t.Context(), "nobody"); err == nil {
		t.Error("started a container that is not there")
	}
	if _, err := images.ListImages(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	registry.Expect(t, map[string]float64{
		`kubelet_runtime_operations_total{operation_type="run_podsandbox"}`:               1,
		`kubelet_runtime_operations_total{operation_type="podsandbox_status"}`:            2,
		`kubelet_runtime_operations_total{operation_type="start_container"}`:              1,
		`kubelet_runtime_operations_errors_total{operation_type="start_container"}`:       1,
		`kubelet_runtime_operations_duration_seconds{operation_type="start_container"}`:   1,
		`kubelet_runtime_operations_duration_seconds{operation_type="podsandbox_status"}`: 2,
		`kubelet_runtime_operations_total{operation_type="list_images"}`:                  1,
		`kubelet_run_podsandbox_duration_seconds{runtime_handler=""}`:                     1,
	})
	if _, failed := registry.Read(t)[`kubelet_runtime_operations_errors_total{operation_type="podsandbox_status"}`]; failed {
		t.Error("an error was counted that was none")
	}
}

// eventful is a runtime that refuses the first stream of events, and has one event for the second.
type eventful struct {
	criapi.RuntimeService
	asked int // by one goroutine
}

func (e *eventful) GetContainerEvents(ctx context.Context, events chan *runtimeapi.ContainerEventResponse, established func(runtimeapi.RuntimeService_GetContainerEventsClient)) error {
	if e.asked++; e.asked == 1 {
		return errors.New("refused")
	}
	established(nil)
	events <- &runtimeapi.ContainerEventResponse{CreatedAt: time.Now().Add(-time.Second).UnixNano()}
	<-ctx.Done()
	return ctx.Err()
}

func TestWatcherMetrics(t *testing.T) {
	service := &eventful{RuntimeService: critest.NewFakeRuntimeService()}
	m := NewWatcherMetrics()
	registry := metrictest.New(m)
	w := &Watcher{
		CRI: service, Observer: NewObserver(service), Relist: time.Hour, Changed: func(types.UID) {}, Listed: func(map[types.UID]*State, error) {}, Metrics: m,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	componenttest.Eventually(t, "an event, and a look at everything after it", func() bool {
		got := registry.Read(t)
		return got["kubelet_evented_pleg_connection_latency_seconds"] == 1 && got["kubelet_pleg_relist_interval_seconds"] > 0
	})
	cancel()
	<-done
	registry.Expect(t, map[string]float64{"kubelet_evented_pleg_connection_success_count": 1, "kubelet_evented_pleg_connection_error_count": 1})
	got := registry.Read(t)
	if got["kubelet_pleg_relist_duration_seconds"] != got["kubelet_pleg_relist_interval_seconds"]+1 || time.Since(time.Unix(int64(got["kubelet_pleg_last_seen_seconds"]), 0)) > time.Minute {
		t.Errorf("%v", got)
	}
}
