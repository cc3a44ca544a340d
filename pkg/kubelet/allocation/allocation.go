// Package allocation knows what the node has given to each pod of CPU and memory. A pod's
// specification says what is wanted, and may change while the pod runs; the node allocates it when it has
// room, and only then are cgroups changed. What is allocated and what is in force are kept in files, under the
// names and in the format of the original, so that a restarted kubelet of either kind neither takes
// back nor applies anew what was settled before.
package allocation

import (
	"maps"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The files below the kubelet's directory.
const (
	// AllocatedFile has what the node has promised to its pods.
	AllocatedFile = "allocated_pods_state"
	// ActuatedFile has what was last applied to their cgroups.
	ActuatedFile = "actuated_pods_state"
)

// Resources are those of one pod.
type Resources struct {
	// Containers are by name, init containers among them.
	Containers map[string]v1.ResourceRequirements `json:"ContainerResources"`
	// Pod is what holds for the pod as a whole; nil if it says nothing about that.
	Pod *v1.ResourceRequirements `json:"PodLevelResources"`
	// EmptyDirs is what another kubelet noted of volumes in memory, whose size this one does not change.
	EmptyDirs map[string]*resource.Quantity `json:"EmptyDirVolumeLimits"`
}

// Of returns what a pod's specification asks for.
func Of(pod *v1.Pod) Resources {
	r := Resources{Containers: map[string]v1.ResourceRequirements{}, Pod: pod.Spec.Resources.DeepCopy()}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			r.Containers[list[i].Name] = *list[i].Resources.DeepCopy()
		}
	}
	return r
}

// Fits tells whether a pod's specification asks for exactly these resources.
func (r Resources) Fits(pod *v1.Pod) bool {
	if !apiequality.Semantic.DeepEqual(r.Pod, pod.Spec.Resources) {
		return false
	}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if own, ok := r.Containers[list[i].Name]; ok && !apiequality.Semantic.DeepEqual(own, list[i].Resources) {
				return false
			}
		}
	}
	return true
}

// Apply returns the pod with these resources in place of those it asks for.
func (r Resources) Apply(pod *v1.Pod) *v1.Pod {
	if r.Fits(pod) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Spec.Resources = r.Pod.DeepCopy()
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if own, ok := r.Containers[list[i].Name]; ok {
				list[i].Resources = *own.DeepCopy()
			}
		}
	}
	return pod
}

func (r Resources) clone() Resources {
	r.Containers, r.Pod = maps.Clone(r.Containers), r.Pod.DeepCopy()
	return r
}

// Effective is what holds for a container: its own resources, and the pod's limits where it has none itself.
func Effective(pod *v1.Pod, c *v1.Container) v1.ResourceRequirements {
	r := c.Resources
	if pod.Spec.Resources == nil {
		return r
	}
	limits := maps.Clone(r.Limits)
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		own := r.Limits[name]
		if whole := pod.Spec.Resources.Limits[name]; own.IsZero() && !whole.IsZero() {
			if limits == nil {
				limits = v1.ResourceList{}
			}
			limits[name] = whole
		}
	}
	r.Limits = limits
	return r
}
