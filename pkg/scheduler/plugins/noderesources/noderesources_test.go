package noderesources

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

func TestBalance(t *testing.T) {
	type node struct{ cpu, cpuBefore, cpuAfter, memory, memoryBefore, memoryAfter int64 }
	for _, tc := range []struct {
		name string
		node node
		want int64
	}{
		{"from empty to uneven", node{4000, 0, 3000, 10000, 0, 5000}, 68},
		{"from empty to even", node{6000, 0, 3000, 10000, 0, 5000}, 75},
		{"uneven and more so", node{10000, 3000, 6000, 50000, 5000, 10000}, 70},
		{"evened out", node{3000, 3000, 3000, 5000, 0, 5000}, 100},
		{"from even to as uneven as can be", node{3000, 0, 0, 5000, 0, 5000}, 50},
	} {
		n := tc.node
		list := []use{{n.cpu, n.cpuBefore, n.cpuAfter, 1}, {n.memory, n.memoryBefore, n.memoryAfter, 1}}
		without, with := balance(list, func(u use) int64 { return u.before }), balance(list, func(u use) int64 { return u.after })
		if got := (with - without + 150) / 2; got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestStrategies(t *testing.T) {
	half := []use{{allocatable: 100, after: 50, weight: 1}, {allocatable: 1000, after: 500, weight: 3}}
	mixed := []use{{allocatable: 100, after: 90, weight: 1}, {allocatable: 100, after: 10, weight: 1}}
	over := []use{{allocatable: 100, after: 200, weight: 1}}
	shape := []configv1.UtilizationShapePoint{{Utilization: 0, Score: 0}, {Utilization: 100, Score: 10}}
	for _, tc := range []struct {
		name  string
		score func([]use) int64
		list  []use
		want  int64
	}{
		{"least, half full", func(l []use) int64 { return weightedMean(l, leastAllocated) }, half, 50},
		{"least, mixed", func(l []use) int64 { return weightedMean(l, leastAllocated) }, mixed, 50},
		{"least, more than there is", func(l []use) int64 { return weightedMean(l, leastAllocated) }, over, 0},
		{"most, half full", func(l []use) int64 { return weightedMean(l, mostAllocated) }, half, 50},
		{"most, more than there is", func(l []use) int64 { return weightedMean(l, mostAllocated) }, over, 100},
		{"ratio, half full", capacityRatio(shape), half, 50},
		{"ratio, mixed", capacityRatio(shape), mixed, 50},
		{"nothing to weigh", func(l []use) int64 { return weightedMean(l, leastAllocated) }, nil, 0},
	} {
		if got := tc.score(tc.list); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// A class is worth a look for the pods that ask for what it comes to stand for.
func TestNewlyBacked(t *testing.T) {
	class := func(name, resource string) *resourceapi.DeviceClass {
		c := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if resource != "" {
			c.Spec.ExtendedResourceName = &resource
		}
		return c
	}
	for _, tc := range []struct {
		name     string
		asks     v1.ResourceName
		old, new any
		want     fwk.QueueingHint
		bad      bool
	}{
		{"a class with the name", "a.io/x", nil, class("c", "a.io/x"), fwk.Queue, false},
		{"a class with another name", "a.io/x", nil, class("c", "a.io/y"), fwk.QueueSkip, false},
		{"a class without one", "a.io/x", nil, class("c", ""), fwk.QueueSkip, false},
		{"the class itself", "deviceclass.resource.kubernetes.io/c", nil, class("c", "a.io/y"), fwk.Queue, false},
		{"another class", "deviceclass.resource.kubernetes.io/d", nil, class("c", "a.io/y"), fwk.QueueSkip, false},
		{"it gets the name", "a.io/x", class("c", "a.io/y"), class("c", "a.io/x"), fwk.Queue, false},
		{"it has the name", "a.io/x", class("c", "a.io/x"), class("c", "a.io/x"), fwk.QueueSkip, false},
		{"it was there", "deviceclass.resource.kubernetes.io/c", class("c", ""), class("c", "a.io/y"), fwk.QueueSkip, false},
		{"something else", "a.io/x", nil, "hello", fwk.Queue, true},
		{"something else before", "a.io/x", "hello", class("c", "a.io/x"), fwk.Queue, true},
	} {
		pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: v1.ResourceList{tc.asks: resource.MustParse("1")}}}}}}
		if got, err := newlyBacked(klog.Background(), pod, tc.old, tc.new); got != tc.want || (err != nil) != tc.bad {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
}
