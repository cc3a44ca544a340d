package nodelifecycle

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func node(zone string, ready corev1.ConditionStatus, taints ...string) corev1.Node {
	n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
	if ready != "" {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	}
	for _, t := range taints {
		key, effect, _ := strings.Cut(t, ":")
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffect(effect)})
	}
	return n
}

func TestWantedTaints(t *testing.T) {
	for _, c := range []struct {
		name   string
		node   corev1.Node
		evict  bool
		want   string
		evicts bool
	}{
		{"healthy", node("", corev1.ConditionTrue, "mine:NoExecute"), true, "mine:NoExecute", false},
		{"recovered", node("", corev1.ConditionTrue, corev1.TaintNodeNotReady+":NoExecute", "mine:NoSchedule", corev1.TaintNodeNotReady+":NoSchedule"), true, "mine:NoSchedule", false},
		{"not ready", node("", corev1.ConditionFalse), true, corev1.TaintNodeNotReady + ":NoExecute " + corev1.TaintNodeNotReady + ":NoSchedule", true},
		{"not ready, and known to be", node("", corev1.ConditionFalse, corev1.TaintNodeNotReady+":NoExecute", corev1.TaintNodeNotReady+":NoSchedule"), true,
			corev1.TaintNodeNotReady + ":NoExecute " + corev1.TaintNodeNotReady + ":NoSchedule", false},
		{"silent", node("", corev1.ConditionUnknown, corev1.TaintNodeNotReady+":NoExecute"), true, corev1.TaintNodeUnreachable + ":NoExecute " + corev1.TaintNodeUnreachable + ":NoSchedule", true},
		{"nobody may be evicted", node("", corev1.ConditionUnknown, corev1.TaintNodeUnreachable+":NoExecute"), false, corev1.TaintNodeUnreachable + ":NoSchedule", false},
		{"just registered", node("", "", corev1.TaintNodeNotReady+":NoSchedule"), true, corev1.TaintNodeNotReady + ":NoSchedule", false},
	} {
		taints, evicts := wantedTaints(&c.node, c.evict, metav1.NewTime(now))
		var got []string
		for _, t := range taints {
			got = append(got, fmt.Sprintf("%s:%s", t.Key, t.Effect))
		}
		if strings.Join(got, " ") != c.want || evicts != c.evicts {
			t.Errorf("%s: %v, %v", c.name, got, evicts)
		}
	}
}

func TestRateOf(t *testing.T) {
	config := Config{EvictionRate: 0.1, SecondaryEvictionRate: 0.01, UnhealthyZoneThreshold: 0.55, LargeCluster: 5}
	zone := func(name string, up, down int) (nodes []corev1.Node) {
		for range up {
			nodes = append(nodes, node(name, corev1.ConditionTrue))
		}
		for range down {
			nodes = append(nodes, node(name, corev1.ConditionUnknown))
		}
		return nodes
	}
	for _, c := range []struct {
		name  string
		nodes []corev1.Node
		want  float32
	}{
		{"one of many", zone("a", 5, 1), 0.1},
		{"two of three are not yet many", zone("a", 1, 2), 0.1},
		{"most of a small zone", zone("a", 2, 3), 0},
		{"most of a large zone", zone("a", 2, 4), 0.01},
		{"all of one zone of two", append(zone("a", 0, 4), zone("b", 1, 0)...), 0.1},
		{"all there is", append(zone("a", 0, 4), zone("b", 0, 1)...), -1},
		{"the only node", zone("a", 0, 1), -1},
	} {
		z := "" + ":\x00:a"
		if got := rateOf(z, c.nodes, config); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestSilent(t *testing.T) {
	n := node("", corev1.ConditionTrue)
	conds, changed := silent(&n, now)
	if !changed || len(conds) != 4 || conds[0].Status != corev1.ConditionUnknown || conds[0].Reason != reasonUnknown || conds[1].Reason != reasonNever {
		t.Errorf("%+v", conds)
	}
	n.Status.Conditions = conds
	if _, changed := silent(&n, now.Add(time.Minute)); changed {
		t.Error("a silent node changes by itself")
	}
}

func TestOldLabels(t *testing.T) {
	for _, c := range []struct{ labels, want map[string]string }{
		{nil, nil},
		{map[string]string{"kubernetes.io/os": "linux"}, map[string]string{"beta.kubernetes.io/os": "linux"}},
		{map[string]string{"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "arm64"}, nil},
		{map[string]string{"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "windows", "kubernetes.io/arch": "arm64"},
			map[string]string{"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "arm64"}},
	} {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: c.labels}}
		if got := oldLabels(&n); !maps.Equal(got, c.want) {
			t.Errorf("of %v, %v are wrong, want %v", c.labels, got, c.want)
		}
	}
}
