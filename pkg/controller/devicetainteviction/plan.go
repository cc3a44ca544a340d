package devicetainteviction

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// view is what the decision is made from.
type view struct {
	claims map[types.NamespacedName]*resourcev1.ResourceClaim
	slices []resourcev1.ResourceSlice
	rules  []resourcev1.DeviceTaintRule
	// groups says that claims may be reserved for PodGroups.
	groups bool
}

// eviction is when a pod has to go, and the rules that say so.
type eviction struct {
	at    time.Time
	rules sets.Set[types.UID]
}

// evict returns when a pod has to go because of the devices that it uses, or nil.
func (v view) evict(pod *corev1.Pod) *eviction {
	if pod.Spec.NodeName == "" {
		return nil
	}
	var e *eviction
	for name, own := range resourceclaim.PodClaims(pod) {
		claim := v.claims[types.NamespacedName{Namespace: pod.Namespace, Name: name}]
		if claim == nil || claim.Status.Allocation == nil || own && resourceclaim.IsForPod(pod, claim, v.groups) != nil || !resourceclaim.IsReservedForPod(pod, claim, v.groups) {
			continue
		}
		for _, device := range claim.Status.Allocation.Devices.Results {
			for _, t := range v.taints(device) {
				at, ok := patience(device.Tolerations, t.DeviceTaint)
				if !ok {
					continue
				}
				if e == nil {
					e = &eviction{at: at, rules: sets.New[types.UID]()}
				}
				if at.Before(e.at) {
					e.at = at
				}
				if t.rule != "" {
					e.rules.Insert(t.rule)
				}
			}
		}
	}
	return e
}

// taint is one of a device, and the rule that it is from, if any.
type taint struct {
	resourcev1.DeviceTaint
	rule types.UID
}

// taints returns those of a device that evict.
func (v view) taints(device resourcev1.DeviceRequestAllocationResult) []taint {
	var all []taint
	if d := v.device(device.Driver, device.Pool, device.Device); d != nil {
		for _, t := range d.Taints {
			if t.Effect == resourcev1.DeviceTaintEffectNoExecute {
				all = append(all, taint{DeviceTaint: t})
			}
		}
	}
	for i := range v.rules {
		if r := &v.rules[i]; r.Spec.Taint.Effect == resourcev1.DeviceTaintEffectNoExecute && selects(r, device.Driver, device.Pool, device.Device) {
			all = append(all, taint{r.Spec.Taint, r.UID})
		}
	}
	return all
}

// device returns a device as its pool, in its latest generation, has it.
func (v view) device(driver, pool, name string) *resourcev1.Device {
	var found *resourcev1.Device
	generation := int64(-1)
	for i := range v.slices {
		s := &v.slices[i].Spec
		if s.Driver != driver || s.Pool.Name != pool || s.Pool.Generation < generation {
			continue
		}
		if s.Pool.Generation > generation {
			found, generation = nil, s.Pool.Generation
		}
		for k := range s.Devices {
			if s.Devices[k].Name == name {
				found = &s.Devices[k]
			}
		}
	}
	return found
}

// selects reports whether a rule is about a device.
func selects(r *resourcev1.DeviceTaintRule, driver, pool, device string) bool {
	s := r.Spec.DeviceSelector
	is := func(want *string, got string) bool { return want == nil || *want == got }
	return s != nil && is(s.Driver, driver) && is(s.Pool, pool) && is(s.Device, device)
}

// patience returns until when a taint is tolerated; not ok means for ever.
func patience(tolerations []resourcev1.DeviceToleration, t resourcev1.DeviceTaint) (at time.Time, ok bool) {
	if t.TimeAdded != nil {
		at = t.TimeAdded.Time
	}
	seconds := int64(-1)
	for _, tol := range tolerations {
		if tol.Effect != resourcev1.DeviceTaintEffectNoExecute || !resourceclaim.ToleratesTaint(tol, t) {
			continue
		}
		if tol.TolerationSeconds == nil {
			return time.Time{}, false
		}
		if s := max(*tol.TolerationSeconds, 0); seconds < 0 || s < seconds {
			seconds = s
		}
	}
	return at.Add(time.Duration(max(seconds, 0)) * time.Second), true
}

// counts are what a rule's condition tells.
type counts struct{ published, allocated, pending, namespaces, evicted int }

// count returns how many devices a rule is about, and how many pods have to go, or would if it were in force.
func (v view) count(r *resourcev1.DeviceTaintRule, pods []corev1.Pod) counts {
	var n counts
	latest := map[[2]string]int64{}
	for _, s := range v.slices {
		key := [2]string{s.Spec.Driver, s.Spec.Pool.Name}
		latest[key] = max(latest[key], s.Spec.Pool.Generation)
	}
	for _, s := range v.slices {
		if s.Spec.Pool.Generation != latest[[2]string{s.Spec.Driver, s.Spec.Pool.Name}] {
			continue
		}
		for _, d := range s.Spec.Devices {
			if selects(r, s.Spec.Driver, s.Spec.Pool.Name, d.Name) {
				n.published++
			}
		}
	}
	for _, claim := range v.claims {
		if claim.Status.Allocation == nil {
			continue
		}
		for _, d := range claim.Status.Allocation.Devices.Results {
			if selects(r, d.Driver, d.Pool, d.Device) {
				n.allocated++
			}
		}
	}
	forced := *r.DeepCopy()
	forced.Spec.Taint.Effect = resourcev1.DeviceTaintEffectNoExecute
	v.rules = []resourcev1.DeviceTaintRule{forced}
	in := sets.New[string]()
	for i := range pods {
		if pods[i].DeletionTimestamp != nil {
			continue
		}
		if e := v.evict(&pods[i]); e != nil && e.rules.Has(r.UID) {
			n.pending++
			in.Insert(pods[i].Namespace)
		}
	}
	n.namespaces = in.Len()
	return n
}

// progress returns the condition of a rule.
func progress(r *resourcev1.DeviceTaintRule, n counts) metav1.Condition {
	c := metav1.Condition{Type: resourcev1.DeviceTaintConditionEvictionInProgress, Status: metav1.ConditionFalse, ObservedGeneration: r.Generation}
	several := func(n int, one, many string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	namespaces := several(n.namespaces, "namespace", "different namespaces")
	switch r.Spec.Taint.Effect {
	case resourcev1.DeviceTaintEffectNoExecute:
		switch {
		case n.pending > 0:
			c.Status, c.Reason = metav1.ConditionTrue, "PodsPendingEviction"
			c.Message = several(n.pending, "pod needs", "pods need") + " to be evicted in " + namespaces + "."
		case n.evicted > 0:
			c.Reason = "Completed"
		default:
			c.Reason = "NotStarted"
		}
	case resourcev1.DeviceTaintEffectNone:
		c.Reason = "NoEffect"
		c.Message = several(n.published, "published device", "published devices") + " selected. " + several(n.allocated, "allocated device", "allocated devices") + " selected. " +
			several(n.pending, "pod", "pods") + " would be evicted in " + namespaces +
			" if the effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to trigger an update."
	default:
		c.Reason, c.Message = "OtherEffect", "Eviction only happens for the NoExecute effect."
	}
	if n.evicted > 0 {
		if c.Message != "" {
			c.Message += " "
		}
		c.Message += several(n.evicted, "pod", "pods") + " evicted since starting the controller."
	}
	return c
}
