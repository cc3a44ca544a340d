package podresizevalidator

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func list(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

func TestValidate(t *testing.T) {
	node := func(name, os string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: os}}, Status: corev1.NodeStatus{Allocatable: list("4", "8Gi")}}
	}
	p := New()
	admissiontest.Start(t, p, node("linux", "linux"), node("windows", "windows"))
	for name, c := range map[string]struct {
		node        string
		subresource string
		requests    corev1.ResourceList
		overhead    corev1.ResourceList
		whole       corev1.ResourceList // of the pod
		same        bool                // spec
		err         string
		cause       metav1.CauseType
	}{
		"fits":               {node: "linux", subresource: "/resize", requests: list("4", "8Gi")},
		"too much CPU":       {node: "linux", subresource: "/resize", requests: list("5", "1Gi"), err: "node didn't have enough allocatable resources: cpu, requested: 5000, allocatable: 4000", cause: "NodeCapacity"},
		"too much of both":   {node: "linux", subresource: "/resize", requests: list("5", "9Gi"), err: "cpu, requested: 5000, allocatable: 4000; memory, requested: 9663676416, allocatable: 8589934592", cause: "NodeCapacity"},
		"too much overhead":  {node: "linux", subresource: "/resize", requests: list("4", "1Gi"), overhead: list("1", "0"), err: "cpu, requested: 5000", cause: "NodeCapacity"},
		"the pod says less":  {node: "linux", subresource: "/resize", requests: list("5", "1Gi"), whole: list("2", "1Gi")},
		"not by resize":      {node: "linux", requests: list("5", "1Gi")},
		"the status":         {node: "linux", subresource: "/status", requests: list("5", "1Gi")},
		"nothing changes":    {node: "linux", subresource: "/resize", requests: list("5", "1Gi"), same: true},
		"not on a node":      {subresource: "/resize", requests: list("5", "1Gi")},
		"another system":     {node: "windows", subresource: "/resize", requests: list("1", "1Gi"), err: `pod resize is only supported on linux nodes, node "windows" is "windows"`, cause: "UnsupportedPlatform"},
		"a node that is not": {node: "gone", subresource: "/resize", requests: list("1", "1Gi"), err: `node "gone" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Generation: 1}, Spec: corev1.PodSpec{NodeName: c.node}}
			pod := old.DeepCopy()
			if !c.same {
				pod.Generation = 2
			}
			pod.Spec.Containers, pod.Spec.Overhead = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: c.requests}}}, c.overhead
			if c.whole != nil {
				pod.Spec.Resources = &corev1.ResourceRequirements{Requests: c.whole}
			}
			err := admissiontest.Run(t, p, admissiontest.Request{Resource: "/pods" + c.subresource, Object: pod, Old: old}.Attributes(t))
			admissiontest.Check(t, err, c.err)
			if has := apierrors.HasStatusCause(err, c.cause); c.cause != "" && !has {
				t.Errorf("%v lacks the cause %s", err, c.cause)
			}
		})
	}
}
