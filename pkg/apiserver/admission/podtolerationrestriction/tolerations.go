package podtolerationrestriction

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// covers says whether a tolerates everything that b tolerates.
func covers(a, b corev1.Toleration) bool {
	if equality.Semantic.DeepEqual(a, b) {
		return true
	}
	exists := a.Operator == corev1.TolerationOpExists
	if a.Key != b.Key && !(a.Key == "" && exists) {
		return false
	}
	if a.Effect != b.Effect && a.Effect != "" {
		return false
	}
	if a.Effect == corev1.TaintEffectNoExecute && a.TolerationSeconds != nil && (b.TolerationSeconds == nil || *b.TolerationSeconds > *a.TolerationSeconds) {
		return false
	}
	if exists {
		return true
	}
	equal := func(o corev1.TolerationOperator) bool { return o == corev1.TolerationOpEqual || o == "" }
	return equal(a.Operator) && equal(b.Operator) && a.Value == b.Value
}

// merge returns all tolerations in order, without those that another one covers. Of
// equal ones the first stays.
func merge(first, second []corev1.Toleration) []corev1.Toleration {
	all := slices.Concat(first, second)
	var kept []corev1.Toleration
	for i, t := range all {
		redundant := slices.ContainsFunc(all[:i], func(o corev1.Toleration) bool { return covers(o, t) }) ||
			slices.ContainsFunc(all[i+1:], func(o corev1.Toleration) bool { return covers(o, t) && !covers(t, o) })
		if !redundant {
			kept = append(kept, t)
		}
	}
	return kept
}

// within says whether the whitelist covers all tolerations. An empty one covers everything.
func within(tolerations, whitelist []corev1.Toleration) bool {
	return len(whitelist) == 0 || !slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool {
		return !slices.ContainsFunc(whitelist, func(w corev1.Toleration) bool { return covers(w, t) })
	})
}
