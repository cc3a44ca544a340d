package runtime

import v1 "k8s.io/api/core/v1"

// Kind is the role of a container in its pod.
type Kind string

// The kinds of containers.
const (
	Init      Kind = "init"
	Sidecar   Kind = "sidecar"
	Regular   Kind = "regular"
	Ephemeral Kind = "ephemeral"
)

// EachContainer calls f for each of a pod's containers: init containers and sidecars, regular ones,
// ephemeral ones, each in their order.
func EachContainer(pod *v1.Pod, f func(c *v1.Container, kind Kind)) {
	for i := range pod.Spec.InitContainers {
		kind := Init
		if IsSidecar(&pod.Spec.InitContainers[i]) {
			kind = Sidecar
		}
		f(&pod.Spec.InitContainers[i], kind)
	}
	for i := range pod.Spec.Containers {
		f(&pod.Spec.Containers[i], Regular)
	}
	for i := range pod.Spec.EphemeralContainers {
		f((*v1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon), Ephemeral)
	}
}
