package devicetainteviction

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func taintOf(effect resourcev1.DeviceTaintEffect) resourcev1.DeviceTaint {
	return resourcev1.DeviceTaint{Key: "broken", Effect: effect, TimeAdded: &metav1.Time{Time: began}}
}

// world is a pod that uses device d of pool p of driver a, and what is said of it.
func world(tolerations ...resourcev1.DeviceToleration) (view, *corev1.Pod) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "u"}, Spec: corev1.PodSpec{
		NodeName: "n", ResourceClaims: []corev1.PodResourceClaim{{Name: "x", ResourceClaimName: ptr.To("c")}},
	}}
	claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}}
	claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "pod", UID: "u"}}
	claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
		{Driver: "a", Pool: "p", Device: "d", Tolerations: tolerations},
	}}}
	return view{claims: map[types.NamespacedName]*resourcev1.ResourceClaim{{Namespace: "ns", Name: "c"}: claim}}, pod
}

func slice(generation int64, taints ...resourcev1.DeviceTaint) resourcev1.ResourceSlice {
	return resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Driver: "a", Pool: resourcev1.ResourcePool{Name: "p", Generation: generation}, Devices: []resourcev1.Device{{Name: "d", Taints: taints}}}}
}

func rule(effect resourcev1.DeviceTaintEffect, device string) resourcev1.DeviceTaintRule {
	return resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{UID: "r"}, Spec: resourcev1.DeviceTaintRuleSpec{Taint: taintOf(effect), DeviceSelector: &resourcev1.DeviceTaintSelector{Device: &device}}}
}

// ofGroup has the pod belong to a group that its claim is reserved for.
func ofGroup(groups bool) func(*view, *corev1.Pod) {
	return func(v *view, p *corev1.Pod) {
		v.groups = groups
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: ptr.To("g")}
		for _, c := range v.claims {
			c.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{APIGroup: "scheduling.k8s.io", Resource: "podgroups", Name: "g", UID: "v"}}
		}
	}
}

func TestEvict(t *testing.T) {
	const evict, schedule = resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule
	tolerates := func(seconds *int64) resourcev1.DeviceToleration {
		return resourcev1.DeviceToleration{Key: "broken", Operator: resourcev1.DeviceTolerationOpExists, Effect: evict, TolerationSeconds: seconds}
	}
	for name, tc := range map[string]struct {
		tolerations []resourcev1.DeviceToleration
		slices      []resourcev1.ResourceSlice
		rules       []resourcev1.DeviceTaintRule
		change      func(*view, *corev1.Pod)
		after       time.Duration // -1: never
		byRule      bool
	}{
		"nothing":                   {slices: []resourcev1.ResourceSlice{slice(1)}, after: -1},
		"a taint":                   {slices: []resourcev1.ResourceSlice{slice(1, taintOf(evict))}},
		"a taint against newcomers": {slices: []resourcev1.ResourceSlice{slice(1, taintOf(schedule))}, after: -1},
		"a taint of yesterday":      {slices: []resourcev1.ResourceSlice{slice(1, taintOf(evict)), slice(2)}, after: -1},
		"tolerated":                 {slices: []resourcev1.ResourceSlice{slice(1, taintOf(evict))}, tolerations: []resourcev1.DeviceToleration{tolerates(nil)}, after: -1},
		"tolerated for a while":     {slices: []resourcev1.ResourceSlice{slice(1, taintOf(evict))}, tolerations: []resourcev1.DeviceToleration{tolerates(ptr.To[int64](90)), tolerates(ptr.To[int64](60))}, after: time.Minute},
		"a rule":                    {rules: []resourcev1.DeviceTaintRule{rule(evict, "d")}, byRule: true},
		"a rule for another":        {rules: []resourcev1.DeviceTaintRule{rule(evict, "e")}, after: -1},
		"a rule to try":             {rules: []resourcev1.DeviceTaintRule{rule(resourcev1.DeviceTaintEffectNone, "d")}, after: -1},
		"not on a node":             {slices: []resourcev1.ResourceSlice{slice(1, taintOf(evict))}, change: func(_ *view, p *corev1.Pod) { p.Spec.NodeName = "" }, after: -1},
		"of its group":              {slices: []resourcev1.ResourceSlice{slice(1, taintOf(evict))}, change: ofGroup(true)},
		"of its group, where groups have no claims": {slices: []resourcev1.ResourceSlice{slice(1, taintOf(evict))}, change: ofGroup(false), after: -1},
		"not reserved": {slices: []resourcev1.ResourceSlice{slice(1, taintOf(evict))}, after: -1, change: func(v *view, _ *corev1.Pod) {
			for _, c := range v.claims {
				c.Status.ReservedFor = nil
			}
		}},
	} {
		v, pod := world(tc.tolerations...)
		v.slices, v.rules = tc.slices, tc.rules
		if tc.change != nil {
			tc.change(&v, pod)
		}
		e := v.evict(pod)
		if (e == nil) != (tc.after < 0) || e != nil && (e.at.Sub(began) != tc.after || e.rules.Has("r") != tc.byRule) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestProgress(t *testing.T) {
	v, pod := world()
	v.slices = []resourcev1.ResourceSlice{slice(1), slice(2)}
	for effect, want := range map[resourcev1.DeviceTaintEffect]string{
		resourcev1.DeviceTaintEffectNoExecute:  "True PodsPendingEviction 1 pod needs to be evicted in 1 namespace.",
		resourcev1.DeviceTaintEffectNone:       "False NoEffect 1 published device selected. 1 allocated device selected. 1 pod would be evicted in 1 namespace if the effect was NoExecute.",
		resourcev1.DeviceTaintEffectNoSchedule: "False OtherEffect Eviction only happens",
	} {
		r := rule(effect, "d")
		c := progress(&r, v.count(&r, []corev1.Pod{*pod}))
		if got := string(c.Status) + " " + c.Reason + " " + c.Message; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", effect, got)
		}
	}
	r := rule(resourcev1.DeviceTaintEffectNoExecute, "d")
	if c := progress(&r, counts{evicted: 2}); c.Reason != "Completed" || c.Message != "2 pods evicted since starting the controller." {
		t.Errorf("done: %+v", c)
	}
	if c := progress(&r, counts{}); c.Reason != "NotStarted" {
		t.Errorf("nothing yet: %+v", c)
	}
}
