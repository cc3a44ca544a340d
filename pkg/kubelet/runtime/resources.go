package runtime

import (
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubectl/pkg/util/qos"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
)

const (
	minShares  = 2
	maxShares  = 262144
	minQuota   = 1000
	minPeriod  = 100 * time.Millisecond
	oomCritial = -997
	oomAll     = 1000
)

// Limits is how the node turns resources into cgroup settings.
type Limits struct {
	// CPUQuota says whether CPU limits are enforced, Period over which time.
	CPUQuota bool
	Period   time.Duration
	// MemoryCapacity of the node, in bytes.
	MemoryCapacity int64
	// GroupKill ends all processes of a container when one runs out of memory (cgroup v2).
	GroupKill bool
	// Swap is off for containers where the kernel can account for it.
	NoSwap bool
}

// QOS is the pod's quality of service class.
func QOS(pod *v1.Pod) v1.PodQOSClass { return qos.GetPodQOS(pod) }

// Container is the cgroup configuration of one container.
func (l Limits) Container(pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	own := allocation.Effective(pod, c)
	r := l.cgroup(own.Requests, own.Limits)
	r.OomScoreAdj = OOMScoreAdj(pod, c, l.MemoryCapacity)
	if l.GroupKill {
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	if l.NoSwap && r.MemoryLimitInBytes > 0 {
		r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
	}
	return r
}

// Pod is the sum of what the containers of a pod ask for; runtimes that make a virtual
// machine a pod size it so.
func (l Limits) Pod(pod *v1.Pod) *runtimeapi.LinuxContainerResources {
	opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
	return l.cgroup(resourcehelper.PodRequests(pod, opts), resourcehelper.PodLimits(pod, opts))
}

func (l Limits) cgroup(requests, limits v1.ResourceList) *runtimeapi.LinuxContainerResources {
	r := &runtimeapi.LinuxContainerResources{CpuPeriod: minPeriod.Microseconds()}
	request, limit := requests.Cpu(), limits.Cpu()
	if _, asked := requests[v1.ResourceCPU]; !asked && !limit.IsZero() {
		request = limit
	}
	r.CpuShares = shares(request.MilliValue())
	if l.CPUQuota {
		period := l.Period
		if period == 0 {
			period = minPeriod
		}
		r.CpuPeriod = period.Microseconds()
		if milli := limit.MilliValue(); milli > 0 {
			r.CpuQuota = max(milli*r.CpuPeriod/1000, minQuota)
		}
	}
	r.MemoryLimitInBytes = limits.Memory().Value()
	r.HugepageLimits = hugepages(limits)
	return r
}

func shares(milliCPU int64) int64 {
	return min(max(milliCPU*1024/1000, minShares), maxShares)
}

// hugepages limits every page size that the machine has, to nothing unless asked for.
func hugepages(limits v1.ResourceList) []*runtimeapi.HugepageLimit {
	var out []*runtimeapi.HugepageLimit
	for _, size := range hugePageSizes() {
		var most uint64
		for name, q := range limits {
			if s, ok := cutHugePrefix(string(name)); ok && s.Value() == size {
				most = uint64(q.Value())
			}
		}
		out = append(out, &runtimeapi.HugepageLimit{PageSize: pageSizeName(size), Limit: most})
	}
	return out
}

func cutHugePrefix(name string) (resource.Quantity, bool) {
	const prefix = v1.ResourceHugePagesPrefix
	if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return resource.Quantity{}, false
	}
	q, err := resource.ParseQuantity(name[len(prefix):])
	return q, err == nil
}

// pageSizeName is a page size as the hugetlb cgroup names its files: 2MB, 1GB.
func pageSizeName(bytes int64) string {
	units := []string{"B", "KB", "MB", "GB"}
	i := 0
	for bytes >= 1024 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return strconv.FormatInt(bytes, 10) + units[i]
}

// OOMScoreAdj is how soon the kernel picks the container when the node runs out of memory: the
// larger, the sooner. Between the extremes it falls with the share of the node's memory asked for.
func OOMScoreAdj(pod *v1.Pod, c *v1.Container, capacity int64) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= 2_000_001_000 || IsCritical(pod) {
		return oomCritial
	}
	switch QOS(pod) {
	case v1.PodQOSGuaranteed:
		return oomCritial
	case v1.PodQOSBestEffort:
		return oomAll
	}
	if capacity <= 0 {
		return oomAll - 1
	}
	shared := unclaimed(pod)
	score := func(request int64) int64 { return oomAll - oomAll*(request+shared)/capacity }
	adj := score(c.Resources.Requests.Memory().Value())
	// A sidecar outlives no regular container: it is as hard to pick as the pod's best.
	if IsSidecar(c) {
		for i := range pod.Spec.Containers {
			adj = min(adj, score(pod.Spec.Containers[i].Resources.Requests.Memory().Value()))
		}
	}
	// Never as safe as guaranteed, never as exposed as best effort.
	if adj < oomAll+oomCritial {
		return oomAll + oomCritial
	}
	return min(adj, oomAll-1)
}

// unclaimed is each container's part of the memory that the pod asks for as a whole beyond what its containers do.
func unclaimed(pod *v1.Pod) int64 {
	if !resourcehelper.IsPodLevelRequestsSet(pod) || pod.Spec.Resources.Requests.Memory().IsZero() {
		return 0
	}
	claimed := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	return max(pod.Spec.Resources.Requests.Memory().Value()-claimed.Memory().Value(), 0) / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
}

// IsSidecar tells whether an init container is restarted for as long as the pod runs.
func IsSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}
