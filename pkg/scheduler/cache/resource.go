package cache

import (
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	fwk "k8s.io/kube-scheduler/framework"
)

// What a container that asks for nothing is taken to need when nodes are scored,
// so that pods without requests still spread.
const (
	defaultMilliCPURequest = 100
	defaultMemoryRequest   = 200 * 1024 * 1024
)

// Resource is an amount of every resource: CPU in thousandths of a core, memory and
// storage in bytes, the rest in their own units.
type Resource struct {
	MilliCPU         int64
	Memory           int64
	EphemeralStorage int64
	AllowedPodNumber int
	Scalar           map[v1.ResourceName]int64
}

var _ fwk.Resource = &Resource{}

// NewResource returns the amounts in a resource list.
func NewResource(list v1.ResourceList) *Resource {
	r := &Resource{}
	r.AddList(list)
	return r
}

// AddList adds the amounts in a resource list. An amount below zero, which no valid object has, is none:
// it would make room that is not there.
func (r *Resource) AddList(list v1.ResourceList) {
	for name, q := range list {
		if q.Sign() < 0 {
			continue
		}
		switch name {
		case v1.ResourceCPU:
			r.MilliCPU += q.MilliValue()
		case v1.ResourceMemory:
			r.Memory += q.Value()
		case v1.ResourceEphemeralStorage:
			r.EphemeralStorage += q.Value()
		case v1.ResourcePods:
			r.AllowedPodNumber += int(q.Value())
		default:
			r.addScalar(name, q.Value())
		}
	}
}

// Add adds sign times other.
func (r *Resource) add(other *Resource, sign int64) {
	r.MilliCPU += sign * other.MilliCPU
	r.Memory += sign * other.Memory
	r.EphemeralStorage += sign * other.EphemeralStorage
	for name, v := range other.Scalar {
		r.addScalar(name, sign*v)
	}
}

func (r *Resource) addScalar(name v1.ResourceName, v int64) {
	if r.Scalar == nil {
		r.Scalar = map[v1.ResourceName]int64{}
	}
	r.Scalar[name] += v
}

// Clone returns a copy that shares nothing.
func (r *Resource) Clone() *Resource {
	c := *r
	c.Scalar = maps.Clone(r.Scalar)
	return &c
}

// GetMilliCPU returns thousandths of a core.
func (r *Resource) GetMilliCPU() int64 { return r.MilliCPU }

// GetMemory returns bytes.
func (r *Resource) GetMemory() int64 { return r.Memory }

// GetEphemeralStorage returns bytes.
func (r *Resource) GetEphemeralStorage() int64 { return r.EphemeralStorage }

// GetAllowedPodNumber returns how many pods a node takes.
func (r *Resource) GetAllowedPodNumber() int { return r.AllowedPodNumber }

// GetScalarResources returns extended resources, huge pages and attachable volumes.
func (r *Resource) GetScalarResources() map[v1.ResourceName]int64 { return r.Scalar }

// SetMaxResource raises each amount to that in the list where the list has more.
func (r *Resource) SetMaxResource(list v1.ResourceList) {
	other := NewResource(list)
	r.MilliCPU = max(r.MilliCPU, other.MilliCPU)
	r.Memory = max(r.Memory, other.Memory)
	r.EphemeralStorage = max(r.EphemeralStorage, other.EphemeralStorage)
	for name, v := range other.Scalar {
		if v > r.Scalar[name] {
			r.addScalar(name, v-r.Scalar[name])
		}
	}
}

// podResource computes what a pod asks for: what was allocated to it counts as well
// as what it wants, since a resize in place (KEP-1287) may have been granted or not.
func podResource(pod *v1.Pod) fwk.PodResource {
	opts := resourcehelper.PodResourcesOptions{
		UseStatusResources: true,
		InPlacePodLevelResourcesVerticalScalingEnabled: true,
	}
	requests := requestsOf(pod, opts)
	if saysAll(pod) {
		return fwk.PodResource{Resource: NewResource(requests), Non0CPU: max(requests.Cpu().MilliValue(), 0), Non0Mem: max(requests.Memory().Value(), 0)}
	}
	opts.NonMissingContainerRequests = leastRequests(pod, requests)
	nonZero := resourcehelper.PodRequests(pod, opts)
	return fwk.PodResource{
		Resource: NewResource(requests),
		Non0CPU:  max(nonZero.Cpu().MilliValue(), 0),
		Non0Mem:  max(nonZero.Memory().Value(), 0),
	}
}

// requestsOf returns what a pod asks for; of the only container of one that no kubelet has seen, which
// most new pods are, without adding up anything. It is only read.
func requestsOf(pod *v1.Pod, opts resourcehelper.PodResourcesOptions) v1.ResourceList {
	if len(pod.Spec.Containers) == 1 && len(pod.Spec.InitContainers)+len(pod.Status.ContainerStatuses) == 0 &&
		pod.Spec.Overhead == nil && pod.Spec.Resources == nil {
		return pod.Spec.Containers[0].Resources.Requests
	}
	return resourcehelper.PodRequests(pod, opts)
}

// saysAll reports whether each container of a pod that no kubelet has seen asks for
// processor and memory, so that there is nothing to assume.
func saysAll(pod *v1.Pod) bool {
	silent := func(c v1.Container) bool {
		_, cpu := c.Resources.Requests[v1.ResourceCPU]
		_, memory := c.Resources.Requests[v1.ResourceMemory]
		return !cpu || !memory
	}
	return len(pod.Status.ContainerStatuses)+len(pod.Status.InitContainerStatuses) == 0 &&
		!slices.ContainsFunc(pod.Spec.Containers, silent) && !slices.ContainsFunc(pod.Spec.InitContainers, silent)
}

// leastRequests are what a container counts for that does not say what it asks for. Where the pod
// as a whole says so, they matter only for what it leaves out.
func leastRequests(pod *v1.Pod, requests v1.ResourceList) v1.ResourceList {
	least := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewMilliQuantity(defaultMilliCPURequest, resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(defaultMemoryRequest, resource.BinarySI),
	}
	if resourcehelper.IsPodLevelRequestsSet(pod) {
		maps.DeleteFunc(least, func(name v1.ResourceName, _ resource.Quantity) bool {
			_, said := requests[name]
			return said
		})
	}
	return least
}
