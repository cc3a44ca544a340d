package dynamicresources

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// container asks for so much of resources, given as name=amount.
func container(name string, asks ...string) v1.Container {
	c := v1.Container{Name: name, Resources: v1.ResourceRequirements{Requests: v1.ResourceList{}}}
	for _, a := range asks {
		r, n, _ := strings.Cut(a, "=")
		c.Resources.Requests[v1.ResourceName(r)] = resource.MustParse(n)
	}
	return c
}

// A container that stays has requests of its own, one that ends uses those of later ones.
func TestAsk(t *testing.T) {
	sidecar := func(c v1.Container) v1.Container {
		always := v1.ContainerRestartPolicyAlways
		c.RestartPolicy = &always
		return c
	}
	classes := map[v1.ResourceName]*resourceapi.DeviceClass{}
	for name, class := range map[string]string{"a.io/x": "cx", "a.io/y": "cy", resourceapi.ResourceDeviceClassPrefix + "cx": "cx"} {
		classes[v1.ResourceName(name)] = &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: class}}
	}
	for _, tc := range []struct {
		name              string
		init, containers  []v1.Container
		requests, mapping []string
	}{
		{"nothing", nil, []v1.Container{container("c", "cpu=1")}, nil, nil},
		{"none of it", nil, []v1.Container{container("c", "a.io/x=0")}, nil, nil},
		{"beside a resource that devices do not back", nil, []v1.Container{container("c", "a.io/a=1", "a.io/x=2")},
			[]string{"container-0-request-1 2 cx"}, []string{"c a.io/x container-0-request-1"}},
		{"two resources", nil, []v1.Container{container("c", "a.io/y=1", "a.io/x=2")},
			[]string{"container-0-request-0 2 cx", "container-0-request-1 1 cy"}, []string{"c a.io/x container-0-request-0", "c a.io/y container-0-request-1"}},
		{"a class by its name and by its resource", nil, []v1.Container{container("c", "a.io/x=2", resourceapi.ResourceDeviceClassPrefix+"cx=1")},
			[]string{"container-0-request-0 2 cx", "container-0-request-1 1 cx"},
			[]string{"c a.io/x container-0-request-0", "c deviceclass.resource.kubernetes.io/cx container-0-request-1"}},
		{"two containers", nil, []v1.Container{container("c", "a.io/x=1"), container("d", "a.io/x=2")},
			[]string{"container-0-request-0 1 cx", "container-1-request-0 2 cx"}, []string{"c a.io/x container-0-request-0", "d a.io/x container-1-request-0"}},
		{"init containers one after the other", []v1.Container{container("i", "a.io/y=1"), container("j", "a.io/y=2")}, []v1.Container{container("c", "a.io/x=1")},
			[]string{"container-1-request-0 2 cy", "container-2-request-0 1 cx"},
			[]string{"i a.io/y container-1-request-0", "j a.io/y container-1-request-0", "c a.io/x container-2-request-0"}},
		{"one before a sidecar, one after", []v1.Container{container("i", "a.io/y=1"), sidecar(container("s", "a.io/y=1")), container("j", "a.io/y=2")}, []v1.Container{container("c", "a.io/x=1")},
			[]string{"container-1-request-0 1 cy", "container-2-request-0 2 cy", "container-3-request-0 1 cx"},
			[]string{"i a.io/y container-1-request-0", "s a.io/y container-1-request-0", "j a.io/y container-2-request-0", "c a.io/x container-3-request-0"}},
		{"what is missing to an init container", []v1.Container{container("i", "a.io/x=3")}, []v1.Container{container("c", "a.io/x=1")},
			[]string{"container-0-request-0 2 cx", "container-1-request-0 1 cx"},
			[]string{"i a.io/x container-1-request-0", "i a.io/x container-0-request-0", "c a.io/x container-1-request-0"}},
	} {
		got := ask(&v1.Pod{Spec: v1.PodSpec{InitContainers: tc.init, Containers: tc.containers}}, classes)
		var requests, mapping []string
		for _, r := range got.requests {
			requests = append(requests, fmt.Sprint(r.Name, " ", r.Exactly.Count, " ", r.Exactly.DeviceClassName))
		}
		for _, m := range got.mappings {
			mapping = append(mapping, m.ContainerName+" "+m.ResourceName+" "+m.RequestName)
		}
		if !slices.Equal(requests, tc.requests) || !slices.Equal(mapping, tc.mapping) {
			t.Errorf("%s: %q, %q\nwant %q, %q", tc.name, requests, mapping, tc.requests, tc.mapping)
		}
	}
}
