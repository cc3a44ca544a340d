package dynamicresources

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/plugins/normalize"
)

// PreScore has nothing to weigh when no claim would take one device or else another.
func (p *Plugin) PreScore(_ context.Context, cs fwk.CycleState, _ *v1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	s, err := read(cs)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if !slices.ContainsFunc(s.claims, choosy) {
		return fwk.NewStatus(fwk.Skip)
	}
	return nil
}

func choosy(c *resourceapi.ResourceClaim) bool {
	return slices.ContainsFunc(c.Spec.Devices.Requests, func(r resourceapi.DeviceRequest) bool { return len(r.FirstAvailable) > 0 })
}

// Score prefers nodes where claims get what they would rather have.
func (p *Plugin) Score(_ context.Context, cs fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	s, err := read(cs)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	s.mu.Lock()
	found := s.found[node.Node().Name].allocations
	s.mu.Unlock()
	if len(found) == 0 { // all claims are allocated: they are as good on any node
		return 0, nil
	}
	var score int64
	for _, c := range s.claims {
		given := c.Status.Allocation
		if given == nil {
			given, found = &found[0], found[1:]
		}
		score += preference(c, given)
	}
	return score, nil
}

// preference is the higher, the earlier in its lists of alternatives is what the claim gets.
func preference(c *resourceapi.ResourceClaim, given *resourceapi.AllocationResult) int64 {
	chosen := sets.New[string]()
	for _, r := range given.Devices.Results {
		chosen.Insert(r.Request)
	}
	var sum int64
	for _, r := range c.Spec.Devices.Requests {
		for i, alternative := range r.FirstAvailable {
			if chosen.Has(resourceclaim.CreateSubRequestRef(r.Name, alternative.Name)) {
				sum += int64(resourceapi.FirstAvailableDeviceRequestMaxSize - i)
			}
		}
	}
	return sum
}

// ScoreExtensions says that scores are normalized.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore brings the best to 100.
func (p *Plugin) NormalizeScore(_ context.Context, _ fwk.CycleState, _ *v1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	return normalize.ToMax(scores, false)
}
