package dynamicresources

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/devices"
)

// Extended resources that are backed by devices (KEP-5004): what a pod asks for by their
// names, and a node's device plugins do not have, it gets by a special ResourceClaim
// that is made for it when its node has been chosen.

// classesOf returns the classes of the extended resources that a pod asks for.
func classesOf(pod *v1.Pod, resolver fwk.DeviceClassResolver) map[v1.ResourceName]*resourceapi.DeviceClass {
	var out map[v1.ResourceName]*resourceapi.DeviceClass
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for name := range list[i].Resources.Requests {
				if _, known := out[name]; known || count(&list[i], name) == 0 {
					continue
				}
				if class := resolver.GetDeviceClass(name); class != nil {
					if out == nil {
						out = map[v1.ResourceName]*resourceapi.DeviceClass{}
					}
					out[name] = class
				}
			}
		}
	}
	return out
}

func count(c *v1.Container, name v1.ResourceName) int64 {
	q := c.Resources.Requests[name]
	n, _ := q.AsInt64()
	return n
}

// asked is what a special claim asks for, and which container is given what of it.
type asked struct {
	requests []resourceapi.DeviceRequest
	mappings []v1.ContainerExtendedResourceRequest
}

// ask makes the requests for extended resources. A container that is to stay has its
// own; an init container that ends makes do with those of containers that come later, as
// far as they reach.
func ask(pod *v1.Pod, classes map[v1.ResourceName]*resourceapi.DeviceClass) asked {
	containers := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	own := make([][]resourceapi.DeviceRequest, len(containers))
	mappings := make([][]v1.ContainerExtendedResourceRequest, len(containers))
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		byContainer := make([]*resourceapi.DeviceRequest, len(containers))
		add := func(i int, n int64) {
			byContainer[i] = &resourceapi.DeviceRequest{
				Name: fmt.Sprintf("container-%d-request-%d", i, slices.Index(slices.Sorted(maps.Keys(containers[i].Resources.Requests)), name)),
				Exactly: &resourceapi.ExactDeviceRequest{
					DeviceClassName: classes[name].Name, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: n,
				},
			}
			own[i] = append(own[i], *byContainer[i])
		}
		use := func(i int, r *resourceapi.DeviceRequest) {
			mappings[i] = append(mappings[i], v1.ContainerExtendedResourceRequest{ContainerName: containers[i].Name, ResourceName: string(name), RequestName: r.Name})
		}
		ends := func(i int) bool {
			always := containers[i].RestartPolicy
			return i < len(pod.Spec.InitContainers) && (always == nil || *always != v1.ContainerRestartPolicyAlways)
		}
		for i := range containers {
			if n := count(&containers[i], name); n > 0 && !ends(i) {
				add(i, n)
				use(i, byContainer[i])
			}
		}
		for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
			if !ends(i) {
				continue
			}
			missing := count(&containers[i], name)
			for j := i + 1; j < len(containers) && missing > 0; j++ {
				if byContainer[j] != nil {
					missing -= byContainer[j].Exactly.Count
					use(i, byContainer[j])
				}
			}
			if missing > 0 {
				add(i, missing)
				use(i, byContainer[i])
			}
		}
	}
	return asked{slices.Concat(own...), slices.Concat(mappings...)}
}

// newSpecial makes the claim for what a pod asks for by the names of extended resources.
// It has the UID that stands for it until it has been created.
func newSpecial(pod *v1.Pod, requests []resourceapi.DeviceRequest) *resourceapi.ResourceClaim {
	controller := true
	return &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: "<extended-resources>", GenerateName: pod.Name + "-extended-resources-", UID: devices.SpecialUID(pod.UID),
			Annotations:     map[string]string{resourceapi.ExtendedResourceClaimAnnotation: "true"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID, Controller: &controller}},
		},
		Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: requests}},
	}
}

// leftOver finds the special claim of a pod that an earlier attempt has left.
func (p *Plugin) leftOver(pod *v1.Pod) (*resourceapi.ResourceClaim, error) {
	all, err := p.claims.List()
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if owner, special := devices.IsSpecial(c); special && owner == pod.UID && c.Namespace == pod.Namespace {
			return c, nil
		}
	}
	return nil, nil
}
