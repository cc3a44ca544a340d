package apiserver

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// trim implements cache.TransformFunc. It takes from an object, before one of the server's own informers
// keeps it, what the server does not ask about, and what makes up much of it.
func trim(obj any) (any, error) {
	if o, err := meta.Accessor(obj); err == nil {
		o.SetManagedFields(nil)
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		trimPod(pod)
	}
	return obj, nil
}

// trimPod leaves who a pod is, where it runs, what it refers to (authorization of nodes) and what
// it may do (pod security). How it is placed, what it runs and how it fares are nobody's business here.
func trimPod(pod *corev1.Pod) {
	pod.Labels = nil
	delete(pod.Annotations, corev1.LastAppliedConfigAnnotation)
	pod.Status = corev1.PodStatus{
		ResourceClaimStatuses: pod.Status.ResourceClaimStatuses, ExtendedResourceClaimStatus: pod.Status.ExtendedResourceClaimStatus,
	}
	s := &pod.Spec
	s.NodeSelector, s.Affinity, s.Tolerations, s.TopologySpreadConstraints = nil, nil, nil, nil
	s.Overhead, s.ReadinessGates, s.DNSConfig, s.HostAliases = nil, nil, nil, nil
	for i := range s.InitContainers {
		trimContainer(&s.InitContainers[i])
	}
	for i := range s.Containers {
		trimContainer(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		trimContainer((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

func trimContainer(c *corev1.Container) {
	c.Command, c.Args, c.VolumeMounts, c.VolumeDevices = nil, nil, nil, nil
	c.Resources, c.ResizePolicy = corev1.ResourceRequirements{}, nil
	c.Env = slices.Clip(slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool { return e.ValueFrom == nil }))
	if len(c.Env) == 0 {
		c.Env = nil
	}
}
