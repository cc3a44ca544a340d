package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/kubelet/probes"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// pod has a container "main", and more if asked for.
func pod(change ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid", Generation: 3, ResourceVersion: "10"},
		Spec:       v1.PodSpec{RestartPolicy: v1.RestartPolicyAlways, Containers: []v1.Container{{Name: "main", Image: "asked"}}},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func withInit(p *v1.Pod) { p.Spec.InitContainers = []v1.Container{{Name: "init"}} }

func withSidecar(p *v1.Pod) {
	p.Spec.InitContainers = []v1.Container{{Name: "init", RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways)}}
}

// observed is a pod with a sandbox, and what ran in it, the newest first.
func observed(containers ...runtime.Container) *runtime.State {
	return &runtime.State{Sandboxes: []runtime.Sandbox{{ID: "box", Ready: true, IPs: []string{"10.0.0.5"}}}, Containers: containers}
}

func runs(id string) runtime.Container {
	return runtime.Container{ID: id, Name: "main", State: runtime.Running, StartedAt: epoch, Image: "pulled", ImageID: "sha"}
}

func exited(id string, code int) runtime.Container {
	return runtime.Container{ID: id, Name: "main", State: runtime.Exited, ExitCode: code, StartedAt: epoch, FinishedAt: epoch.Add(time.Second)}
}

func initExited(code int) runtime.Container {
	c := exited("i1", code)
	c.Name = "init"
	return c
}

// in makes a status of a pod that everything is well with, but for what changes.
func in(p *v1.Pod, state *runtime.State, change ...func(*Input)) v1.PodStatus {
	input := Input{
		Pod: p, State: state, RuntimeName: "fake", HostIPs: []string{"192.0.2.1"}, Now: epoch,
		Probes: func(string) probes.Results { return probes.Results{Started: true, Ready: true} },
	}
	for _, c := range change {
		c(&input)
	}
	return Generate(input)
}

func describe(s *v1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Waiting != nil:
		return "waiting " + s.Waiting.Reason
	case s.Terminated != nil:
		return fmt.Sprintf("terminated %s %d", s.Terminated.Reason, s.Terminated.ExitCode)
	}
	return "none"
}

// TestContainer is about what is said of one container.
func TestContainer(t *testing.T) {
	was := func(state v1.ContainerState) func(*Input) {
		return func(i *Input) {
			i.Last.ContainerStatuses = []v1.ContainerStatus{{Name: "main", ContainerID: "fake://c1", RestartCount: 2, State: state, ImageID: "sha"}}
		}
	}
	waits := func(reason string) func(*Input) {
		return func(i *Input) { i.Waiting = map[string]Waiting{"main": {Reason: reason}} }
	}
	stopped := func(i *Input) { i.Stopped = true }
	unready := func(i *Input) { i.Probes = func(string) probes.Results { return probes.Results{Started: true} } }
	unstarted := func(i *Input) { i.Probes = func(string) probes.Results { return probes.Results{} } }
	probed := func(p *v1.Pod) {
		p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].StartupProbe = &v1.Probe{}, &v1.Probe{}
	}
	ended := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{Reason: "Error", ExitCode: 1}}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	second := runs("c2")
	second.RestartCount = 1
	created := runs("c1")
	created.State = runtime.Created
	killed := exited("c1", 137)
	killed.Reason = "OOMKilled"

	for name, test := range map[string]struct {
		pod    *v1.Pod
		state  *runtime.State
		change []func(*Input)
		want   string // now, before, and what else there is to say
	}{
		"not there yet":               {state: observed(), want: "waiting ContainerCreating, none"},
		"behind init containers":      {pod: pod(withInit), state: observed(), want: "waiting PodInitializing, none"},
		"no sandbox":                  {state: nil, want: "waiting ContainerCreating, none"},
		"created":                     {state: observed(created), want: "waiting ContainerCreating, none"},
		"runs":                        {state: observed(runs("c1")), want: "running, none, ready, started"},
		"runs, probes fail":           {pod: pod(probed), state: observed(runs("c1")), change: []func(*Input){unready}, want: "running, none, started"},
		"runs, has not started":       {pod: pod(probed), state: observed(runs("c1")), change: []func(*Input){unstarted}, want: "running, none"},
		"runs, no probes to fail":     {state: observed(runs("c1")), change: []func(*Input){unstarted}, want: "running, none, ready, started"},
		"completed":                   {state: observed(exited("c1", 0)), want: "terminated Completed 0, none"},
		"failed":                      {state: observed(exited("c1", 2)), want: "terminated Error 2, none"},
		"killed, the runtime knows":   {state: observed(killed), want: "terminated OOMKilled 137, none"},
		"runs again":                  {state: observed(second, exited("c1", 2)), want: "running, terminated Error 2, ready, started, restarts 1"},
		"runs again, the first gone":  {state: observed(second), change: []func(*Input){was(ended)}, want: "running, terminated Error 1, ready, started, restarts 1"},
		"waits to be started again":   {state: observed(exited("c1", 2)), change: []func(*Input){waits("CrashLoopBackOff")}, want: "waiting CrashLoopBackOff, terminated Error 2"},
		"waits for its image":         {state: observed(), change: []func(*Input){waits("ErrImagePull")}, want: "waiting ErrImagePull, none"},
		"waits for nothing: it runs":  {state: observed(runs("c1")), change: []func(*Input){waits("CrashLoopBackOff")}, want: "running, none, ready, started"},
		"waits for nothing: all over": {state: observed(exited("c1", 2)), change: []func(*Input){waits("CrashLoopBackOff"), stopped}, want: "terminated Error 2, none"},
		"was lost while it ran":       {state: observed(), change: []func(*Input){was(running)}, want: "waiting ContainerCreating, terminated ContainerStatusUnknown 137, restarts 3"},
		"was lost, and nothing comes": {state: observed(), change: []func(*Input){was(running), stopped}, want: "terminated ContainerStatusUnknown 137, none, restarts 2"},
		"had ended and was removed":   {state: observed(), change: []func(*Input){was(ended)}, want: "terminated Error 1, none, restarts 2"},
	} {
		t.Run(name, func(t *testing.T) {
			p := test.pod
			if p == nil {
				p = pod()
			}
			s := in(p, test.state, test.change...)
			c := s.ContainerStatuses[0]
			got := describe(&c.State) + ", " + describe(&c.LastTerminationState)
			if c.Ready {
				got += ", ready"
			}
			if c.Started != nil && *c.Started {
				got += ", started"
			}
			if c.RestartCount > 0 {
				got += fmt.Sprintf(", restarts %d", c.RestartCount)
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestContainerSays(t *testing.T) {
	p := pod(func(p *v1.Pod) {
		p.Spec.EphemeralContainers = []v1.EphemeralContainer{{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: "debug"}}}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v", ReadOnly: true, RecursiveReadOnly: ptr.To(v1.RecursiveReadOnlyIfPossible)}, {Name: "w", MountPath: "/w"}}
		c.Resources = v1.ResourceRequirements{
			Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m")},
			Limits:   v1.ResourceList{v1.ResourceCPU: resource.MustParse("200m"), v1.ResourceMemory: resource.MustParse("64Mi")},
		}
	})
	c := runs("c1")
	c.User = &runtimeapi.LinuxContainerUser{Uid: 1000, Gid: 100, SupplementalGroups: []int64{7}}
	c.Resources = &runtimeapi.LinuxContainerResources{CpuQuota: 30000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20}
	debug := runs("d1")
	debug.Name = "debug"
	s := in(p, observed(c, debug), func(i *Input) { i.RecursiveReadOnly = true })
	st := s.ContainerStatuses[0]
	if st.ContainerID != "fake://c1" || st.Image != "pulled" || st.ImageID != "sha" || st.User.Linux.UID != 1000 || st.User.Linux.SupplementalGroups[0] != 7 {
		t.Errorf("identity: %+v", st)
	}
	if m := st.VolumeMounts; len(m) != 2 || *m[0].RecursiveReadOnly != v1.RecursiveReadOnlyEnabled || m[1].RecursiveReadOnly != nil {
		t.Errorf("mounts: %+v", m)
	}
	// What the cgroup enforces, where it is something else than what is asked for.
	if cpu, memory := st.Resources.Limits.Cpu().String(), st.Resources.Limits.Memory().String(); cpu != "300m" || memory != "64Mi" || st.AllocatedResources.Cpu().String() != "100m" {
		t.Errorf("resources: cpu %s, memory %s, allocated %v", cpu, memory, st.AllocatedResources)
	}
	if e := s.EphemeralContainerStatuses; len(e) != 1 || e[0].State.Running == nil || e[0].Ready || e[0].Resources != nil {
		t.Errorf("ephemeral container: %+v", e)
	}
	if s := in(p, observed(c), func(i *Input) { i.Rejected = true }); s.ContainerStatuses != nil {
		t.Errorf("of a pod that was never taken: %+v", s.ContainerStatuses)
	}
}

// TestPod is about phase, reason, conditions and addresses.
func TestPod(t *testing.T) {
	over := func(phase v1.PodPhase) func(*Input) { return func(i *Input) { i.Phase = phase } }
	gate := func(p *v1.Pod) { p.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "x/gate"}} }
	gateIs := func(status v1.ConditionStatus) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, v1.PodCondition{Type: "x/gate", Status: status})
		}
	}
	hostNetwork := func(p *v1.Pod) { p.Spec.HostNetwork = true }
	wasAt := func(p *v1.Pod) { p.Status.PodIPs = []v1.PodIP{{IP: "10.0.0.4"}} }
	failed := func(p *v1.Pod) { p.Status.Phase = v1.PodFailed }
	evicted := func(i *Input) { i.Phase, i.Reason, i.Message = v1.PodFailed, "Evicted", "out of memory" }
	disrupted := func(i *Input) {
		i.Conditions = []v1.PodCondition{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "TerminationByKubelet"}}
	}
	sandboxless := func(c ...runtime.Container) *runtime.State { return &runtime.State{Containers: c} }
	sidecar := runs("s1")
	sidecar.Name = "init"

	for name, test := range map[string]struct {
		pod    *v1.Pod
		state  *runtime.State
		change []func(*Input)
		want   string // phase, reason, IP, and what is not true
	}{
		"new":                             {state: nil, want: "Pending  [] PodReadyToStartContainers=PodSandboxNotReady Ready=ContainersNotReady ContainersReady=ContainersNotReady"},
		"has a sandbox":                   {state: observed(), want: "Pending  [10.0.0.5] Ready=ContainersNotReady ContainersReady=ContainersNotReady"},
		"runs":                            {state: observed(runs("c1")), want: "Running  [10.0.0.5]"},
		"in its init containers":          {pod: pod(withInit), state: observed(), want: "Pending  [10.0.0.5] Initialized=ContainersNotInitialized Ready=ContainersNotReady ContainersReady=ContainersNotReady"},
		"init container failed":           {pod: pod(withInit), state: observed(initExited(1)), want: "Pending  [10.0.0.5] Initialized=ContainersNotInitialized Ready=ContainersNotReady ContainersReady=ContainersNotReady"},
		"past its init containers":        {pod: pod(withInit), state: observed(runs("c1"), initExited(0)), want: "Running  [10.0.0.5]"},
		"sidecar runs, main does not yet": {pod: pod(withSidecar), state: observed(sidecar), want: "Pending  [10.0.0.5] Ready=ContainersNotReady ContainersReady=ContainersNotReady"},
		"sidecar is gone":                 {pod: pod(withSidecar), state: observed(runs("c1")), want: "Running  [10.0.0.5] Ready=ContainersNotReady ContainersReady=ContainersNotReady"},
		"crashes":                         {state: observed(exited("c1", 1)), want: "Running  [10.0.0.5] Ready=ContainersNotReady ContainersReady=ContainersNotReady"},
		"ends while something runs":       {state: observed(exited("c1", 0)), change: []func(*Input){over(v1.PodSucceeded)}, want: "Running  [10.0.0.5] Ready=ContainersNotReady ContainersReady=ContainersNotReady"},
		"has succeeded":                   {state: sandboxless(exited("c1", 0)), change: []func(*Input){over(v1.PodSucceeded)}, want: "Succeeded  [] PodReadyToStartContainers=PodSandboxNotReady Ready=PodCompleted ContainersReady=PodCompleted"},
		"has failed":                      {pod: pod(wasAt), state: sandboxless(exited("c1", 1)), change: []func(*Input){over(v1.PodFailed)}, want: "Failed  [10.0.0.4] PodReadyToStartContainers=PodSandboxNotReady Ready=PodFailed ContainersReady=PodFailed"},
		"has failed for good":             {pod: pod(failed), state: observed(runs("c1")), want: "Failed  [10.0.0.5] Ready=PodFailed ContainersReady=PodFailed"},
		"is evicted":                      {state: sandboxless(exited("c1", 137)), change: []func(*Input){evicted, disrupted}, want: "Failed Evicted [] PodReadyToStartContainers=PodSandboxNotReady Ready=PodFailed ContainersReady=PodFailed"},
		"gate without a condition":        {pod: pod(gate), state: observed(runs("c1")), want: "Running  [10.0.0.5] Ready=ReadinessGatesNotReady"},
		"gate is shut":                    {pod: pod(gate, gateIs(v1.ConditionFalse)), state: observed(runs("c1")), want: "Running  [10.0.0.5] x/gate= Ready=ReadinessGatesNotReady"},
		"gate is open":                    {pod: pod(gate, gateIs(v1.ConditionTrue)), state: observed(runs("c1")), want: "Running  [10.0.0.5]"},
		"on the host's network":           {pod: pod(hostNetwork), state: observed(runs("c1")), want: "Running  [192.0.2.1]"},
	} {
		t.Run(name, func(t *testing.T) {
			p := test.pod
			if p == nil {
				p = pod()
			}
			s := in(p, test.state, test.change...)
			var ips []string
			for _, ip := range s.PodIPs {
				ips = append(ips, ip.IP)
			}
			got := fmt.Sprintf("%s %s [%s]", s.Phase, s.Reason, strings.Join(ips, " "))
			for _, c := range s.Conditions {
				if c.Status != v1.ConditionTrue {
					got += fmt.Sprintf(" %s=%s", c.Type, c.Reason)
				}
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if s.ObservedGeneration != 3 || s.HostIP != "192.0.2.1" || len(s.PodIPs) > 0 && s.PodIP != s.PodIPs[0].IP {
				t.Errorf("generation %d, addresses %s, %s", s.ObservedGeneration, s.HostIP, s.PodIP)
			}
		})
	}
}

// TestTransitions wants the time of a condition to be when it became so.
func TestTransitions(t *testing.T) {
	first := in(pod(), observed())
	later := func(i *Input) { i.Last, i.Now = first, epoch.Add(time.Minute) }
	second := in(pod(), observed(runs("c1")), later)
	times := map[v1.PodConditionType]time.Duration{}
	for _, c := range second.Conditions {
		times[c.Type] = c.LastTransitionTime.Sub(epoch)
	}
	for condition, want := range map[v1.PodConditionType]time.Duration{
		v1.PodReady: time.Minute, v1.ContainersReady: time.Minute, v1.PodScheduled: 0, v1.PodReadyToStartContainers: 0,
	} {
		if times[condition] != want {
			t.Errorf("%s: after %s, want %s", condition, times[condition], want)
		}
	}
	if !second.StartTime.Equal(first.StartTime) || !first.StartTime.Time.Equal(epoch) {
		t.Errorf("started at %v, then %v", first.StartTime, second.StartTime)
	}
}

// TestSize is about what is said of the resources of a container and of the pod while they change.
func TestSize(t *testing.T) {
	list := func(cpu, memory string) v1.ResourceList {
		l := v1.ResourceList{}
		if cpu != "" {
			l[v1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			l[v1.ResourceMemory] = resource.MustParse(memory)
		}
		return l
	}
	p := pod(func(p *v1.Pod) {
		p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list("100m", "64Mi"), Limits: list("200m", "")}
		p.Status.Conditions = []v1.PodCondition{{Type: v1.PodResizePending, Status: v1.ConditionTrue}}
	})
	c := runs("c1")
	c.Resources = &runtimeapi.LinuxContainerResources{CpuShares: 51, CpuQuota: 10000, CpuPeriod: 100000}
	s := in(p, observed(c), func(i *Input) {
		i.Actuated = map[string]v1.ResourceRequirements{"main": {Requests: list("50m", "32Mi")}}
		i.Actual = &v1.ResourceRequirements{Requests: list("50m", ""), Limits: list("100m", "")}
		i.Resizing = []v1.PodCondition{{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: 2}}
	})
	st := s.ContainerStatuses[0]
	show := func(r v1.ResourceList) string { return r.Cpu().String() + " " + r.Memory().String() }
	for what, test := range map[string]struct{ got, want string }{
		"promised to the container": {show(st.AllocatedResources), "100m 64Mi"},
		"requested, in force":       {show(st.Resources.Requests), "50m 32Mi"},
		"limits, in force":          {show(st.Resources.Limits), "100m 0"},
		"promised to the pod":       {show(s.AllocatedResources), "100m 64Mi"},
		"of the pod, in force":      {show(s.Resources.Requests), "50m 64Mi"},
		"its limits, in force":      {show(s.Resources.Limits), "100m 0"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, want %s", what, test.got, test.want)
		}
	}
	var resize []string
	for _, c := range s.Conditions {
		if strings.HasPrefix(string(c.Type), "PodResize") {
			resize = append(resize, fmt.Sprint(c.Type, c.ObservedGeneration))
		}
	}
	if got := strings.Join(resize, " "); got != "PodResizeInProgress2" {
		t.Errorf("conditions %s", got)
	}
	// What never ran has what it asks for.
	if s := in(p, observed()); show(s.Resources.Requests) != "100m 64Mi" || show(s.Resources.Limits) != "200m 0" {
		t.Errorf("before it runs: %v", s.Resources)
	}
}
