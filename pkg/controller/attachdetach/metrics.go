package attachdetach

import (
	"context"

	"k8s.io/component-base/metrics"

	"github.com/leme-k8s/leme/pkg/controller/internal/census"
)

// volumes are the drivers of those that a node is to have, and of those that it has.
type volumes struct{ desired, actual []string }

// register adds the original's metrics, and returns what counts volumes that are taken by force.
func (c *Controller) register(r metrics.KubeRegistry) *metrics.CounterVec {
	forced := metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "attach_detach_controller", Name: "attachdetach_controller_forced_detaches", StabilityLevel: metrics.ALPHA,
		Help: "Number of volumes that were taken from a node that may still use them",
	}, []string{"reason"})
	total := census.Gauge("attachdetach_controller", "total_volumes", "Number of volumes that are to be attached, and that are", "plugin_name", "state")
	inUse := census.Gauge("storage_count", "attachable_volumes_in_use", "Number of volumes that pods on a node use", "node", "volume_plugin")
	r.MustRegister(forced)
	r.CustomMustRegister(&census.Census{Gauges: []*metrics.Desc{total, inUse}, Count: func(_ context.Context, show func(*metrics.Desc, float64, ...string)) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		type key struct{ plugin, state string }
		sum := map[key]float64{}
		for node, v := range c.volumes {
			used := map[string]float64{}
			for _, driver := range v.desired {
				used[pluginName(driver)]++
				sum[key{pluginName(driver), "desired_state_of_world"}]++
			}
			for _, driver := range v.actual {
				sum[key{pluginName(driver), "actual_state_of_world"}]++
			}
			for plugin, n := range used {
				show(inUse, n, node, plugin)
			}
		}
		for k, n := range sum {
			show(total, n, k.plugin, k.state)
		}
		return nil
	}})
	return forced
}

func pluginName(driver string) string { return "kubernetes.io/csi:" + driver }

// count notes the volumes of a node.
func (c *Controller) count(node string, wants []*wanted, here []attachment) {
	var v volumes
	for _, w := range wants {
		v.desired = append(v.desired, w.driver)
	}
	for _, a := range here {
		v.actual = append(v.actual, a.Spec.Attacher)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.volumes[node] = v
}
