package quota

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
)

func resourceClaims(list generic.ListFuncByNamespace) quota.Evaluator {
	return &evaluator[*resourcev1.ResourceClaim]{
		resource: resourcev1.Resource("resourceclaims"),
		list:     list,
		handles:  allUpdates,
		measures: func(name corev1.ResourceName) bool {
			return strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass)
		},
		usage: devicesOf,
	}
}

// devicesOf counts the devices of each class that a claim may get: of alternatives, the one with the most.
func devicesOf(c *resourcev1.ResourceClaim) corev1.ResourceList {
	most := map[string]int64{}
	for _, r := range c.Spec.Devices.Requests {
		ofRequest := map[string]int64{}
		if r.Exactly != nil {
			ofRequest[r.Exactly.DeviceClassName] = devices(r.Exactly.AllocationMode, r.Exactly.Count)
		}
		for _, sub := range r.FirstAvailable {
			ofRequest[sub.DeviceClassName] = max(ofRequest[sub.DeviceClassName], devices(sub.AllocationMode, sub.Count))
		}
		for class, n := range ofRequest {
			most[class] += n
		}
	}
	used := corev1.ResourceList{}
	for class, n := range most {
		used[corev1.ResourceName(class+corev1.ResourceClaimsPerClass)] = number(int(n))
	}
	return used
}

// devices is how many devices are asked for. "All" may turn out to be as many as a claim can have.
func devices(mode resourcev1.DeviceAllocationMode, count int64) int64 {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return count
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize
	}
	return 0
}
