package extendedresourcetoleration

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestAdmit(t *testing.T) {
	container := func(names ...corev1.ResourceName) corev1.Container {
		c := corev1.Container{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}}}
		for _, n := range names {
			c.Resources.Requests[n] = resource.MustParse("1")
		}
		return c
	}
	gpu := corev1.Toleration{Key: "example.com/gpu", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
	fpga := corev1.Toleration{Key: "example.com/fpga", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
	short := gpu
	short.TolerationSeconds = ptr.To[int64](1)
	for name, c := range map[string]struct {
		spec corev1.PodSpec
		want []corev1.Toleration
	}{
		"none":                  {spec: corev1.PodSpec{Containers: []corev1.Container{container("cpu", "memory", "hugepages-2Mi", "requests.example.com/gpu")}}},
		"containers of all":     {spec: corev1.PodSpec{Containers: []corev1.Container{container("cpu", "example.com/gpu")}, InitContainers: []corev1.Container{container("example.com/fpga")}}, want: []corev1.Toleration{fpga, gpu}},
		"twice":                 {spec: corev1.PodSpec{Containers: []corev1.Container{container("example.com/gpu"), container("example.com/gpu")}}, want: []corev1.Toleration{gpu}},
		"beside its own":        {spec: corev1.PodSpec{Containers: []corev1.Container{container("example.com/gpu")}, Tolerations: []corev1.Toleration{{Key: "a"}}}, want: []corev1.Toleration{{Key: "a"}, gpu}},
		"in place of a shorter": {spec: corev1.PodSpec{Containers: []corev1.Container{container("example.com/gpu")}, Tolerations: []corev1.Toleration{short}}, want: []corev1.Toleration{gpu}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: c.spec}
			for range 2 { // again after a webhook has changed something
				admissiontest.Check(t, admissiontest.Run(t, New(), admissiontest.Request{Resource: "/pods", Object: pod}.Attributes(t)), "")
				if !slices.Equal(pod.Spec.Tolerations, c.want) {
					t.Errorf("tolerations %v, want %v", pod.Spec.Tolerations, c.want)
				}
			}
		})
	}
}
