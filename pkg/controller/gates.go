package controller

import (
	"fmt"
	"maps"
	"slices"

	"github.com/leme-k8s/leme/pkg/api/batch"
	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/controller/replicaset"
)

// Feature gates that the controllers heed, on and off.
const (
	gateGenericWorkload     = "GenericWorkload"
	gateMaxUnavailable      = "MaxUnavailableStatefulSet"
	gatePodDeletionCost     = "PodDeletionCost"
	gateResourcePoolStatus  = "DRAResourcePoolStatus"
	gateStorageVersions     = "StorageVersionAPI"
	gateTerminatingReplicas = "DeploymentReplicaSetTerminatingReplicas"
	gateUnusedClaims        = "PersistentVolumeClaimUnusedSinceTime"
	gateWorkloadClaims      = "DRAWorkloadResourceClaims"
	gateWorkloadWithJob     = batch.SchedulingFeature
)

var heededGates = []string{
	gateResourcePoolStatus, gateWorkloadClaims, gateTerminatingReplicas, gateGenericWorkload, gateMaxUnavailable, gateUnusedClaims, gatePodDeletionCost, gateStorageVersions,
	gateWorkloadWithJob,
}

// fixed are the gates that the original's controllers or the libraries below them look at, and that mean nothing
// here but their defaults. All others concern other components, or how a controller comes by what it does
// here anyway: one here never acts on a cache that lags behind its own writes, for example. They may have either value,
// since installers give the same list to all components.
var fixed = []string{
	"AllAlpha", "AllBeta",
	"APIServerIdentity", "AtomicFIFO", "CSIVolumeHealth", "ClientsAllowCARotation", "ClientsAllowCBOR", "ClientsAllowTLSCacheGC",
	"ClientsPreferCBOR", "ComponentFlagz", "ComponentStatusz", "ContextualLogging", "CoordinatedLeaderElection", "DRADeviceTaintRules",
	"DRADeviceTaints", "DRAExtendedResource", "HPAGeneration",
	"HPAScaleToZero", "InOrderInformersBatchProcess", "InformerResourceVersion", "LoggingAlphaOptions", "LoggingBetaOptions",
	"MutableSchedulingDirectivesForSuspendedJobs", "NodeControllerLeaseCircuitBreaker", "PodLevelResources",
	"SELinuxMount", "StatefulSetRecreateStrategy", "StatefulSetSemanticRevisionComparison",
	"UnlockWhileProcessingFIFO", "WatchListClient",
}

func (d *dependencies) replicaSetGates() replicaset.Gates {
	return replicaset.Gates{TerminatingReplicas: d.gates[gateTerminatingReplicas], PodDeletionCost: d.gates[gatePodDeletionCost]}
}

// resolveGates returns all feature gates as they are with those given, which may have the prefix of their component.
func resolveGates(given map[string]bool) (map[string]bool, error) {
	all, err := component.FeatureGates()
	if err != nil {
		return nil, err
	}
	resolved := make(map[string]bool, len(all))
	var free []string
	for name, gate := range all {
		resolved[name] = gate.Default
		if !slices.Contains(fixed, name) {
			free = append(free, name)
		}
	}
	given = component.WithoutPrefix(given)
	maps.Copy(resolved, given)
	if err := component.CheckFeatureGates(given, free...); err != nil {
		return nil, fmt.Errorf("--feature-gates: %w", err)
	}
	for _, name := range []string{gateWorkloadClaims, gateWorkloadWithJob} {
		if resolved[name] && !resolved[gateGenericWorkload] {
			return nil, fmt.Errorf("--feature-gates: %s is enabled, but depends on features that are disabled: [%s]", name, gateGenericWorkload)
		}
	}
	return resolved, nil
}
