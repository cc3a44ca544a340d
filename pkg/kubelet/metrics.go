package kubelet

import (
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// registries are where this kubelet counts, and no other in the process.
type registries struct {
	// own are the metrics of /metrics, probes those of /metrics/probes.
	own, probes metrics.KubeRegistry
}

func newRegistries() registries {
	r := registries{own: metrics.NewKubeRegistry(), probes: metrics.NewKubeRegistry()}
	_ = metrics.RegisterProcessStartTime(r.probes.Register) // it cannot be there already
	return r
}

// register has the rooms count.
func register(r metrics.KubeRegistry, rooms ...metric.Room) {
	for _, room := range rooms {
		room.RegisterMetrics(r)
	}
}
