// Package status says how a pod is doing: [Generate] makes a pod's status of what was
// observed, as a pure function, and [Writer] brings it to the API when it has changed.
package status

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/leme-k8s/leme/pkg/kubelet/probes"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// Waiting says why a container does not run.
type Waiting struct{ Reason, Message string }

// Input is everything that a pod's status is made of.
type Input struct {
	// Pod is the pod as the API has it; its status is the one last written.
	Pod *v1.Pod
	// Last is the status last generated; what the runtime has forgotten is in it.
	Last v1.PodStatus
	// State is what was observed.
	State *runtime.State
	// Probes tells the results of a container's probes.
	Probes func(containerID string) probes.Results
	// Waiting has the reasons of containers that do not run.
	Waiting map[string]Waiting
	// Phase is Succeeded or Failed once nothing will run any more, whatever still does.
	Phase v1.PodPhase
	// Reason and Message explain Phase, or an end that did not come from the containers.
	Reason, Message string
	// Rejected says that the node never took the pod: of its containers there is nothing to say.
	Rejected bool
	// Conditions are set besides those that follow from the rest (DisruptionTarget).
	Conditions []v1.PodCondition
	// Resizing are the conditions of a resize, as they are to be shown.
	Resizing []v1.PodCondition
	// Actuated is what was applied to containers, by name; Actual what the pod's cgroup enforces, nil if it has none.
	Actuated map[string]v1.ResourceRequirements
	Actual   *v1.ResourceRequirements
	// Stopped says that the pod has ended: what the runtime knows nothing of has gone for good.
	Stopped bool

	RuntimeName       string
	HostIPs           []string
	RecursiveReadOnly bool
	Now               time.Time
}

// Owned tells whether a condition of a pod is the kubelet's to set.
func Owned(t v1.PodConditionType) bool {
	switch t {
	case v1.PodScheduled, v1.PodReady, v1.PodInitialized, v1.ContainersReady, v1.PodReadyToStartContainers, v1.PodResizePending, v1.PodResizeInProgress:
		return true
	}
	return false
}

// Generate makes the status of a pod.
func Generate(in Input) v1.PodStatus {
	pod := in.Pod
	s := v1.PodStatus{
		ObservedGeneration:          pod.Generation,
		QOSClass:                    pod.Status.QOSClass,
		StartTime:                   in.Last.StartTime,
		NominatedNodeName:           pod.Status.NominatedNodeName,
		ResourceClaimStatuses:       pod.Status.ResourceClaimStatuses,
		ExtendedResourceClaimStatus: pod.Status.ExtendedResourceClaimStatus,
	}
	if s.QOSClass == "" {
		s.QOSClass = runtime.QOS(pod)
	}
	if s.StartTime == nil {
		if s.StartTime = pod.Status.StartTime; s.StartTime == nil {
			now := metav1.NewTime(in.Now).Rfc3339Copy()
			s.StartTime = &now
		}
	}
	runtime.EachContainer(pod, func(c *v1.Container, kind runtime.Kind) {
		if in.Rejected {
			return
		}
		st := in.container(c, kind)
		switch kind {
		case runtime.Regular:
			s.ContainerStatuses = append(s.ContainerStatuses, st)
		case runtime.Ephemeral:
			s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, st)
		default:
			s.InitContainerStatuses = append(s.InitContainerStatuses, st)
		}
	})
	s.Phase = in.phase(&s)
	in.size(&s)
	in.addresses(&s)
	in.conditions(&s)
	return s
}

func find(list []v1.ContainerStatus, name string) *v1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

func (in *Input) last(name string) *v1.ContainerStatus {
	for _, s := range []*v1.PodStatus{&in.Last, &in.Pod.Status} {
		for _, list := range [][]v1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
			if c := find(list, name); c != nil {
				return c
			}
		}
	}
	return nil
}

// container is the status of one container.
func (in *Input) container(c *v1.Container, kind runtime.Kind) v1.ContainerStatus {
	st := v1.ContainerStatus{Name: c.Name, Image: c.Image, VolumeMounts: in.mounts(c)}
	last := in.last(c.Name)
	newest := in.State.Newest(c.Name)
	if newest == nil {
		in.unseen(&st, last)
	} else {
		in.seen(&st, newest, last)
	}
	if w, ok := in.Waiting[c.Name]; ok && st.State.Running == nil && !in.Stopped {
		// What ran before shows beside what it waits for.
		if st.State.Terminated != nil {
			st.LastTerminationState = st.State
		}
		st.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}}
	}
	in.readiness(&st, c, kind, newest)
	if kind != runtime.Ephemeral {
		in.resources(&st, c, newest)
	}
	return st
}

// unseen is a container of which the runtime has no trace.
func (in *Input) unseen(st, last *v1.ContainerStatus) {
	reason := "ContainerCreating"
	if len(in.Pod.Spec.InitContainers) > 0 {
		reason = "PodInitializing"
	}
	st.State.Waiting = &v1.ContainerStateWaiting{Reason: reason}
	if last == nil {
		return
	}
	st.RestartCount, st.LastTerminationState = last.RestartCount, last.LastTerminationState
	gone := &v1.ContainerStateTerminated{
		ExitCode: 137, Reason: "ContainerStatusUnknown",
		Message: "The container could not be located when the pod was terminated",
	}
	switch {
	case last.State.Terminated != nil:
		terminated := *last
		terminated.VolumeMounts = st.VolumeMounts
		*st = terminated
	case last.State.Running != nil && in.Stopped:
		st.State = v1.ContainerState{Terminated: gone}
		st.ContainerID, st.Image, st.ImageID = last.ContainerID, last.Image, last.ImageID
	case last.State.Running != nil:
		gone.Message = "The container could not be located when the pod was deleted.  The container used to be Running"
		st.LastTerminationState = v1.ContainerState{Terminated: gone}
		st.RestartCount++
	}
}

func (in *Input) seen(st *v1.ContainerStatus, c *runtime.Container, last *v1.ContainerStatus) {
	st.ContainerID = runtime.FullID(in.RuntimeName, c.ID)
	st.RestartCount = int32(c.RestartCount)
	st.ImageID = c.ImageID
	if c.Image != "" {
		st.Image = c.Image
	}
	switch c.State {
	case runtime.Running:
		st.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt).Rfc3339Copy()}
	case runtime.Exited:
		st.State.Terminated = in.terminated(c)
	default:
		st.State.Waiting = &v1.ContainerStateWaiting{Reason: "ContainerCreating"}
	}
	if previous := in.State.Previous(c.Name); previous != nil && previous.State == runtime.Exited {
		st.LastTerminationState.Terminated = in.terminated(previous)
	} else if last != nil {
		if last.ContainerID == st.ContainerID {
			st.LastTerminationState = last.LastTerminationState
		} else if last.State.Terminated != nil {
			st.LastTerminationState = last.State
		}
	}
	if u := c.User; u != nil {
		st.User = &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
	}
}

func (in *Input) terminated(c *runtime.Container) *v1.ContainerStateTerminated {
	t := &v1.ContainerStateTerminated{
		ExitCode: int32(c.ExitCode), Reason: c.Reason, Message: c.Message,
		StartedAt: metav1.NewTime(c.StartedAt).Rfc3339Copy(), FinishedAt: metav1.NewTime(c.FinishedAt).Rfc3339Copy(),
		ContainerID: runtime.FullID(in.RuntimeName, c.ID),
	}
	if t.Reason == "" {
		if t.Reason = "Error"; c.ExitCode == 0 {
			t.Reason = "Completed"
		}
	}
	return t
}

func (in *Input) readiness(st *v1.ContainerStatus, c *v1.Container, kind runtime.Kind, newest *runtime.Container) {
	no, yes := false, true
	st.Started = &no
	if kind == runtime.Init {
		st.Ready = st.State.Terminated != nil && st.State.Terminated.ExitCode == 0
		if st.State.Running != nil {
			st.Started = &yes
		}
		return
	}
	if st.State.Running == nil {
		return
	}
	results := in.Probes(newest.ID)
	if c.StartupProbe == nil || results.Started {
		st.Started = &yes
	}
	if kind != runtime.Ephemeral {
		st.Ready = *st.Started && (c.ReadinessProbe == nil || results.Ready)
	} else {
		st.Started = nil
	}
}

func (in *Input) mounts(c *v1.Container) []v1.VolumeMountStatus {
	var out []v1.VolumeMountStatus
	for _, m := range c.VolumeMounts {
		st := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := v1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != v1.RecursiveReadOnlyDisabled && in.RecursiveReadOnly {
				mode = v1.RecursiveReadOnlyEnabled
			}
			st.RecursiveReadOnly = &mode
		}
		out = append(out, st)
	}
	return out
}

// resources are what the container was promised and what its cgroup enforces.
func (in *Input) resources(st *v1.ContainerStatus, c *v1.Container, newest *runtime.Container) {
	st.AllocatedResources = c.Resources.Requests.DeepCopy()
	r := c.Resources.DeepCopy()
	st.Resources = r
	if st.State.Running == nil || newest == nil || newest.Resources == nil {
		return
	}
	actual := newest.Resources
	if _, ok := r.Limits[v1.ResourceCPU]; ok && actual.CpuQuota > 0 && actual.CpuPeriod > 0 {
		if milli := actual.CpuQuota * 1000 / actual.CpuPeriod; milli > 10 || r.Limits.Cpu().MilliValue() > 10 {
			r.Limits[v1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
		}
	}
	if _, ok := r.Requests[v1.ResourceCPU]; ok && actual.CpuShares > 0 {
		const leastShares, sharesPerCPU = 2, 1024
		if milli := (actual.CpuShares*1000 + sharesPerCPU - 1) / sharesPerCPU; milli > leastShares || r.Requests.Cpu().MilliValue() > leastShares {
			r.Requests[v1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
		}
	}
	if q, ok := in.Actuated[c.Name].Requests[v1.ResourceMemory]; ok && !q.IsZero() && r.Requests != nil {
		r.Requests[v1.ResourceMemory] = q // of which no cgroup knows
	}
	if _, ok := r.Limits[v1.ResourceMemory]; ok && actual.MemoryLimitInBytes > 0 && actual.MemoryLimitInBytes != r.Limits.Memory().Value() {
		r.Limits[v1.ResourceMemory] = *resource.NewQuantity(actual.MemoryLimitInBytes, resource.BinarySI)
	}
}

// size is what the pod as a whole was promised and what its cgroup enforces.
func (in *Input) size(s *v1.PodStatus) {
	if in.Rejected {
		return
	}
	opts := resourcehelper.PodResourcesOptions{}
	s.AllocatedResources = resourcehelper.PodRequests(in.Pod, opts)
	s.Resources = in.Pod.Spec.Resources.DeepCopy()
	if s.Resources == nil {
		s.Resources = &v1.ResourceRequirements{}
	}
	if s.Phase != v1.PodRunning || in.Actual == nil {
		s.Resources.Requests, s.Resources.Limits = s.AllocatedResources.DeepCopy(), resourcehelper.PodLimits(in.Pod, opts)
		return
	}
	enforced := func(l *v1.ResourceList, actual v1.ResourceList) {
		if *l == nil {
			*l = v1.ResourceList{}
		}
		maps.Copy(*l, actual)
	}
	enforced(&s.Resources.Requests, in.Actual.Requests)
	enforced(&s.Resources.Limits, in.Actual.Limits)
	if _, ok := s.Resources.Requests[v1.ResourceMemory]; !ok {
		if q, ok := s.AllocatedResources[v1.ResourceMemory]; ok {
			s.Resources.Requests[v1.ResourceMemory] = q
		}
	}
}

// phase is where the pod is in its life.
func (in *Input) phase(s *v1.PodStatus) v1.PodPhase {
	for _, was := range []v1.PodPhase{in.Pod.Status.Phase, in.Last.Phase} {
		if was == v1.PodFailed || was == v1.PodSucceeded {
			return was // for good
		}
	}
	if in.Phase != "" && (in.Stopped || !in.State.AnyRunning()) {
		return in.Phase
	}
	started := func(st *v1.ContainerStatus) bool {
		return st.State.Running != nil || st.State.Terminated != nil || st.LastTerminationState.Terminated != nil
	}
	if slices.ContainsFunc(s.ContainerStatuses, func(st v1.ContainerStatus) bool { return !started(&st) }) {
		return v1.PodPending
	}
	return v1.PodRunning
}

// addresses are those of the sandbox; a pod that has stopped keeps the ones it had.
func (in *Input) addresses(s *v1.PodStatus) {
	for _, ip := range in.HostIPs {
		s.HostIPs = append(s.HostIPs, v1.HostIP{IP: ip})
	}
	if len(in.HostIPs) > 0 {
		s.HostIP = in.HostIPs[0]
	}
	var ips []string
	if in.Pod.Spec.HostNetwork {
		ips = in.HostIPs
	} else if b := in.State.ReadySandbox(); b != nil {
		ips = b.IPs
	}
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, v1.PodIP{IP: ip})
	}
	if len(s.PodIPs) == 0 {
		if s.PodIPs = in.Last.PodIPs; len(s.PodIPs) == 0 {
			s.PodIPs = in.Pod.Status.PodIPs
		}
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
}

func (in *Input) conditions(s *v1.PodStatus) {
	for _, c := range in.Pod.Status.Conditions {
		if !Owned(c.Type) && !slices.ContainsFunc(in.Conditions, func(o v1.PodCondition) bool { return o.Type == c.Type }) {
			s.Conditions = append(s.Conditions, c)
		}
	}
	if s.Phase == in.Phase || in.Reason != "" {
		s.Reason, s.Message = in.Reason, in.Message
	}
	if s.Reason == "" {
		s.Reason, s.Message = in.Pod.Status.Reason, in.Pod.Status.Message
	}
	all := append(slices.Clone(s.InitContainerStatuses), s.ContainerStatuses...)
	set := func(c v1.PodCondition) {
		c.ObservedGeneration = in.Pod.Generation
		c.LastTransitionTime = metav1.NewTime(in.Now).Rfc3339Copy()
		for _, old := range [][]v1.PodCondition{in.Last.Conditions, in.Pod.Status.Conditions} {
			if i := slices.IndexFunc(old, func(o v1.PodCondition) bool { return o.Type == c.Type }); i >= 0 {
				if old[i].Status == c.Status && !old[i].LastTransitionTime.IsZero() {
					c.LastTransitionTime = old[i].LastTransitionTime
				}
				break
			}
		}
		s.Conditions = append(s.Conditions, c)
	}
	for _, c := range in.Conditions {
		set(c)
	}
	s.Conditions = append(s.Conditions, in.Resizing...)
	set(in.readyToStart())
	set(in.initialized(s, all))
	containers := containersReady(in.Pod, s, all)
	set(readyCondition(in.Pod, s, containers))
	set(containers)
	set(v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionTrue})
}

func (in *Input) readyToStart() v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: v1.ConditionTrue}
	if b := in.State.ReadySandbox(); b == nil || !in.Pod.Spec.HostNetwork && len(b.IPs) == 0 {
		c.Status, c.Reason = v1.ConditionFalse, "PodSandboxNotReady"
	}
	return c
}

func (in *Input) initialized(s *v1.PodStatus, all []v1.ContainerStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionTrue}
	if s.Phase == v1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	if slices.ContainsFunc(s.ContainerStatuses, func(st v1.ContainerStatus) bool {
		return st.State.Running != nil || st.State.Terminated != nil || st.LastTerminationState.Terminated != nil
	}) {
		return c
	}
	var incomplete []string
	for i := range in.Pod.Spec.InitContainers {
		own := &in.Pod.Spec.InitContainers[i]
		st := find(all, own.Name)
		if st == nil || runtime.IsSidecar(own) && (st.Started == nil || !*st.Started) || !runtime.IsSidecar(own) && !st.Ready {
			incomplete = append(incomplete, own.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = v1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func containersReady(pod *v1.Pod, s *v1.PodStatus, all []v1.ContainerStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	switch s.Phase {
	case v1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case v1.PodFailed:
		c.Reason = "PodFailed"
		return c
	}
	var unready []string
	runtime.EachContainer(pod, func(own *v1.Container, kind runtime.Kind) {
		if kind == runtime.Sidecar || kind == runtime.Regular {
			if st := find(all, own.Name); st == nil || !st.Ready {
				unready = append(unready, own.Name)
			}
		}
	})
	if len(unready) > 0 {
		c.Reason, c.Message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = v1.ConditionTrue
	return c
}

func readyCondition(pod *v1.Pod, s *v1.PodStatus, containers v1.PodCondition) v1.PodCondition {
	c := containers
	c.Type = v1.PodReady
	if c.Status != v1.ConditionTrue {
		return c
	}
	var missing []string
	for _, gate := range pod.Spec.ReadinessGates {
		i := slices.IndexFunc(s.Conditions, func(o v1.PodCondition) bool { return o.Type == gate.ConditionType })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case s.Conditions[i].Status != v1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, s.Conditions[i].Status))
		}
	}
	if len(missing) > 0 {
		c.Status, c.Reason, c.Message = v1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}
	return c
}
