package noderesources

import (
	"testing"

	configv1 "k8s.io/kube-scheduler/config/v1"
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
