package quota

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apiserver/pkg/admission"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/component-helpers/storage/volume"
)

// allUpdates handles all updates but those of a part.
func allUpdates(a admission.Attributes) bool { return a.GetSubresource() == "" }

func services(list generic.ListFuncByNamespace) quota.Evaluator {
	return &evaluator[*corev1.Service]{
		resource: corev1.Resource("services"),
		list:     list,
		handles:  allUpdates,
		measures: func(name corev1.ResourceName) bool {
			switch name {
			case corev1.ResourceServices, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
				return true
			}
			return false
		},
		usage: func(s *corev1.Service) (corev1.ResourceList, error) { return serviceUsage(s), nil },
	}
}

func serviceUsage(s *corev1.Service) corev1.ResourceList {
	nodePorts, loadBalancers := 0, 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		nodePorts = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		loadBalancers = 1
		allocates := s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts
		for _, p := range s.Spec.Ports {
			if allocates || p.NodePort != 0 {
				nodePorts++
			}
		}
	}
	return corev1.ResourceList{
		corev1.ResourceServices:              number(1),
		corev1.ResourceServicesNodePorts:     number(nodePorts),
		corev1.ResourceServicesLoadBalancers: number(loadBalancers),
	}
}

// classSuffix is between the name of a StorageClass and what is limited in it.
const classSuffix = ".storageclass.storage.k8s.io/"

func claims(list generic.ListFuncByNamespace) quota.Evaluator {
	limited := []corev1.ResourceName{corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage}
	return &evaluator[*corev1.PersistentVolumeClaim]{
		resource: corev1.Resource("persistentvolumeclaims"),
		list:     list,
		handles:  allUpdates,
		measures: func(name corev1.ResourceName) bool {
			if _, inClass, ok := strings.Cut(string(name), classSuffix); ok {
				name = corev1.ResourceName(inClass)
			}
			return slices.Contains(limited, name)
		},
		inScope: claimInScope,
		usage:   func(c *corev1.PersistentVolumeClaim) (corev1.ResourceList, error) { return claimUsage(c), nil },
	}
}

func claimUsage(c *corev1.PersistentVolumeClaim) corev1.ResourceList {
	used := corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: number(1)}
	class := corev1.ResourceName(volume.GetPersistentVolumeClaimClass(c))
	if class != "" {
		used[class+classSuffix+corev1.ResourcePersistentVolumeClaims] = number(1)
	}
	if storage, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
		// An expansion that failed may have taken more than is now asked for.
		if allocated := c.Status.AllocatedResources[corev1.ResourceStorage]; allocated.Cmp(storage) > 0 {
			storage = allocated
		}
		storage = storage.DeepCopy()
		storage.RoundUp(resource.Scale(0))
		used[corev1.ResourceRequestsStorage] = storage
		if class != "" {
			used[class+classSuffix+corev1.ResourceRequestsStorage] = storage
		}
	}
	return used
}

// claimInScope selects by the classes that the volume has, will have or may get.
func claimInScope(s corev1.ScopedResourceSelectorRequirement, c *corev1.PersistentVolumeClaim) (bool, error) {
	if s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
		return false, nil
	}
	var classes []string
	for _, name := range []*string{c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName} {
		if name != nil && *name != "" {
			classes = append(classes, *name)
		}
	}
	if m := c.Status.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" {
		classes = append(classes, m.TargetVolumeAttributesClassName)
	}
	selected := slices.ContainsFunc(classes, func(class string) bool { return slices.Contains(s.Values, class) })
	switch s.Operator {
	case corev1.ScopeSelectorOpExists:
		return len(classes) > 0, nil
	case corev1.ScopeSelectorOpDoesNotExist:
		return len(classes) == 0, nil
	case corev1.ScopeSelectorOpIn:
		return selected, nil
	case corev1.ScopeSelectorOpNotIn:
		return !selected, nil
	}
	return false, fmt.Errorf("%q is not a valid operator", s.Operator)
}
