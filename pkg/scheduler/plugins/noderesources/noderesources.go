// Package noderesources has the two plugins that weigh CPU, memory and all other
// resources: NodeResourcesFit, which rejects nodes without room and prefers those with
// much (or little) of it left, and NodeResourcesBalancedAllocation, which prefers nodes
// whose resources are used evenly.
package noderesources

import (
	"context"
	"fmt"
	"math"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/devices"
)

// request is what a pod asks for, computed once for an attempt.
type request struct {
	fwk.PodResource
	// classes are those of the extended resources that devices back (KEP-5004). Of these
	// a node need not have any itself.
	classes map[v1.ResourceName]*resourceapi.DeviceClass
	// devices are how many there are of each such resource that is weighed.
	devices map[v1.ResourceName]*devices.Count
}

// Clone returns the amounts themselves, which do not change.
func (r *request) Clone() fwk.StateData { return r }

func requestOf(pod *v1.Pod) (*request, error) {
	info, err := cache.NewPodInfo(pod)
	return &request{PodResource: info.CalculateResource()}, err
}

// byDevices adds what devices back of what the pod asks for.
func (r *request) byDevices(known *devices.Manager) *request {
	for name, n := range r.Resource.GetScalarResources() {
		if n == 0 {
			continue
		}
		if class := known.DeviceClassResolver().GetDeviceClass(name); class != nil {
			if r.classes == nil {
				r.classes = map[v1.ResourceName]*resourceapi.DeviceClass{}
			}
			r.classes[name] = class
		}
	}
	return r
}

// toWeigh returns what the pod asks for, as PreFilter has summed it up or anew where it has
// not, with the numbers of devices that back resources which are weighed.
func toWeigh(ctx context.Context, state fwk.CycleState, pod *v1.Pod, resources []configv1.ResourceSpec, known *devices.Manager) (*request, error) {
	var r *request
	if s, err := state.Read(fitFilterKey); err == nil {
		r = s.(*request)
	} else if r, err = requestOf(pod); err != nil {
		return nil, err
	} else {
		r.byDevices(known)
	}
	counted := *r
	for _, spec := range resources {
		name := v1.ResourceName(spec.Name)
		class, ok := r.classes[name]
		if !ok {
			continue
		}
		n, err := known.Count(ctx, class)
		if err != nil {
			return nil, err
		}
		if counted.devices == nil {
			counted.devices = map[v1.ResourceName]*devices.Count{}
		}
		counted.devices[name] = n
	}
	return &counted, nil
}

// sign tells pods apart by what they ask for. One that asks for devices takes some of its
// own.
func sign(pod *v1.Pod, known *devices.Manager) ([]fwk.SignFragment, *fwk.Status) {
	r, err := requestOf(pod)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	if len(r.byDevices(known).classes) > 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, "pods with extended resources that are backed by devices are not signable")
	}
	return []fwk.SignFragment{{Key: fwk.ResourcesSignerName, Value: r.PodResource}}, nil
}

// knownDevices is what the handle of a plugin knows of devices.
func knownDevices(h fwk.Handle) (*devices.Manager, error) {
	known, ok := h.SharedDRAManager().(*devices.Manager)
	if !ok {
		return nil, fmt.Errorf("the handle knows devices by a %T", h.SharedDRAManager())
	}
	return known, nil
}

// amount returns one resource out of many.
func amount(r fwk.Resource, name v1.ResourceName) int64 {
	switch name {
	case v1.ResourceCPU:
		return r.GetMilliCPU()
	case v1.ResourceMemory:
		return r.GetMemory()
	case v1.ResourceEphemeralStorage:
		return r.GetEphemeralStorage()
	}
	return r.GetScalarResources()[name]
}

func isScalar(name v1.ResourceName) bool {
	return name != v1.ResourceCPU && name != v1.ResourceMemory && name != v1.ResourceEphemeralStorage
}

// use is how much of one resource a node offers, is asked for now, and would be with the pod.
type use struct{ allocatable, before, after, weight int64 }

// uses lists the resources to weigh. With nonZero a container that asks for no CPU or
// memory counts for a little. An extended resource that the pod does not ask for, or
// any that the node does not have, is left out.
func uses(resources []configv1.ResourceSpec, r *request, node fwk.NodeInfo, nonZero bool) []use {
	out := make([]use, 0, len(resources))
	for _, spec := range resources {
		name := v1.ResourceName(spec.Name)
		wanted, used := amount(r.Resource, name), amount(node.GetRequested(), name)
		if nonZero {
			switch name {
			case v1.ResourceCPU:
				wanted, used = r.Non0CPU, node.GetNonZeroRequested().GetMilliCPU()
			case v1.ResourceMemory:
				wanted, used = r.Non0Mem, node.GetNonZeroRequested().GetMemory()
			}
		}
		allocatable := amount(node.GetAllocatable(), name)
		if c, ok := r.devices[name]; ok && !devices.OnNode(node, name) {
			allocatable, used = c.On(node.Node())
		}
		if allocatable == 0 || wanted == 0 && isScalar(name) {
			continue
		}
		out = append(out, use{allocatable, used, used + wanted, spec.Weight})
	}
	return out
}

// weightedMean is the mean of a score over resources.
func weightedMean(list []use, score func(use) int64) int64 {
	var sum, weights int64
	for _, u := range list {
		sum += score(u) * u.weight
		weights += u.weight
	}
	if weights == 0 {
		return 0
	}
	return sum / weights
}

func leastAllocated(u use) int64 {
	if u.after > u.allocatable {
		return 0
	}
	return (u.allocatable - u.after) * fwk.MaxNodeScore / u.allocatable
}

func mostAllocated(u use) int64 {
	return min(u.after, u.allocatable) * fwk.MaxNodeScore / u.allocatable
}

// capacityRatio scores by a line through points (utilization in percent, score 0…10),
// level before the first and after the last.
func capacityRatio(shape []configv1.UtilizationShapePoint) func(list []use) int64 {
	line := func(utilization int64) int64 {
		for i, p := range shape {
			if utilization > int64(p.Utilization) {
				continue
			}
			if i == 0 {
				return int64(p.Score) * 10
			}
			from := shape[i-1]
			return int64(from.Score)*10 + int64(p.Score-from.Score)*10*(utilization-int64(from.Utilization))/int64(p.Utilization-from.Utilization)
		}
		return int64(shape[len(shape)-1].Score) * 10
	}
	return func(list []use) int64 {
		var sum, weights int64
		for _, u := range list {
			utilization := int64(100)
			if u.after <= u.allocatable {
				utilization = 100 - (u.allocatable-u.after)*100/u.allocatable
			}
			// A resource with score 0 does not pull the others down.
			if s := line(utilization); s > 0 {
				sum += s * u.weight
				weights += u.weight
			}
		}
		if weights == 0 {
			return 0
		}
		return int64(math.Round(float64(sum) / float64(weights)))
	}
}

// balance is 100 when the given uses are equal fractions of what the node offers, and
// falls to 50 with their standard deviation.
func balance(list []use, used func(use) int64) int64 {
	if len(list) < 2 {
		return fwk.MaxNodeScore
	}
	fractions := make([]float64, len(list))
	var mean, variance float64
	for i, u := range list {
		fractions[i] = min(float64(used(u))/float64(u.allocatable), 1)
		mean += fractions[i] / float64(len(list))
	}
	for _, f := range fractions {
		variance += (f - mean) * (f - mean) / float64(len(list))
	}
	return int64((1 - math.Sqrt(variance)) * float64(fwk.MaxNodeScore))
}
