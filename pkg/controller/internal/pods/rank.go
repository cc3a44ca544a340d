package pods

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ToDelete returns the n pods that a controller with too many gives up first:
// those that do least good and whose end is noticed least. related are the active pods
// of the controller and its siblings; a node with many of them loses one first. byCost says whether pods may
// name their price.
func ToDelete(active []*corev1.Pod, related []*corev1.Pod, n int, byCost bool, now time.Time) []*corev1.Pod {
	if n >= len(active) {
		return active
	}
	onNode := map[string]int{}
	for _, p := range related {
		onNode[p.Spec.NodeName]++
	}
	cost := func(*corev1.Pod) int32 { return 0 }
	if byCost {
		cost = deletionCost
	}
	sorted := slices.Clone(active)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int { return compare(a, b, onNode, cost, now) })
	return sorted[:n]
}

func compare(a, b *corev1.Pod, onNode map[string]int, cost func(*corev1.Pod) int32, now time.Time) int {
	return cmp.Or(
		falseFirst(a.Spec.NodeName != "", b.Spec.NodeName != ""),
		cmp.Compare(phaseRank(a), phaseRank(b)),
		falseFirst(IsReady(a), IsReady(b)),
		cmp.Compare(cost(a), cost(b)),
		cmp.Compare(onNode[b.Spec.NodeName], onNode[a.Spec.NodeName]),
		youngerFirst(readySince(a), readySince(b), now),
		cmp.Compare(restarts(b), restarts(a)),
		youngerFirst(a.CreationTimestamp, b.CreationTimestamp, now),
		cmp.Compare(a.UID, b.UID),
	)
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func phaseRank(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	}
	return 2
}

func deletionCost(p *corev1.Pod) int32 {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

func readySince(p *corev1.Pod) metav1.Time {
	if !IsReady(p) {
		return metav1.Time{}
	}
	return Condition(p, corev1.PodReady).LastTransitionTime
}

func restarts(p *corev1.Pod) int32 {
	var regular, sidecar int32
	for i := range p.Status.ContainerStatuses {
		regular = max(regular, p.Status.ContainerStatuses[i].RestartCount)
	}
	always := map[string]bool{}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		always[c.Name] = c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	}
	for i := range p.Status.InitContainerStatuses {
		if s := &p.Status.InitContainerStatuses[i]; always[s.Name] {
			sidecar = max(sidecar, s.RestartCount)
		}
	}
	return max(regular, sidecar)
}

// youngerFirst compares ages by their order of magnitude only, so that among pods
// of about the same age chance (the UID) decides and not, say, the zone that
// happened to start them last. An unknown time counts as the youngest.
func youngerFirst(a, b metav1.Time, now time.Time) int {
	switch {
	case a.IsZero() || b.IsZero():
		return falseFirst(!a.IsZero(), !b.IsZero())
	}
	return cmp.Compare(magnitude(now.Sub(a.Time)), magnitude(now.Sub(b.Time)))
}

func magnitude(age time.Duration) int {
	if age <= 0 {
		return 0
	}
	return bits.Len64(uint64(age))
}
