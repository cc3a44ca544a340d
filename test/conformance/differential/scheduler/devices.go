package scheduler

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

const (
	deviceDriver = "gpu.example.com"
	// card is an extended resource that some nodes have themselves.
	card = "example.com/card"
)

// deviceClaims are those that pods name; not all are there.
var deviceClaims = []string{"one", "two", "fast", "all", "tolerant", "either", "watching", "share", "bigshare", "conditional", "allocated", "crowded", "idle", "classless", "going", "gone"}

// ordinary is how many of these can be had.
const ordinary = 13

// begin is when a case is decided: bubbles begin then.
var begin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// devices draws classes, slices and claims.
func (g *generator) devices() {
	if g.topic != devices && g.IntN(4) > 0 {
		return
	}
	gpu := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}
	if g.IntN(2) == 0 {
		gpu.Spec.ExtendedResourceName = ptr.To(card)
	}
	g.object(gpu)
	if g.IntN(4) == 0 {
		g.object(&resourceapi.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "rule"}, Spec: resourceapi.DeviceTaintRuleSpec{
			DeviceSelector: &resourceapi.DeviceTaintSelector{Driver: ptr.To(deviceDriver), Device: ptr.To("d0")},
			Taint:          resourceapi.DeviceTaint{Key: pick(g, []string{"hot", "cold"}), Effect: resourceapi.DeviceTaintEffectNoSchedule},
		}})
	}
	g.object(&resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{
		{CEL: &resourceapi.CELDeviceSelector{Expression: `device.driver == "` + deviceDriver + `" && device.attributes["` + deviceDriver + `"].speed > 1`}},
	}}})
	for _, n := range g.c.Nodes {
		if g.IntN(3) == 0 || len(g.c.Nodes) > allScored {
			continue
		}
		s := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "devices-" + n.Name}, Spec: resourceapi.ResourceSliceSpec{
			Driver: deviceDriver, Pool: resourceapi.ResourcePool{Name: n.Name, Generation: 1, ResourceSliceCount: 1}, NodeName: &n.Name,
		}}
		if g.IntN(10) == 0 {
			s.Spec.Pool.ResourceSliceCount = 2 // the other is on its way
		}
		for i := range 1 + g.IntN(3) {
			d := resourceapi.Device{Name: fmt.Sprint("d", i), Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"speed": {IntValue: ptr.To(int64(g.IntN(4)))}, "model": {StringValue: ptr.To(pick(g, []string{"a", "b"}))},
			}}
			if g.IntN(4) == 0 {
				d.Taints = []resourceapi.DeviceTaint{{Key: "hot", Effect: pick(g, []resourceapi.DeviceTaintEffect{resourceapi.DeviceTaintEffectNoSchedule, resourceapi.DeviceTaintEffectNoExecute})}}
			}
			switch g.IntN(6) {
			case 0:
				d.AllowMultipleAllocations = ptr.To(true)
				d.Capacity = map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: resource.MustParse("8Gi")}}
			case 1:
				d.BindingConditions, d.BindingFailureConditions = []string{"attached"}, []string{"broken"}
			case 2:
				d.ConsumesCounters = []resourceapi.DeviceCounterConsumption{{CounterSet: "slots", Counters: map[string]resourceapi.Counter{"slots": {Value: resource.MustParse(fmt.Sprint(1 + g.IntN(2)))}}}}
			}
			s.Spec.Devices = append(s.Spec.Devices, d)
		}
		if slices.ContainsFunc(s.Spec.Devices, func(d resourceapi.Device) bool { return len(d.ConsumesCounters) > 0 }) {
			s.Spec.Pool.ResourceSliceCount++
			counters := s.DeepCopy()
			counters.Name, counters.Spec.Devices = "counters-"+n.Name, nil
			counters.Spec.SharedCounters = []resourceapi.CounterSet{{Name: "slots", Counters: map[string]resourceapi.Counter{"slots": {Value: resource.MustParse("2")}}}}
			g.object(counters)
		}
		g.object(s)
	}
	exactly := func(name, class string, change func(*resourceapi.ExactDeviceRequest)) *resourceapi.ResourceClaim {
		r := &resourceapi.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1}
		if change != nil {
			change(r)
		}
		return g.deviceClaim(name, resourceapi.DeviceRequest{Name: "r", Exactly: r})
	}
	g.object(exactly("one", "gpu", nil))
	two := exactly("two", "gpu", func(r *resourceapi.ExactDeviceRequest) { r.Count = 2 })
	two.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceDriver + "/model"))}}
	g.object(two)
	g.object(exactly("fast", "fast", nil))
	g.object(exactly("all", "gpu", func(r *resourceapi.ExactDeviceRequest) {
		r.AllocationMode, r.Count = resourceapi.DeviceAllocationModeAll, 0
	}))
	g.object(exactly("tolerant", "gpu", func(r *resourceapi.ExactDeviceRequest) {
		r.Tolerations = []resourceapi.DeviceToleration{{Key: "hot", Operator: resourceapi.DeviceTolerationOpExists}}
	}))
	g.object(g.deviceClaim("either", resourceapi.DeviceRequest{Name: "r", FirstAvailable: []resourceapi.DeviceSubRequest{
		{Name: "fast", DeviceClassName: "fast", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1},
		{Name: "any", DeviceClassName: "gpu", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1},
	}}))
	g.object(exactly("watching", "gpu", func(r *resourceapi.ExactDeviceRequest) { r.AdminAccess = ptr.To(true) }))
	for name, memory := range map[string]string{"share": "3Gi", "bigshare": "6Gi"} {
		g.object(exactly(name, "gpu", func(r *resourceapi.ExactDeviceRequest) {
			r.Capacity = &resourceapi.CapacityRequirements{Requests: map[resourceapi.QualifiedName]resource.Quantity{"memory": resource.MustParse(memory)}}
		}))
	}
	g.object(exactly("classless", "no-such-class", nil))
	going := exactly("going", "gpu", nil)
	going.DeletionTimestamp, going.Finalizers = ptr.To(metav1.Now()), []string{resourceapi.Finalizer}
	g.object(going)
	taken := map[string]bool{}
	for _, name := range []string{"allocated", "crowded", "idle", "conditional"} {
		c := exactly(name, "gpu", nil)
		node, device := pick(g, g.c.Nodes).Name, fmt.Sprint("d", g.IntN(2))
		if taken[node+device] { // no scheduler gives a whole device to two claims
			g.object(c)
			continue
		}
		taken[node+device] = true
		c.Status.Allocation = &resourceapi.AllocationResult{
			Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{Request: "r", Driver: deviceDriver, Pool: node, Device: device}}},
			NodeSelector: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchFields: []v1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: v1.NodeSelectorOpIn, Values: []string{node}},
			}}}},
		}
		if result := &c.Status.Allocation.Devices.Results[0]; name == "conditional" {
			age := pick(g, []time.Duration{time.Minute, 20 * time.Minute, time.Hour}) // the timeout is 10 minutes; at its very end it is chance who is late
			c.Status.Allocation.AllocationTimestamp = ptr.To(metav1.NewTime(begin.Add(-age)))
			result.BindingConditions, result.BindingFailureConditions = []string{"attached"}, []string{"broken"}
			if says := pick(g, []string{"", "attached", "broken"}); says != "" {
				c.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: result.Driver, Pool: result.Pool, Device: result.Device, Conditions: []metav1.Condition{{Type: says, Status: metav1.ConditionTrue}}}}
			}
		} else if g.IntN(4) == 0 {
			result.ShareID, result.ConsumedCapacity = ptr.To(types.UID("share-"+name)), map[resourceapi.QualifiedName]resource.Quantity{"memory": resource.MustParse("4Gi")}
		}
		users := map[string]int{"allocated": 1, "crowded": resourceapi.ResourceClaimReservedForMaxSize}[name]
		for i := range users {
			user := fmt.Sprintf("user-%d", i)
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: user, UID: types.UID(user)})
		}
		g.object(c)
	}
}

func (g *generator) deviceClaim(name string, r resourceapi.DeviceRequest) *resourceapi.ResourceClaim {
	return &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("claim-" + name), ResourceVersion: "1"},
		Spec:       resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{r}}},
	}
}

// claims gives a pod some devices, some of them by the names of extended resources.
func (g *generator) claims(p *v1.Pod) {
	p.Namespace = "default"
	if g.IntN(2) == 0 {
		c := &p.Spec.Containers[g.IntN(len(p.Spec.Containers))]
		c.Resources.Requests[v1.ResourceName(pick(g, []string{card, resourceapi.ResourceDeviceClassPrefix + "gpu", resourceapi.ResourceDeviceClassPrefix + "fast"}))] = resource.MustParse(fmt.Sprint(1 + g.IntN(2)))
		if g.IntN(2) == 0 {
			return
		}
	}
	for i := range 1 + g.IntN(2) {
		name := pick(g, deviceClaims[:ordinary])
		if g.IntN(12) == 0 {
			name = pick(g, deviceClaims[ordinary:])
		}
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, v1.PodResourceClaim{Name: fmt.Sprint("r", i), ResourceClaimName: &name})
	}
	if len(p.Spec.ResourceClaims) == 2 && *p.Spec.ResourceClaims[0].ResourceClaimName == *p.Spec.ResourceClaims[1].ResourceClaimName {
		p.Spec.ResourceClaims = p.Spec.ResourceClaims[:1]
	}
	if g.IntN(15) == 0 { // made from a template that has not been looked at yet
		p.Spec.ResourceClaims[0] = v1.PodResourceClaim{Name: "r0", ResourceClaimTemplateName: ptr.To("t")}
	}
}
