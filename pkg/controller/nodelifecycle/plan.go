package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/node/topology"
)

// Reasons of conditions that are written for a silent node.
const (
	reasonUnknown = "NodeStatusUnknown"
	reasonNever   = "NodeStatusNeverUpdated"
)

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

func ready(n *corev1.Node) corev1.ConditionStatus {
	if c := condition(n, corev1.NodeReady); c != nil {
		return c.Status
	}
	return corev1.ConditionUnknown
}

// betaLabels are those that old clients look at, by the labels that have taken their place.
var betaLabels = map[string]string{corev1.LabelOSStable: "beta.kubernetes.io/os", corev1.LabelArchStable: "beta.kubernetes.io/arch"}

// oldLabels returns the labels for old clients that a node lacks or has wrong.
func oldLabels(n *corev1.Node) map[string]string {
	wrong := map[string]string{}
	for stable, beta := range betaLabels {
		if value, ok := n.Labels[stable]; ok && n.Labels[beta] != value {
			wrong[beta] = value
		}
	}
	return wrong
}

// silent returns the conditions of a node that is not heard of.
func silent(n *corev1.Node, now time.Time) ([]corev1.NodeCondition, bool) {
	conds := slices.Clone(n.Status.Conditions)
	changed := false
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		i := slices.IndexFunc(conds, func(c corev1.NodeCondition) bool { return c.Type == t })
		switch {
		case i < 0:
			conds = append(conds, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: reasonNever, Message: "Kubelet never posted node status.",
				LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: metav1.NewTime(now),
			})
			changed = true
		case conds[i].Status != corev1.ConditionUnknown:
			conds[i].Status, conds[i].Reason, conds[i].Message = corev1.ConditionUnknown, reasonUnknown, "Kubelet stopped posting node status."
			conds[i].LastTransitionTime = metav1.NewTime(now)
			changed = true
		}
	}
	return conds, changed
}

// pressure says which taint follows from which condition.
var pressure = []struct {
	condition corev1.NodeConditionType
	status    corev1.ConditionStatus
	taint     string
}{
	{corev1.NodeReady, corev1.ConditionFalse, corev1.TaintNodeNotReady},
	{corev1.NodeReady, corev1.ConditionUnknown, corev1.TaintNodeUnreachable},
	{corev1.NodeMemoryPressure, corev1.ConditionTrue, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.ConditionTrue, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.ConditionTrue, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, corev1.TaintNodeNetworkUnavailable},
}

// wantedTaints returns the taints that a node is to have, and whether one of them is a
// new one that costs it its pods. evict is false when nodes must not lose their pods.
func wantedTaints(n *corev1.Node, evict bool, now metav1.Time) (taints []corev1.Taint, evicts bool) {
	want := map[corev1.Taint]bool{}
	for _, p := range pressure {
		c := condition(n, p.condition)
		on := c != nil && c.Status == p.status
		want[corev1.Taint{Key: p.taint, Effect: corev1.TaintEffectNoSchedule}] = on
		if p.condition == corev1.NodeReady {
			want[corev1.Taint{Key: p.taint, Effect: corev1.TaintEffectNoExecute}] = on && evict
		}
	}
	want[corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}] = n.Spec.Unschedulable
	if condition(n, corev1.NodeReady) == nil {
		// A node that has not reported yet keeps the taint that it was registered with.
		delete(want, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
	}
	for _, t := range n.Spec.Taints {
		key := corev1.Taint{Key: t.Key, Effect: t.Effect}
		if on, ours := want[key]; !ours || on {
			taints = append(taints, t)
		}
		delete(want, key)
	}
	var added []corev1.Taint
	for t, on := range want {
		if on {
			t.TimeAdded = &now
			added = append(added, t)
			evicts = evicts || t.Effect == corev1.TaintEffectNoExecute
		}
	}
	slices.SortFunc(added, func(a, b corev1.Taint) int {
		if a.Key+string(a.Effect) < b.Key+string(b.Effect) {
			return -1
		}
		return 1
	})
	return append(taints, added...), evicts
}

// keepEvictions leaves the NoExecute taints that are new out of want. If the old one of
// the other kind were to go meanwhile, the pods' time would begin anew, so it stays.
func keepEvictions(want, have []corev1.Taint) []corev1.Taint {
	isOurs := func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute && (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable)
	}
	var out []corev1.Taint
	for _, t := range want {
		if !isOurs(t) {
			out = append(out, t)
		}
	}
	for _, t := range have {
		if isOurs(t) {
			out = append(out, t)
		}
	}
	return out
}

// rateOf returns how many nodes a second may lose their pods in a zone: fewer when so
// many are down that the fault is more likely in between, and, as a negative rate, none
// at all when no zone has a node that is ready: then the fault is here.
func rateOf(zone string, nodes []corev1.Node, c Config) float32 {
	type count struct{ up, down int }
	zones := map[string]*count{}
	for i := range nodes {
		z := topology.GetZoneKey(&nodes[i])
		if zones[z] == nil {
			zones[z] = &count{}
		}
		if ready(&nodes[i]) == corev1.ConditionTrue {
			zones[z].up++
		} else {
			zones[z].down++
		}
	}
	anyUp := len(nodes) == 0
	for _, z := range zones {
		anyUp = anyUp || z.up > 0
	}
	if !anyUp {
		return -1
	}
	z := zones[zone]
	if z == nil || z.up == 0 || z.down <= 2 || float32(z.down)/float32(z.up+z.down) < c.UnhealthyZoneThreshold {
		return c.EvictionRate
	}
	if z.up+z.down > c.LargeCluster {
		return c.SecondaryEvictionRate
	}
	return 0
}
