package scheduler

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

const deviceDriver = "gpu.example.com"

// deviceClaims are those that pods name; not all are there.
var deviceClaims = []string{"one", "two", "fast", "all", "tolerant", "either", "allocated", "crowded", "idle", "classless", "going", "gone"}

// devices draws classes, slices and claims.
func (g *generator) devices() {
	if g.topic != devices && g.IntN(4) > 0 {
		return
	}
	g.object(&resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}})
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
			s.Spec.Devices = append(s.Spec.Devices, d)
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
	g.object(exactly("classless", "no-such-class", nil))
	going := exactly("going", "gpu", nil)
	going.DeletionTimestamp, going.Finalizers = ptr.To(metav1.Now()), []string{resourceapi.Finalizer}
	g.object(going)
	for _, name := range []string{"allocated", "crowded", "idle"} {
		c := exactly(name, "gpu", nil)
		node := pick(g, g.c.Nodes).Name
		c.Status.Allocation = &resourceapi.AllocationResult{
			Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{Request: "r", Driver: deviceDriver, Pool: node, Device: fmt.Sprint("d", g.IntN(2))}}},
			NodeSelector: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchFields: []v1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: v1.NodeSelectorOpIn, Values: []string{node}},
			}}}},
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

// claims gives a pod some devices.
func (g *generator) claims(p *v1.Pod) {
	p.Namespace = "default"
	for i := range 1 + g.IntN(2) {
		name := pick(g, deviceClaims[:9])
		if g.IntN(12) == 0 {
			name = pick(g, deviceClaims[9:])
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
