package nodelifecycle

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/component-helpers/node/topology"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// measures are the original's metrics of nodes. There is none of how long all nodes take: they are never looked at together.
type measures struct {
	evictions *metrics.CounterVec
	took      *metrics.Histogram
}

func newMeasures(r metrics.KubeRegistry, reader client.Reader) *measures {
	const subsystem = "node_collector"
	m := &measures{
		evictions: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: subsystem, Name: "evictions_total", Help: "Number of nodes that were tainted so that their pods go", StabilityLevel: metrics.STABLE,
		}, []string{"zone"}),
		took: metrics.NewHistogram(&metrics.HistogramOpts{
			Subsystem: subsystem, Name: "update_node_health_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help: "Time that it took to bring a node up to date", Buckets: metrics.ExponentialBuckets(0.001, 4, 8),
		}),
	}
	health := census.Gauge(subsystem, "zone_health", "Percentage of a zone's nodes that are ready", "zone")
	size := census.Gauge(subsystem, "zone_size", "Number of a zone's nodes", "zone")
	unhealthy := census.Gauge(subsystem, "unhealthy_nodes_in_zone", "Number of a zone's nodes that are not ready", "zone")
	r.MustRegister(m.evictions, m.took)
	r.CustomMustRegister(&census.Census{Gauges: []*metrics.Desc{health, size, unhealthy}, Count: func(ctx context.Context, show func(*metrics.Desc, float64, ...string)) error {
		var list corev1.NodeList
		if err := reader.List(ctx, &list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
			return err
		}
		all, bad := map[string]float64{}, map[string]float64{}
		for i := range list.Items {
			zone := topology.GetZoneKey(&list.Items[i])
			all[zone]++
			if ready(&list.Items[i]) != corev1.ConditionTrue {
				bad[zone]++
			}
		}
		for zone, n := range all {
			show(size, n, zone)
			show(unhealthy, bad[zone], zone)
			show(health, 100*(n-bad[zone])/n, zone)
		}
		return nil
	}})
	return m
}
