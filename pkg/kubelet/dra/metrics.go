package dra

import (
	"strconv"
	"time"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

// managerMetrics are what is timed of claims.
type managerMetrics struct {
	operations, calls *metrics.HistogramVec
}

func newMetrics() managerMetrics {
	buckets := metrics.ExponentialBucketsRange(.1, 40, 15)
	return managerMetrics{
		operations: metric.HistogramVec("dra_operations_duration_seconds",
			"Latency histogram in seconds for the duration of handling all ResourceClaims referenced by a pod when the pod starts or stops. Identified by the name of the operation (PrepareResources or UnprepareResources) and separated by the success of the operation. The number of failed operations is provided through the histogram's overall count.",
			buckets, "operation_name", "is_error"),
		calls: metric.HistogramVec("dra_grpc_operations_duration_seconds", "Duration in seconds of the DRA gRPC operations", buckets,
			"driver_name", "method_name", "grpc_status_code"),
	}
}

// RegisterMetrics implements metric.Room.
func (m *Manager) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(m.metrics.operations, m.metrics.calls)
	r.CustomMustRegister(metric.OnDemand(m.count, metric.Family{
		Name: "dra_resource_claims_in_use", Labels: []string{"driver_name"},
		Help: "The number of ResourceClaims that are currently in use on the node, by driver name (driver_name label value) and across all drivers (special value <any> for driver_name). Note that the sum of all by-driver counts is not the total number of in-use ResourceClaims because the same ResourceClaim might use devices from different drivers. Instead, use the count for the <any> driver_name.",
	}))
}

// count says how many claims are in use, and how many of each driver.
func (m *Manager) count(emit metric.Emit) {
	m.mu.Lock()
	by := map[string]int{"<any>": len(m.state)}
	for _, c := range m.state {
		for name := range c.DriverState {
			by[name]++
		}
	}
	m.mu.Unlock()
	for name, n := range by {
		emit("dra_resource_claims_in_use", float64(n), name)
	}
}

// The operations on the claims of a pod, as they are timed.
const (
	prepareAll   = "PrepareResources"
	unprepareAll = "UnprepareResources"
)

// timed takes note of an operation that has begun at a time.
func (m *managerMetrics) timed(operation string, began time.Time, err error) {
	m.operations.WithLabelValues(operation, strconv.FormatBool(err != nil)).Observe(time.Since(began).Seconds())
}
