package devices

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// GetDeviceClass returns the class whose devices an extended resource stands for, nil if
// there is none (KEP-5004): the one that the name of the resource names, or the one that
// names the resource. Where several do, that is the youngest, and of equals the first by name.
func (l classLister) GetDeviceClass(name v1.ResourceName) *resourceapi.DeviceClass {
	if class, implicit := strings.CutPrefix(string(name), resourceapi.ResourceDeviceClassPrefix); implicit {
		c, err := l.Get(class)
		if err != nil {
			return nil
		}
		return c
	}
	if !strings.Contains(string(name), "/") { // Kubernetes' own
		return nil
	}
	all, err := l.List()
	if err != nil {
		return nil
	}
	var found *resourceapi.DeviceClass
	for _, c := range all {
		if c.Spec.ExtendedResourceName != nil && *c.Spec.ExtendedResourceName == string(name) && (found == nil || rather(c, found)) {
			found = c
		}
	}
	return found
}

func rather(a, b *resourceapi.DeviceClass) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.Name < b.Name
	}
	return b.CreationTimestamp.Before(&a.CreationTimestamp)
}

// OnNode reports whether a node has an extended resource of its own, from a device
// plugin. A pod gets it from there then, whatever class there is.
func OnNode(node fwk.NodeInfo, name v1.ResourceName) bool {
	return node.GetAllocatable().GetScalarResources()[name] > 0
}
