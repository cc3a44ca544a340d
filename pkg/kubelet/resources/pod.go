package resources

import (
	"time"

	"github.com/opencontainers/cgroups"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
)

// The kernel's bounds and defaults for CPU shares and quotas.
const (
	minShares     = 2
	maxShares     = 262144
	sharesPerCPU  = 1024
	minQuota      = 1000 // µs
	defaultPeriod = 100 * time.Millisecond
)

// Shares turns a CPU request in thousandths of a CPU into version 1 CPU shares.
func Shares(milliCPU int64) uint64 {
	shares := milliCPU * sharesPerCPU / 1000
	return uint64(min(max(shares, minShares), maxShares))
}

// Quota turns a CPU limit in thousandths of a CPU into the microseconds that may
// be used in each period. No limit is -1.
func Quota(milliCPU int64, period time.Duration) int64 {
	if milliCPU <= 0 {
		return -1
	}
	return max(milliCPU*period.Microseconds()/1000, minQuota)
}

// QOS returns a pod's quality-of-service class. It is the one in the status where
// the API server has set it: it never changes in a pod's life, whatever a resize
// does to its resources. Static pods have none and get it from their spec.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		return qosOf(pod.Spec.Resources)
	}
	var class corev1.PodQOSClass
	for _, cs := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range cs {
			c := qosOf(&cs[i].Resources)
			if class != "" && c != class {
				return corev1.PodQOSBurstable
			}
			class = c
		}
	}
	return class
}

func qosOf(r *corev1.ResourceRequirements) corev1.PodQOSClass {
	guaranteed, some := true, false
	for _, n := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := r.Requests[n], r.Limits[n]
		if request.IsZero() {
			request = limit
		}
		some = some || !request.IsZero() || !limit.IsZero()
		guaranteed = guaranteed && !limit.IsZero() && request.Cmp(limit) == 0
	}
	switch {
	case !some:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// A Policy is what the kubelet's configuration says about pods' cgroups.
type Policy struct {
	// CPUQuota enforces CPU limits, with the given period.
	CPUQuota  bool
	CPUPeriod time.Duration
	// PidsLimit is the most processes that a pod may have; 0 or less is no limit.
	PidsLimit int64
}

func (p Policy) period() time.Duration {
	if p.CPUPeriod <= 0 {
		return defaultPeriod
	}
	return p.CPUPeriod
}

// ForPod returns the values of a pod's cgroup. A limit holds for the pod as a
// whole only if every one of its containers has one: otherwise those without may
// use what the node has. hugetlb says whether the machine can limit huge pages.
func ForPod(pod *corev1.Pod, policy Policy, hugetlb bool) *cgroups.Resources {
	opts := resourcehelper.PodResourcesOptions{}
	requests, limits := resourcehelper.PodRequests(pod, opts), resourcehelper.PodLimits(pod, opts)
	r := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	setShares(r, Shares(requests.Cpu().MilliValue()))
	if policy.PidsLimit > 0 {
		r.PidsLimit = &policy.PidsLimit
	}
	switch QOS(pod) {
	case corev1.PodQOSBestEffort:
		setShares(r, minShares)
		return r
	case corev1.PodQOSGuaranteed, corev1.PodQOSBurstable:
		if limited(pod, corev1.ResourceCPU) {
			r.CpuPeriod = uint64(policy.period().Microseconds())
			r.CpuQuota = -1
			if policy.CPUQuota {
				r.CpuQuota = Quota(limits.Cpu().MilliValue(), policy.period())
			}
		}
		if limited(pod, corev1.ResourceMemory) {
			r.Memory = limits.Memory().Value()
		}
	}
	if hugetlb {
		for n, q := range limits {
			if size, ok := hugePageSize(n); ok {
				r.HugetlbLimit = append(r.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: size, Limit: uint64(q.Value())})
			}
		}
	}
	return r
}

// setShares sets the weight in both versions' terms.
func setShares(r *cgroups.Resources, shares uint64) {
	r.CpuShares = shares
	r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(shares)
}

// limited says whether the pod, or each of its containers, limits a resource.
func limited(pod *corev1.Pod, n corev1.ResourceName) bool {
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		if q, ok := pod.Spec.Resources.Limits[n]; ok && !q.IsZero() {
			return true
		}
	}
	for _, cs := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range cs {
			if q := cs[i].Resources.Limits[n]; q.IsZero() {
				return false
			}
		}
	}
	return len(pod.Spec.Containers) > 0
}

// hugePageSize turns hugepages-2Mi into the "2MB" of cgroup file names.
func hugePageSize(n corev1.ResourceName) (string, bool) {
	s, ok := cutHugePages(n)
	if !ok {
		return "", false
	}
	return PageSizeName(s.Value()), true
}

func cutHugePages(n corev1.ResourceName) (resource.Quantity, bool) {
	if len(n) <= len(corev1.ResourceHugePagesPrefix) || n[:len(corev1.ResourceHugePagesPrefix)] != corev1.ResourceHugePagesPrefix {
		return resource.Quantity{}, false
	}
	q, err := resource.ParseQuantity(string(n[len(corev1.ResourceHugePagesPrefix):]))
	return q, err == nil
}

// The oom_score_adj of containers that must go last, of those that go first, and
// the bounds of what lies between.
const (
	guaranteedOOMScore = -997
	bestEffortOOMScore = 1000
	minBurstableScore  = 1000 + guaranteedOOMScore // above every Guaranteed container
	maxBurstableScore  = bestEffortOOMScore - 1
	nodeCritical       = 2000001000 // the value of system-node-critical
)

// OOMScoreAdj returns a container's oom_score_adj: the larger the part of the
// machine's memory that it requests, the later the kernel kills it. A sidecar is
// killed no earlier than the containers that it serves.
func OOMScoreAdj(pod *corev1.Pod, container *corev1.Container, memoryCapacity int64) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= nodeCritical {
		return guaranteedOOMScore
	}
	switch QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteedOOMScore
	case corev1.PodQOSBestEffort:
		return bestEffortOOMScore
	}
	score := burstableScore(pod, container, memoryCapacity)
	if isSidecar(pod, container) {
		for i := range pod.Spec.Containers {
			score = min(score, burstableScore(pod, &pod.Spec.Containers[i], memoryCapacity))
		}
	}
	return score
}

func burstableScore(pod *corev1.Pod, container *corev1.Container, capacity int64) int64 {
	if capacity <= 0 {
		return maxBurstableScore
	}
	request := container.Resources.Requests.Memory().Value()
	if resourcehelper.IsPodLevelRequestsSet(pod) {
		// What the pod requests beyond its containers' requests is theirs in equal parts.
		request += unclaimed(pod) / int64(len(pod.Spec.Containers)+sidecars(pod))
	}
	return min(max(1000-1000*request/capacity, minBurstableScore), maxBurstableScore)
}

func unclaimed(pod *corev1.Pod) int64 {
	rest := pod.Spec.Resources.Requests.Memory().Value()
	own := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	return max(rest-own.Memory().Value(), 0)
}

func sidecars(pod *corev1.Pod) int {
	n := 0
	for i := range pod.Spec.InitContainers {
		if p := pod.Spec.InitContainers[i].RestartPolicy; p != nil && *p == corev1.ContainerRestartPolicyAlways {
			n++
		}
	}
	return n
}

func isSidecar(pod *corev1.Pod, container *corev1.Container) bool {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.Name == container.Name {
			return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}
	}
	return false
}

// podName returns where in the hierarchy below root a pod belongs.
func podName(root name, qos corev1.PodQOSClass, uid types.UID) name {
	switch qos {
	case corev1.PodQOSGuaranteed:
		return root.child("pod" + string(uid))
	case corev1.PodQOSBurstable:
		return root.child("burstable", "pod"+string(uid))
	}
	return root.child("besteffort", "pod"+string(uid))
}
