package node

import (
	"context"

	v1 "k8s.io/api/core/v1"
)

// Machine says what the node has and what of it pods may use. Both may change while the
// kubelet runs (a device plugin, a resized machine).
type Machine interface {
	Capacity() v1.ResourceList
	Allocatable() v1.ResourceList
	// Info fills in MachineID, SystemUUID, BootID, KernelVersion, OSImage and swap.
	Info() v1.NodeSystemInfo
}

// Images lists what a node reports of its images: the largest first.
type Images interface {
	NodeImages(ctx context.Context) ([]v1.ContainerImage, error)
}

// Pressure reports the conditions MemoryPressure, DiskPressure and PIDPressure.
type Pressure interface {
	Conditions() []v1.NodeCondition
	// Changed is signalled (never blocking, capacity 1) when a condition changes.
	Changed() <-chan struct{}
}
