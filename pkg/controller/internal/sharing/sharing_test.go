package sharing

import (
	"errors"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func pod(owner types.UID, cpu string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Labels:          map[string]string{"app": "web"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", UID: owner, Controller: ptr.To(true)}},
		},
		Spec: corev1.PodSpec{
			Tolerations: []corev1.Toleration{{Key: "a", TolerationSeconds: ptr.To[int64](3)}},
			Containers: []corev1.Container{{
				Image: "web", Ports: []corev1.ContainerPort{{ContainerPort: 80}}, Env: []corev1.EnvVar{{Name: "A"}},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
			}},
		},
	}
}

func same(a, b map[string]string) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

func sameAmounts(a, b corev1.ResourceList) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

func TestPods(t *testing.T) {
	transform := Pods(func(o any) (any, error) { return o, nil })
	put := func(p *corev1.Pod) *corev1.Pod {
		t.Helper()
		before := p.DeepCopy()
		if o, err := transform(p); err != nil || o != any(p) || !reflect.DeepEqual(p, before) {
			t.Fatalf("a pod has become %v (error %v)", o, err)
		}
		return p
	}
	a := put(pod("1", "1"))
	b := put(pod("1", "1"))
	if !same(a.Labels, b.Labels) || &a.OwnerReferences[0] != &b.OwnerReferences[0] || &a.Spec.Tolerations[0] != &b.Spec.Tolerations[0] {
		t.Error("equal pods of one owner share nothing")
	}
	if x, y := &a.Spec.Containers[0], &b.Spec.Containers[0]; &x.Ports[0] != &y.Ports[0] || &x.Env[0] != &y.Env[0] || !sameAmounts(x.Resources.Requests, y.Resources.Requests) {
		t.Error("equal containers share nothing")
	}
	// The same amount, written in another way.
	if c := put(pod("1", "1000m")); sameAmounts(a.Spec.Containers[0].Resources.Requests, c.Spec.Containers[0].Resources.Requests) {
		t.Error("a pod has another's amounts")
	}
	if d := put(pod("2", "1")); same(a.Labels, d.Labels) {
		t.Error("pods of two owners share labels")
	}
	alone := pod("", "1")
	alone.OwnerReferences = nil
	put(alone)
	put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: a.OwnerReferences}}) // has no container
	put(pod("1", "1"))

	if o, err := transform("another"); o != "another" || err != nil {
		t.Errorf("%v, %v", o, err)
	}
	broken := errors.New("broken")
	if _, err := Pods(func(o any) (any, error) { return o, broken })(a); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}
