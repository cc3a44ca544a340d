package scheduler

import (
	"fmt"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// The feature gates that the scheduler heeds, on and off. All need the first.
const (
	gateGenericWorkload  = "GenericWorkload"
	gateTopologyAware    = "TopologyAwareWorkloadScheduling"
	gatePreemptionPolicy = "PodGroupPreemptionPolicy"
	gateResourceClaims   = "DRAWorkloadResourceClaims"
)

// gatesOf returns the feature gates as they are with those given.
func gatesOf(given map[string]bool) (framework.Gates, error) {
	if err := component.CheckFeatureGates(given, gateGenericWorkload, gateTopologyAware, gatePreemptionPolicy, gateResourceClaims); err != nil {
		return framework.Gates{}, err
	}
	for _, name := range []string{gateResourceClaims, gatePreemptionPolicy, gateTopologyAware} {
		if given[name] && !given[gateGenericWorkload] {
			return framework.Gates{}, fmt.Errorf("%s is enabled, but depends on features that are disabled: [%s]", name, gateGenericWorkload)
		}
	}
	return framework.Gates{
		GenericWorkload:                 given[gateGenericWorkload],
		TopologyAwareWorkloadScheduling: given[gateTopologyAware],
		PodGroupPreemptionPolicy:        given[gatePreemptionPolicy],
		DRAWorkloadResourceClaims:       given[gateResourceClaims],
	}, nil
}
