package eviction

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// An Observation is how much there is of something, and how much is left.
type Observation struct{ Capacity, Available uint64 }

// State is what must be remembered from one decision to the next. Its zero value is a node's at its start.
type State struct {
	// since has when a threshold was first found not met, by its place in the list.
	since map[int]time.Time
	// pressure has when a condition last had a cause.
	pressure map[corev1.NodeConditionType]time.Time
}

// A Decision is what is the case and what must be done about it.
type Decision struct {
	// Pressure has the conditions that are true.
	Pressure map[corev1.NodeConditionType]bool
	// Act lists the thresholds that call for action, most pressing first.
	Act []Threshold
}

// Decide compares what was observed with what must be. A signal without an
// observation stays as it was.
func Decide(thresholds []Threshold, state State, seen map[Signal]Observation, now time.Time, transition time.Duration) (State, Decision) {
	next := State{since: map[int]time.Time{}, pressure: maps.Clone(state.pressure)}
	if next.pressure == nil {
		next.pressure = map[corev1.NodeConditionType]time.Time{}
	}
	d := Decision{Pressure: map[corev1.NodeConditionType]bool{}}
	for i, t := range thresholds {
		since, was := state.since[i]
		o, ok := seen[t.Signal]
		short := was
		if ok {
			need := t.Value.Of(o.Capacity)
			if was {
				need += t.MinReclaim.Of(o.Capacity)
			}
			short = o.Available < need
		}
		if !short {
			continue
		}
		if !was {
			since = now
		}
		next.since[i] = since
		next.pressure[about[t.Signal].condition] = now
		if now.Sub(since) >= t.Grace {
			d.Act = append(d.Act, t)
		}
	}
	for c, last := range next.pressure {
		// A condition that comes and goes would have pods come and go with it.
		if now.Sub(last) < transition || last.Equal(now) {
			d.Pressure[c] = true
		} else {
			delete(next.pressure, c)
		}
	}
	return next, d
}

// Admit says whether a new pod may start under pressure.
func (d Decision) Admit(pod *corev1.Pod) (ok bool, reason, message string) {
	if len(d.Pressure) == 0 || critical(pod) {
		return true, "", ""
	}
	if len(d.Pressure) == 1 && d.Pressure[corev1.NodeMemoryPressure] {
		if kuberuntime.QOS(pod) != corev1.PodQOSBestEffort {
			return true, "", ""
		}
		taint := &corev1.Taint{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule}
		for i := range pod.Spec.Tolerations {
			if pod.Spec.Tolerations[i].ToleratesTaint(klog.Background(), taint, false) {
				return true, "", ""
			}
		}
	}
	var names []string
	for c := range d.Pressure {
		names = append(names, string(c))
	}
	slices.Sort(names)
	return false, "Evicted", fmt.Sprintf("The node had condition: [%s]. ", strings.Join(names, ", "))
}

// critical pods are never ended: without them the node is of no use.
func critical(pod *corev1.Pod) bool {
	return kuberuntime.IsStatic(pod) || kuberuntime.IsCritical(pod)
}

// A Candidate is a pod and what it uses.
type Candidate struct {
	Pod   *corev1.Pod
	Stats *api.PodStats
}

// Rank orders the pods that may be ended for a signal, the first to go first: those
// that use more than they requested, then those of less priority, then those that
// use most beyond their request.
func Rank(s Signal, all []Candidate) []Candidate {
	out := slices.DeleteFunc(slices.Clone(all), func(c Candidate) bool {
		return critical(c.Pod) || c.Pod.Status.Phase == corev1.PodFailed || c.Pod.Status.Phase == corev1.PodSucceeded
	})
	type weight struct {
		exceeds  int
		priority int32
		beyond   int64
	}
	weigh := func(c Candidate) weight {
		usage := c.usage(s)
		request := c.request(s)
		w := weight{beyond: usage - request}
		if usage > request && s != PIDAvailable {
			w.exceeds = 1
		}
		if c.Pod.Spec.Priority != nil {
			w.priority = *c.Pod.Spec.Priority
		}
		return w
	}
	slices.SortStableFunc(out, func(a, b Candidate) int {
		x, y := weigh(a), weigh(b)
		return cmp.Or(cmp.Compare(y.exceeds, x.exceeds), cmp.Compare(x.priority, y.priority), cmp.Compare(y.beyond, x.beyond))
	})
	return out
}

func (c Candidate) usage(s Signal) int64 {
	if c.Stats == nil {
		return 0
	}
	var v *uint64
	switch s {
	case MemoryAvailable:
		if c.Stats.Memory != nil {
			v = c.Stats.Memory.WorkingSetBytes
		}
	case PIDAvailable:
		if c.Stats.ProcessStats != nil {
			v = c.Stats.ProcessStats.ProcessCount
		}
	case NodeFsInodesFree, ImageFsInodesFree, ContainerFsInodesFree:
		if c.Stats.EphemeralStorage != nil {
			v = c.Stats.EphemeralStorage.InodesUsed
		}
	default:
		if c.Stats.EphemeralStorage != nil {
			v = c.Stats.EphemeralStorage.UsedBytes
		}
	}
	if v == nil {
		return 0
	}
	return int64(*v)
}

func (c Candidate) request(s Signal) int64 {
	r := resourcehelper.PodRequests(c.Pod, resourcehelper.PodResourcesOptions{})
	q := r[about[s].resource]
	return q.Value()
}

// message tells why a pod had to go, and which of its containers were the cause.
func message(t Threshold, o Observation, c Candidate) string {
	name := about[t.Signal].resource
	var b strings.Builder
	need := resource.NewQuantity(int64(t.Value.Of(o.Capacity)), resource.BinarySI)
	have := resource.NewQuantity(int64(o.Available), resource.BinarySI)
	fmt.Fprintf(&b, "The node was low on resource: %s. Threshold quantity: %s, available: %s. ", name, need, have)
	if c.Stats == nil || name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage {
		return b.String()
	}
	for i := range c.Stats.Containers {
		s := &c.Stats.Containers[i]
		spec := kuberuntime.FindContainer(c.Pod, s.Name)
		if spec == nil {
			continue
		}
		var used int64
		switch {
		case name == corev1.ResourceMemory && s.Memory != nil && s.Memory.WorkingSetBytes != nil:
			used = int64(*s.Memory.WorkingSetBytes)
		case name == corev1.ResourceEphemeralStorage:
			used = containerDisk(s)
		}
		request := spec.Resources.Requests[name]
		if used > request.Value() {
			fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of %s. ",
				s.Name, resource.NewQuantity(used, resource.BinarySI), &request, name)
		}
	}
	return b.String()
}

func containerDisk(s *api.ContainerStats) int64 {
	var used int64
	for _, fs := range []*api.FsStats{s.Rootfs, s.Logs} {
		if fs != nil && fs.UsedBytes != nil {
			used += int64(*fs.UsedBytes)
		}
	}
	return used
}

// limitsDisk says whether anything limits how much of the node's disk a pod may use.
func limitsDisk(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.SizeLimit != nil && !e.SizeLimit.IsZero() {
			return true
		}
	}
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	q := limits[corev1.ResourceEphemeralStorage]
	return !q.IsZero()
}

// exceeded says which limit on its use of the disk a pod has broken, or nothing.
func exceeded(c Candidate) (Signal, string) {
	if c.Stats == nil {
		return "", ""
	}
	for i := range c.Pod.Spec.Volumes {
		v := &c.Pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.IsZero() {
			continue
		}
		for j := range c.Stats.VolumeStats {
			s := &c.Stats.VolumeStats[j]
			if s.Name == v.Name && s.UsedBytes != nil && int64(*s.UsedBytes) > v.EmptyDir.SizeLimit.Value() {
				return emptyDirLimit, fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit)
			}
		}
	}
	limits := resourcehelper.PodLimits(c.Pod, resourcehelper.PodResourcesOptions{})
	if q, ok := limits[corev1.ResourceEphemeralStorage]; ok && !q.IsZero() {
		if c.usage(NodeFsAvailable) > q.Value() && allLimit(c.Pod) {
			return podLimit, fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", &q)
		}
	}
	for i := range c.Stats.Containers {
		s := &c.Stats.Containers[i]
		spec := kuberuntime.FindContainer(c.Pod, s.Name)
		if spec == nil {
			continue
		}
		if q, ok := spec.Resources.Limits[corev1.ResourceEphemeralStorage]; ok && !q.IsZero() && containerDisk(s) > q.Value() {
			return containerLimit, fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", s.Name, &q)
		}
	}
	return "", ""
}

// allLimit says whether each container limits its use of the disk: else their sum is no limit of the pod's.
func allLimit(pod *corev1.Pod) bool {
	for i := range pod.Spec.Containers {
		if q := pod.Spec.Containers[i].Resources.Limits[corev1.ResourceEphemeralStorage]; q.IsZero() {
			return false
		}
	}
	return true
}
