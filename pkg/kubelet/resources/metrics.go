package resources

import (
	"time"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/kubelet/metric"
)

func newDuration() *metrics.HistogramVec {
	return metric.HistogramVec("kubelet_cgroup_manager_duration_seconds", "Duration in seconds for cgroup manager operations. Broken down by method.",
		metrics.DefBuckets, "operation_type")
}

// RegisterMetrics implements metric.Room.
func (c *Cgroups) RegisterMetrics(r metrics.KubeRegistry) {
	r.MustRegister(c.duration)
	r.CustomMustRegister(metric.OnDemand(func(emit metric.Emit) { emit("kubelet_cgroup_version", float64(c.Version())) },
		metric.Family{Name: "kubelet_cgroup_version", Help: "cgroup version on the hosts."}))
}

// The operations on pods' cgroups, as they are timed.
const (
	create  = "create"
	update  = "update"
	destroy = "destroy"
)

// timed takes note of an operation that has begun at a time.
func (c *Cgroups) timed(operation string, began time.Time) {
	c.duration.WithLabelValues(operation).Observe(time.Since(began).Seconds())
}
