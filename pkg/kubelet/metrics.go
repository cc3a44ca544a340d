package kubelet

import (
	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/component"
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

// gates tells of the feature gates, all of which have their defaults.
type gates map[string]component.FeatureGate

// RegisterMetrics implements metric.Room.
func (g gates) RegisterMetrics(r metrics.KubeRegistry) {
	r.CustomMustRegister(metric.OnDemand(func(emit metric.Emit) {
		for name, gate := range g {
			on := 0.0
			if gate.Default {
				on = 1
			}
			emit("kubernetes_feature_enabled", on, name, gate.Stage)
		}
	}, metric.Family{
		Name: "kubernetes_feature_enabled", Labels: []string{"name", "stage"}, Stability: metrics.BETA,
		Help: "This metric records the data about the stage and enablement of a k8s feature.",
	}))
}
