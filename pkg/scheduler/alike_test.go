package scheduler

import (
	"maps"
	"reflect"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Pods that are alike share their parts, different ones do not, and none changes.
func TestAlike(t *testing.T) {
	tolerant := func(p *v1.Pod) { p.Spec.Tolerations = []v1.Toleration{{Key: "k", Operator: v1.TolerationOpExists}} }
	same := func(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
	web := func() *v1.Pod { return makePod("p", "1", "1Gi", app("web"), tolerant) }
	var a alike
	first, second := web(), web()
	a.pod(first)
	a.pod(second)
	if !reflect.DeepEqual(second, web()) {
		t.Errorf("the pod has changed: %v", second)
	}
	if !same(first.Labels, second.Labels) || !same(first.Spec.Tolerations, second.Spec.Tolerations) ||
		!same(first.Spec.Containers[0].Resources.Requests, second.Spec.Containers[0].Resources.Requests) {
		t.Error("pods that are alike share nothing")
	}
	for name, change := range map[string]func(*v1.Pod){
		"labels":  app("db"),
		"amounts": func(p *v1.Pod) { p.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = resource.MustParse("2") },
		"names": func(p *v1.Pod) {
			r := p.Spec.Containers[0].Resources.Requests
			r[v1.ResourceEphemeralStorage] = r[v1.ResourceMemory]
			delete(r, v1.ResourceMemory)
		},
		"tolerations": func(p *v1.Pod) { p.Spec.Tolerations[0].Key = "l" },
		"no value":    func(p *v1.Pod) { p.Labels = map[string]string{"app": "", "web": ""} },
		"none at all": func(p *v1.Pod) { p.Labels, p.Spec.Tolerations, p.Spec.Containers = nil, nil, nil },
	} {
		other, want := web(), web()
		change(other)
		change(want)
		if a.pod(other); !reflect.DeepEqual(other, want) {
			t.Errorf("%s: the pod is %v, want %v", name, other, want)
		}
	}
	if !maps.Equal(first.Labels, web().Labels) {
		t.Errorf("the first pod has changed: %v", first)
	}
}
