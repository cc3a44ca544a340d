package resources

import (
	"time"

	"github.com/opencontainers/cgroups"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"

	kuberuntime "github.com/leme-k8s/leme/pkg/kubelet/runtime"
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
	switch kuberuntime.QOS(pod) {
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
