package eviction

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/leme-k8s/leme/pkg/kubelet/metric/metrictest"
	"github.com/leme-k8s/leme/pkg/kubelet/pods"
)

func TestParse(t *testing.T) {
	ts, err := Parse(&kubeletconfig.KubeletConfiguration{})
	if err != nil {
		t.Fatal(err)
	}
	if len(ts) != 5 || ts[0].Signal != MemoryAvailable || ts[0].Value.Of(0) != 100<<20 {
		t.Errorf("defaults: %+v", ts)
	}
	ts, err = Parse(&kubeletconfig.KubeletConfiguration{EvictionHard: map[string]string{"nodefs.available": "0%", "pid.available": "10%"},
		EvictionSoft: map[string]string{"memory.available": "1Gi"}, EvictionSoftGracePeriod: map[string]string{"memory.available": "1m30s"},
		EvictionMinimumReclaim: map[string]string{"memory.available": "100Mi"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(ts) != 2 || !ts[0].Soft || ts[0].Grace != 90*time.Second || ts[0].MinReclaim.Of(0) != 100<<20 || ts[1].Value.Of(1000) != 100 {
		t.Errorf("got %+v", ts)
	}
	for want, bad := range map[string]kubeletconfig.KubeletConfiguration{
		`unknown signal "gpu.available"`:  {EvictionHard: map[string]string{"gpu.available": "1"}},
		"is not a percentage":             {EvictionHard: map[string]string{"memory.available": "x%"}},
		"is not a quantity":               {EvictionHard: map[string]string{"memory.available": "-1"}},
		"evictionSoftGracePeriod: needed": {EvictionSoft: map[string]string{"memory.available": "1"}},
		"there is no soft threshold":      {EvictionSoftGracePeriod: map[string]string{"memory.available": "1s"}},
	} {
		if _, err := Parse(&bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestDecide(t *testing.T) {
	thresholds := []Threshold{
		{Signal: MemoryAvailable, Value: Amount{Quantity: resource.MustParse("100")}, MinReclaim: Amount{Quantity: resource.MustParse("50")}},
		{Signal: MemoryAvailable, Value: Amount{Quantity: resource.MustParse("200")}, Soft: true, Grace: time.Minute},
		{Signal: NodeFsAvailable, Value: Amount{Fraction: 0.1}},
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var state State
	for _, step := range []struct {
		what   string
		after  time.Duration
		memory uint64
		disk   uint64
		blind  bool // nothing could be measured
		want   string
		act    string
	}{
		{what: "all well", memory: 500, disk: 500},
		{what: "soft threshold not met", after: 10 * time.Second, memory: 150, disk: 500, want: "MemoryPressure"},
		{what: "still within grace", after: 50 * time.Second, memory: 150, disk: 500, want: "MemoryPressure"},
		{what: "for too long", after: 70 * time.Second, memory: 150, disk: 500, want: "MemoryPressure", act: "memory.available/soft"},
		{what: "hard", after: 80 * time.Second, memory: 99, disk: 500, want: "MemoryPressure", act: "memory.available memory.available/soft"},
		{what: "above, but not by enough", after: 90 * time.Second, memory: 149, disk: 500, want: "MemoryPressure", act: "memory.available memory.available/soft"},
		{what: "nothing known", after: 95 * time.Second, blind: true, want: "MemoryPressure", act: "memory.available memory.available/soft"},
		{what: "well again, condition stays", after: 100 * time.Second, memory: 300, disk: 500, want: "MemoryPressure"},
		{what: "disk", after: 110 * time.Second, memory: 300, disk: 99, want: "DiskPressure MemoryPressure", act: "nodefs.available"},
		{what: "memory's transition is over", after: 400 * time.Second, memory: 300, disk: 99, want: "DiskPressure", act: "nodefs.available"},
		{what: "all over", after: 800 * time.Second, memory: 300, disk: 500},
	} {
		seen := map[Signal]Observation{MemoryAvailable: {1000, step.memory}, NodeFsAvailable: {1000, step.disk}}
		if step.blind {
			seen = nil
		}
		var d Decision
		state, d = Decide(thresholds, state, seen, start.Add(step.after), 5*time.Minute)
		var pressure, act []string
		for _, c := range []corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodeMemoryPressure, corev1.NodePIDPressure} {
			if d.Pressure[c] {
				pressure = append(pressure, string(c))
			}
		}
		for _, a := range d.Act {
			s := string(a.Signal)
			if a.Soft {
				s += "/soft"
			}
			act = append(act, s)
		}
		if got := strings.Join(pressure, " "); got != step.want {
			t.Errorf("%s: pressure %q, want %q", step.what, got, step.want)
		}
		if got := strings.Join(act, " "); got != step.act {
			t.Errorf("%s: acts on %q, want %q", step.what, got, step.act)
		}
	}
}

func candidate(name string, priority int32, request string, usedMemory, usedDisk uint64) Candidate {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	p.Spec.Priority = &priority
	c := corev1.Container{Name: "c"}
	if request != "" {
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(request)}
	}
	p.Spec.Containers = []corev1.Container{c}
	return Candidate{Pod: p, Stats: &api.PodStats{PodRef: api.PodReference{UID: name}, Memory: &api.MemoryStats{WorkingSetBytes: &usedMemory},
		EphemeralStorage: &api.FsStats{UsedBytes: &usedDisk},
		Containers:       []api.ContainerStats{{Name: "c", Memory: &api.MemoryStats{WorkingSetBytes: &usedMemory}, Rootfs: &api.FsStats{UsedBytes: &usedDisk}}}}}
}

func TestRank(t *testing.T) {
	all := []Candidate{
		candidate("within", 0, "100", 90, 10),
		candidate("little-over", 0, "100", 110, 500),
		candidate("far-over", 0, "100", 300, 0),
		candidate("important", 10, "100", 900, 100),
		candidate("critical", 2000000000, "", 5000, 5000),
	}
	for signal, want := range map[Signal]string{
		MemoryAvailable: "far-over little-over important within",
		NodeFsAvailable: "little-over within important far-over",
	} {
		var got []string
		for _, c := range Rank(signal, all) {
			got = append(got, c.Pod.Name)
		}
		if d := cmp.Diff(want, strings.Join(got, " ")); d != "" {
			t.Errorf("%s: %s", signal, d)
		}
	}
}

func TestAdmit(t *testing.T) {
	bestEffort := candidate("a", 0, "", 0, 0).Pod
	burstable := candidate("b", 0, "1Mi", 0, 0).Pod
	tolerant := candidate("c", 0, "", 0, 0).Pod
	tolerant.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists}}
	important := candidate("d", 2000000000, "", 0, 0).Pod
	memory := map[corev1.NodeConditionType]bool{corev1.NodeMemoryPressure: true}
	disk := map[corev1.NodeConditionType]bool{corev1.NodeDiskPressure: true}
	for _, tc := range []struct {
		pod      *corev1.Pod
		pressure map[corev1.NodeConditionType]bool
		want     bool
	}{
		{bestEffort, nil, true}, {bestEffort, memory, false}, {burstable, memory, true}, {tolerant, memory, true},
		{burstable, disk, false}, {important, disk, true},
	} {
		if got, _, _ := (Decision{Pressure: tc.pressure}).Admit(tc.pod); got != tc.want {
			t.Errorf("%s under %v: %v", tc.pod.Name, tc.pressure, got)
		}
	}
}

// node is a node with pods that can be ended.
type node struct {
	all     []Candidate
	gone    map[types.UID]bool
	evicted []string
	seen    map[Signal]Observation
	freed   int
}

func (n *node) Pods() []*corev1.Pod {
	var out []*corev1.Pod
	for _, c := range n.all {
		if !n.gone[c.Pod.UID] {
			out = append(out, c.Pod)
		}
	}
	return out
}

func (n *node) Pod(uid types.UID) (*corev1.Pod, bool) {
	for _, p := range n.Pods() {
		if p.UID == uid {
			return p, true
		}
	}
	return nil, false
}

func (n *node) Evict(uid types.UID, e pods.Eviction) bool {
	n.evicted = append(n.evicted, string(uid)+": "+e.Message)
	return true
}

func (n *node) Summary(context.Context, bool) (*api.Summary, error) {
	s := &api.Summary{}
	for _, c := range n.all {
		s.Pods = append(s.Pods, *c.Stats)
	}
	return s, nil
}

func TestManager(t *testing.T) {
	n := &node{gone: map[types.UID]bool{}, all: []Candidate{candidate("small", 0, "1Mi", 10<<20, 0), candidate("large", 0, "1Mi", 50<<20, 0)},
		seen: map[Signal]Observation{MemoryAvailable: {1 << 30, 50 << 20}}}
	clk := clocktesting.NewFakeClock(time.Now())
	m := New(Config{
		Thresholds: []Threshold{{Signal: MemoryAvailable, Value: Amount{Quantity: resource.MustParse("100Mi")}}, {Signal: NodeFsAvailable, Value: Amount{Fraction: 0.1}}},
		Transition: time.Minute, Observe: func(context.Context) map[Signal]Observation { return n.seen },
		FreeDisk: func(context.Context) error { n.freed++; n.seen[NodeFsAvailable] = Observation{100, 50}; return nil },
		Pods:     n, Stats: n, Recorder: record.NewFakeRecorder(10), Clock: clk,
	})
	registry := metrictest.New(m)
	if c := m.Conditions(); len(c) != 3 || c[0].Status != corev1.ConditionFalse || c[0].Reason != "KubeletHasSufficientMemory" {
		t.Errorf("at the start: %+v", c)
	}
	m.Look(t.Context())
	m.Look(t.Context()) // waits for the first to be gone
	want := []string{"large: The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 50Mi, request is 1Mi, has larger consumption of memory. "}
	if d := cmp.Diff(want, n.evicted); d != "" {
		t.Error(d)
	}
	select {
	case <-m.Changed():
	default:
		t.Error("the change was not signalled")
	}
	if c := m.Conditions()[0]; c.Status != corev1.ConditionTrue || c.Reason != "KubeletHasInsufficientMemory" || c.LastTransitionTime.IsZero() {
		t.Errorf("under pressure: %+v", c)
	}
	if err := m.Admit(candidate("new", 0, "", 0, 0).Pod); err == nil {
		t.Error("admitted under pressure")
	}
	n.gone["large"] = true
	m.Look(t.Context())
	if len(n.evicted) != 2 || !strings.HasPrefix(n.evicted[1], "small: ") {
		t.Errorf("evicted %q", n.evicted)
	}

	// Disk that can be freed costs no pod.
	n.gone["small"] = true
	n.seen = map[Signal]Observation{MemoryAvailable: {1 << 30, 500 << 20}, NodeFsAvailable: {100, 5}}
	n.all = append(n.all, candidate("third", 0, "", 0, 1000))
	clk.Step(2 * time.Minute)
	m.Look(t.Context())
	if n.freed != 1 || len(n.evicted) != 2 {
		t.Errorf("freed %d times, evicted %q", n.freed, n.evicted)
	}

	// A pod that breaks its own limit goes without any pressure.
	n.all[2].Pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("100")}
	m.Look(t.Context())
	if len(n.evicted) != 3 || n.evicted[2] != "third: Pod ephemeral local storage usage exceeds the total limit of containers 100. " {
		t.Errorf("evicted %q", n.evicted)
	}
	registry.Expect(t, map[string]float64{
		`kubelet_evictions{eviction_signal="memory.available"}`: 2, `kubelet_evictions{eviction_signal="ephemeralpodfs.limit"}`: 1,
		`kubelet_eviction_stats_age_seconds{eviction_signal="memory.available"}`: 2, `kubelet_eviction_stats_age_seconds{eviction_signal="ephemeralpodfs.limit"}`: 1,
	})
}
