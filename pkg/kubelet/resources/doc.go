// Package resources is what the kubelet knows and decides about a machine's
// resources: its capacity, what of it pods may have, and the cgroups that hold
// them to it.
//
// The hierarchy below the cgroup root is the original's, so that either kubelet
// takes over the other's pods:
//
//	kubepods                    node allocatable
//	├── pod<uid>                Guaranteed pods
//	├── burstable/pod<uid>      share of the CPU: the sum of the pods' requests
//	└── besteffort/pod<uid>     the smallest share there is
//
// What a cgroup's values should be is a pure function of the pod ([ForPod]);
// [Cgroups] applies it through github.com/opencontainers/cgroups, on versions 1
// and 2 and with either driver. Only directories below the cgroup root's kubepods
// are ever made, changed or removed.
package resources
