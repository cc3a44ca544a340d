package framework

import fwk "k8s.io/kube-scheduler/framework"

// Gates are the feature gates that change what a scheduler does. All are off by default.
type Gates struct {
	// GenericWorkload has pods of a PodGroup decided together, and gangs all or none.
	GenericWorkload bool `json:"genericWorkload,omitempty"`
	// TopologyAwareWorkloadScheduling keeps a PodGroup within one domain of a topology.
	TopologyAwareWorkloadScheduling bool `json:"topologyAwareWorkloadScheduling,omitempty"`
	// PodGroupPreemptionPolicy heeds the preemption policy of a PodGroup, not that of its pods.
	PodGroupPreemptionPolicy bool `json:"podGroupPreemptionPolicy,omitempty"`
	// DRAWorkloadResourceClaims has claims that a PodGroup names reserved for it, not for each of its pods.
	DRAWorkloadResourceClaims bool `json:"draWorkloadResourceClaims,omitempty"`
	// CompositePodGroup has groups of groups decided together.
	CompositePodGroup bool `json:"compositePodGroup,omitempty"`
}

// GatesOf returns the feature gates of the scheduler that lends h to a plugin.
func GatesOf(h fwk.Handle) Gates {
	if f, ok := h.(*Framework); ok {
		return f.Gates
	}
	return Gates{}
}
