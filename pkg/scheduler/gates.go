package scheduler

import (
	"fmt"
	"slices"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// The feature gates that the scheduler heeds, on and off.
const (
	gateGenericWorkload   = "GenericWorkload"
	gateTopologyAware     = "TopologyAwareWorkloadScheduling"
	gatePreemptionPolicy  = "PodGroupPreemptionPolicy"
	gateResourceClaims    = "DRAWorkloadResourceClaims"
	gateCompositePodGroup = "CompositePodGroup"
)

var heededGates = []string{gateGenericWorkload, gateTopologyAware, gatePreemptionPolicy, gateResourceClaims, gateCompositePodGroup}

// gatesOf returns the feature gates as they are with those given.
func gatesOf(given map[string]bool) (framework.Gates, error) {
	if err := component.CheckFeatureGates(given, heededGates...); err != nil {
		return framework.Gates{}, err
	}
	var errs []error
	for _, gate := range []struct {
		name  string
		needs []string
	}{
		{gateResourceClaims, []string{gateGenericWorkload}},
		{gatePreemptionPolicy, []string{gateGenericWorkload}},
		{gateTopologyAware, []string{gateGenericWorkload}},
		{gateCompositePodGroup, []string{gateGenericWorkload, gateTopologyAware}},
	} {
		missing := slices.DeleteFunc(gate.needs, func(need string) bool { return given[need] })
		if given[gate.name] && len(missing) > 0 {
			errs = append(errs, fmt.Errorf("%s is enabled, but depends on features that are disabled: %v", gate.name, missing))
		}
	}
	if len(errs) > 0 {
		return framework.Gates{}, utilerrors.NewAggregate(errs)
	}
	return framework.Gates{
		GenericWorkload:                 given[gateGenericWorkload],
		TopologyAwareWorkloadScheduling: given[gateTopologyAware],
		PodGroupPreemptionPolicy:        given[gatePreemptionPolicy],
		DRAWorkloadResourceClaims:       given[gateResourceClaims],
		CompositePodGroup:               given[gateCompositePodGroup],
	}, nil
}
