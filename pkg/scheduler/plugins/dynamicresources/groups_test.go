package dynamicresources

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// When a group fits nowhere, its claims are given up as far as nobody needs them.
func TestFate(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"}}
	own := consumer(pod)
	mate := resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "q", UID: "q"}
	group := resourceapi.ResourceClaimConsumerReference{APIGroup: "scheduling.k8s.io", Resource: "podgroups", Name: "g", UID: "g"}
	other := resourceapi.ResourceClaimConsumerReference{APIGroup: "scheduling.k8s.io", Resource: "podgroups", Name: "h", UID: "h"}
	type reservations []resourceapi.ResourceClaimConsumerReference
	for _, tc := range []struct {
		name     string
		reserved reservations
		consumer resourceapi.ResourceClaimConsumerReference
		refused  bool
		placed   bool // a pod of the group has a node
		want     string
	}{
		{name: "in use by a mate", reserved: reservations{own, mate}, consumer: own, refused: true, want: ""},
		{name: "in nobody's way", reserved: reservations{own}, consumer: own, want: ""},
		{name: "in the way of its pod", reserved: reservations{own}, consumer: own, refused: true, want: freedOfPods},
		{name: "in the way, although mates have nodes", consumer: own, refused: true, placed: true, want: freedOfPods},
		{name: "of the group, and not reserved yet", consumer: group, refused: true, want: freedOfPods},
		{name: "of the group, in the way", reserved: reservations{group}, consumer: group, refused: true, want: freedOfGroup},
		{name: "of the group, in the way, and in use", reserved: reservations{group}, consumer: group, refused: true, placed: true, want: ""},
		{name: "of the group, in nobody's way", reserved: reservations{group}, consumer: group, want: unreserved},
		{name: "of the group, in use", reserved: reservations{group}, consumer: group, placed: true, want: ""},
		{name: "of several groups", reserved: reservations{group, other}, consumer: group, refused: true, want: ""},
		{name: "reserved for the group, but not its any more", reserved: reservations{group}, consumer: own, refused: true, want: ""},
	} {
		c := &resourceapi.ResourceClaim{Status: resourceapi.ResourceClaimStatus{Allocation: &resourceapi.AllocationResult{}, ReservedFor: tc.reserved}}
		if got := fate(c, pod, tc.consumer, tc.refused, !tc.placed); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		c.Status.Allocation = nil
		if got := fate(c, pod, tc.consumer, tc.refused, !tc.placed); got != "" {
			t.Errorf("%s, and not allocated: %q", tc.name, got)
		}
	}
}
