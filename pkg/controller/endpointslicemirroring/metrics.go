package endpointslicemirroring

import (
	"context"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/component-base/metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// measures are the original's metrics of copied Endpoints.
type measures struct {
	added, updated, removed, skipped, took *metrics.Histogram
	changes                                *metrics.CounterVec
}

func newMeasures(r metrics.KubeRegistry, reader client.Reader) *measures {
	const subsystem = "endpoint_slice_mirroring_controller"
	histogram := func(name, help string, buckets []float64) *metrics.Histogram {
		return metrics.NewHistogram(&metrics.HistogramOpts{Subsystem: subsystem, Name: name, Help: help, StabilityLevel: metrics.ALPHA, Buckets: buckets})
	}
	many := metrics.ExponentialBuckets(2, 2, 15)
	m := &measures{
		added:   histogram("endpoints_added_per_sync", "Number of endpoints that came with one look at Endpoints", many),
		updated: histogram("endpoints_updated_per_sync", "Number of endpoints that changed with one look at Endpoints", many),
		removed: histogram("endpoints_removed_per_sync", "Number of endpoints that went with one look at Endpoints", many),
		skipped: histogram("addresses_skipped_per_sync", "Number of addresses that were not copied, being invalid or too many", many),
		took:    histogram("endpoints_sync_duration", "Time in seconds that one look at Endpoints took", metrics.ExponentialBuckets(0.001, 2, 15)),
		changes: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: subsystem, Name: "changes", Help: "Number of EndpointSlices that were created, updated and deleted", StabilityLevel: metrics.ALPHA,
		}, []string{"operation"}),
	}
	r.MustRegister(m.added, m.updated, m.removed, m.skipped, m.took, m.changes)
	endpoints := census.Gauge(subsystem, "endpoints_desired", "Number of endpoints that are copied")
	number := census.Gauge(subsystem, "num_endpoint_slices", "Number of EndpointSlices that they are in")
	desired := census.Gauge(subsystem, "desired_endpoint_slices", "Number of EndpointSlices that have room for them: one for each set of ports and IP family")
	r.CustomMustRegister(&census.Census{Gauges: []*metrics.Desc{endpoints, number, desired}, Count: func(ctx context.Context, show func(*metrics.Desc, float64, ...string)) error {
		var list discoveryv1.EndpointSliceList
		if err := reader.List(ctx, &list, client.MatchingLabels{discoveryv1.LabelManagedBy: managedBy}, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
			return err
		}
		n := 0
		for i := range list.Items {
			n += len(list.Items[i].Endpoints)
		}
		show(endpoints, float64(n))
		show(number, float64(len(list.Items)))
		show(desired, float64(len(list.Items)))
		return nil
	}})
	return m
}

// mirrored counts what is copied by one look at Endpoints.
func (m *measures) mirrored(p plan) {
	m.added.Observe(float64(p.added))
	m.updated.Observe(float64(p.updated))
	m.removed.Observe(float64(p.removed))
	m.skipped.Observe(float64(p.skipped))
}

func (m *measures) looked(took time.Duration) { m.took.Observe(took.Seconds()) }

func (m *measures) changed(operation string) { m.changes.WithLabelValues(operation).Inc() }
