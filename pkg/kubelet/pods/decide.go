package pods

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/kubelet/allocation"
	"github.com/leme-k8s/leme/pkg/kubelet/probes"
	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
	"github.com/leme-k8s/leme/pkg/kubelet/status"
)

// Input is everything that the decision about a pod depends on.
type Input struct {
	Pod   *v1.Pod
	State *runtime.State
	// Probes are the results by container id.
	Probes map[string]probes.Results
	// Backoff is by container name.
	Backoff map[string]Backoff
	// Failed has what could not be done lately, by container name; "" is the sandbox, failedResize a resize.
	Failed map[string]Failure
	// Restart has the containers that were stopped in order to be started again, by id.
	Restart map[string]bool
	// Actuated is what was last applied to the pod's containers and to the pod as a whole. Sized says that the
	// pod's cgroup is of the pod's size.
	Actuated allocation.Resources
	Sized    bool
	// End is set once the pod must not run any more.
	End *End
	Now time.Time
	// Limits bound the back-off.
	Limits BackoffLimits
}

// Failure is an attempt that failed and when to try again.
type Failure struct {
	status.Waiting
	Until time.Time
}

// End says that a pod must not run any more.
type End struct {
	// Grace is how many seconds its containers have from Since on.
	Grace int64
	Since time.Time
	// Phase, Reason and Message are what the pod ends with; an empty Phase follows from its containers.
	Phase           v1.PodPhase
	Reason, Message string
	// Rejected says that the node never took the pod.
	Rejected bool
}

// Plan is what to do about a pod now. The steps are in the order in which they are carried out; most plans have one kind of them.
type Plan struct {
	// Stop has the containers to stop, all at the same time but for what After says.
	Stop []Stop
	// StopSandboxes end once nothing runs in them.
	StopSandboxes []string
	// Remove has containers whose place is needed.
	Remove []string
	// Charge is a start that counts for the back-off although the container is removed before.
	Charge *Start
	// Sandbox asks for a new sandbox.
	Sandbox *NewSandbox
	// Resize changes what goes on running. Resizing says that something of it has another size than it should.
	Resize   *Resize
	Resizing bool
	// Start has the containers to start, one after the other.
	Start []Start
	// Waiting says what the containers that do not run are waiting for.
	Waiting map[string]status.Waiting
	// Wake is when to decide again if nothing changes before; zero for never.
	Wake time.Time
	// Phase is Succeeded or Failed once no container will be started any more.
	Phase v1.PodPhase
	// Done says that nothing of an ended pod runs any more.
	Done bool
}

// reasonBackOff is what a container waits for that keeps ending.
const reasonBackOff = "CrashLoopBackOff"

// Stop ends one container.
type Stop struct {
	ID, Name string
	// Message tells why, in an event.
	Message string
	// Grace is how many seconds it has.
	Grace int64
	// After are the containers that end before it is asked to.
	After []string
	// Restart says that it ends to be started again.
	Restart bool
}

// NewSandbox is a sandbox to make.
type NewSandbox struct {
	Attempt uint32
	// Changed says that the pod had another one before.
	Changed bool
}

// Start starts one container.
type Start struct {
	Name string
	Kind runtime.Kind
	// Ended is when its last incarnation did; zero if there was none.
	Ended time.Time
}

// Idle tells whether there is nothing to do now.
func (p *Plan) Idle() bool {
	return len(p.Stop) == 0 && len(p.StopSandboxes) == 0 && len(p.Remove) == 0 && p.Sandbox == nil && p.Resize == nil && len(p.Start) == 0
}

func (p *Plan) wake(t time.Time) {
	if p.Wake.IsZero() || t.Before(p.Wake) {
		p.Wake = t
	}
}

// Decide makes the plan for a pod.
func Decide(in Input) Plan {
	if in.End != nil {
		return in.end()
	}
	p := Plan{Waiting: map[string]status.Waiting{}}
	if deadline, ok := Deadline(in.Pod); ok {
		p.wake(deadline)
	}
	if by := in.restarter(); by != nil {
		in.restartAll(&p, by)
		return p
	}
	box := in.State.ReadySandbox()
	if phase := in.finished(); phase != "" {
		p.Phase = phase
		return p
	}
	if box == nil || !in.Pod.Spec.HostNetwork && len(box.IPs) == 0 {
		in.sandbox(&p)
		return p
	}
	// What is left in older sandboxes has no network and no future.
	for _, c := range in.State.Containers {
		if c.State == runtime.Running && c.SandboxID != box.ID {
			p.Stop = append(p.Stop, Stop{ID: c.ID, Name: c.Name, Message: "Pod sandbox changed, it will be killed and re-created.", Grace: Grace(in.Pod)})
		}
	}
	for _, b := range in.State.Sandboxes[1:] {
		if b.Ready {
			p.StopSandboxes = append(p.StopSandboxes, b.ID)
		}
	}
	if len(p.Stop)+len(p.StopSandboxes) > 0 {
		return p
	}
	in.ephemeral(&p, box)
	if in.init(&p, box) {
		in.regular(&p, box)
	}
	in.resizePod(&p)
	return p
}

// Grace is how many seconds the pod's containers have to end when the pod ends in the ordinary way.
func Grace(pod *v1.Pod) int64 {
	switch {
	case pod.DeletionGracePeriodSeconds != nil:
		return *pod.DeletionGracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return v1.DefaultTerminationGracePeriodSeconds
}

// Deadline is when the pod has been active for as long as it may.
func Deadline(pod *v1.Pod) (time.Time, bool) {
	if pod.Spec.ActiveDeadlineSeconds == nil || pod.Status.StartTime == nil {
		return time.Time{}, false
	}
	return pod.Status.StartTime.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second), true
}

// sandbox plans a new sandbox, once everything in the old ones has ended.
func (in *Input) sandbox(p *Plan) {
	for _, c := range in.State.Containers {
		if c.State == runtime.Running {
			p.Stop = append(p.Stop, Stop{ID: c.ID, Name: c.Name, Message: "Pod sandbox changed, it will be killed and re-created.", Grace: Grace(in.Pod)})
		}
	}
	p.Remove = neverRan(in.State)
	next := &NewSandbox{}
	for i, b := range in.State.Sandboxes {
		if b.Ready {
			p.StopSandboxes = append(p.StopSandboxes, b.ID)
		}
		if i == 0 {
			next.Attempt, next.Changed = b.Attempt+1, true
		}
	}
	if len(p.Stop)+len(p.StopSandboxes)+len(p.Remove) > 0 {
		return
	}
	if f, ok := in.Failed[""]; ok && in.Now.Before(f.Until) {
		p.wake(f.Until)
		return
	}
	p.Sandbox = next
}

// ephemeral starts each ephemeral container once.
func (in *Input) ephemeral(p *Plan, box *runtime.Sandbox) {
	for i := range in.Pod.Spec.EphemeralContainers {
		c := (*v1.Container)(&in.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if in.State.Newest(c.Name) == nil {
			in.start(p, c, runtime.Ephemeral, nil)
		}
	}
}

// init takes the init containers as far as they come and tells whether the regular ones may run.
func (in *Input) init(p *Plan, box *runtime.Sandbox) bool {
	// Once a regular container has run in this sandbox, only sidecars are of interest.
	initialized := slices.ContainsFunc(in.State.Containers, func(c runtime.Container) bool {
		return c.SandboxID == box.ID && slices.ContainsFunc(in.Pod.Spec.Containers, func(r v1.Container) bool { return r.Name == c.Name })
	})
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		newest := in.State.Newest(c.Name)
		if newest != nil && newest.SandboxID != box.ID {
			newest = nil // it has to run again in this one
		}
		if runtime.IsSidecar(c) {
			if started := in.keep(p, c, runtime.Sidecar, newest); !started && !initialized {
				return false
			}
			continue
		}
		if initialized {
			continue
		}
		switch {
		case newest == nil:
			in.start(p, c, runtime.Init, nil)
			return false
		case newest.State == runtime.Running:
			return false
		case newest.State == runtime.Created:
			p.Remove = append(p.Remove, newest.ID)
			return false
		case newest.State != runtime.Exited:
			p.Stop = append(p.Stop, Stop{ID: newest.ID, Name: c.Name, Message: "Init container is in an unknown state, try killing it before restart"})
			return false
		case newest.ExitCode != 0:
			in.start(p, c, runtime.Init, newest) // finished() has ruled out that it must not
			return false
		}
	}
	return true
}

// regular keeps the regular containers running.
func (in *Input) regular(p *Plan, box *runtime.Sandbox) {
	for i := range in.Pod.Spec.Containers {
		in.keep(p, &in.Pod.Spec.Containers[i], runtime.Regular, in.State.Newest(in.Pod.Spec.Containers[i].Name))
	}
}

// keep starts a container that should run, stops one that should not go on as it is, and tells whether it has started.
func (in *Input) keep(p *Plan, c *v1.Container, kind runtime.Kind, newest *runtime.Container) (started bool) {
	switch {
	case newest == nil:
		in.start(p, c, kind, nil)
		return false
	case newest.State == runtime.Exited:
		if kind == runtime.Sidecar || in.Restart[newest.ID] || ShouldRestart(in.Pod, c, newest.ExitCode) {
			in.start(p, c, kind, newest)
		}
		return false
	case newest.State == runtime.Created:
		p.Remove = append(p.Remove, newest.ID)
		return false
	case newest.State != runtime.Running:
		p.Stop = append(p.Stop, Stop{ID: newest.ID, Name: c.Name, Message: fmt.Sprintf("Container %s is in an unknown state, try killing it before restart", c.Name), Restart: true})
		return false
	}
	results := in.Probes[newest.ID]
	stop := Stop{ID: newest.ID, Name: c.Name, Grace: Grace(in.Pod), Restart: true}
	again := kind == runtime.Sidecar || policy(in.Pod, c) != v1.RestartPolicyNever
	switch {
	case newest.Hash != 0 && newest.Hash != runtime.Hash(c):
		stop.Message = fmt.Sprintf("Container %s definition changed, will be restarted", c.Name)
	case results.Dead:
		stop.Message, stop.Restart = fmt.Sprintf("Container %s failed liveness probe, will be restarted", c.Name), again
		stop.Grace = probeGrace(c.LivenessProbe, stop.Grace)
	case results.Unstarted:
		stop.Message, stop.Restart = fmt.Sprintf("Container %s failed startup probe, will be restarted", c.Name), again
		stop.Grace = probeGrace(c.StartupProbe, stop.Grace)
	default:
		return !in.resize(p, c, newest) && (c.StartupProbe == nil || results.Started)
	}
	p.Stop = append(p.Stop, stop)
	return false
}

func probeGrace(p *v1.Probe, grace int64) int64 {
	if p != nil && p.TerminationGracePeriodSeconds != nil {
		return *p.TerminationGracePeriodSeconds
	}
	return grace
}

// start starts a container, unless it has to wait.
func (in *Input) start(p *Plan, c *v1.Container, kind runtime.Kind, ended *runtime.Container) {
	if f, ok := in.Failed[c.Name]; ok {
		p.Waiting[c.Name] = f.Waiting
		if in.Now.Before(f.Until) {
			p.wake(f.Until)
			return
		}
	}
	s := Start{Name: c.Name, Kind: kind}
	if ended != nil {
		s.Ended = ended.FinishedAt
		if in.waits(p, ended) {
			return
		}
	}
	p.Start = append(p.Start, s)
}

// waits tells whether the container that ended has to wait for its back-off.
func (in *Input) waits(p *Plan, ended *runtime.Container) bool {
	b := in.Backoff[ended.Name]
	until := b.Until(ended.FinishedAt, in.Limits)
	if !in.Now.Before(until) {
		return false
	}
	p.Waiting[ended.Name] = status.Waiting{Reason: reasonBackOff, Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
		b.Delay, ended.Name, in.Pod.Name, in.Pod.Namespace, in.Pod.UID)}
	p.wake(until)
	return true
}

// finished is the phase of a pod that has nothing left to run, or "".
func (in *Input) finished() v1.PodPhase {
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		newest := in.State.Newest(c.Name)
		if !runtime.IsSidecar(c) && newest != nil && newest.State == runtime.Exited && newest.ExitCode != 0 && !ShouldRestart(in.Pod, c, newest.ExitCode) {
			return v1.PodFailed
		}
	}
	phase := v1.PodSucceeded
	for i := range in.Pod.Spec.Containers {
		c := &in.Pod.Spec.Containers[i]
		newest := in.State.Newest(c.Name)
		if newest == nil || newest.State != runtime.Exited || in.Restart[newest.ID] || ShouldRestart(in.Pod, c, newest.ExitCode) {
			return ""
		}
		if newest.ExitCode != 0 {
			phase = v1.PodFailed
		}
	}
	return phase
}

// end stops what still runs of a pod that must not.
func (in *Input) end() Plan {
	p := Plan{Waiting: map[string]status.Waiting{}}
	// The grace period began when the end was decided, whoever has waited since.
	grace := max(in.End.Grace-int64(in.Now.Sub(in.End.Since)/time.Second), 0)
	p.Stop, p.Remove = stopAll(in.Pod, in.State, grace), neverRan(in.State)
	if len(p.Stop)+len(p.Remove) > 0 {
		return p
	}
	for _, b := range in.State.Sandboxes {
		if b.Ready {
			p.StopSandboxes = append(p.StopSandboxes, b.ID)
		}
	}
	p.Done = len(p.StopSandboxes) == 0
	return p
}

// neverRan has the containers that were created and not started: by a kubelet that ended
// then, or by a call that was given up while the runtime went on. To stop one that does
// not run changes nothing, so it is removed.
func neverRan(state *runtime.State) []string {
	var ids []string
	for _, c := range state.Containers {
		if c.State == runtime.Created {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// stopAll ends everything that runs: regular containers first, then the sidecars, the last
// one first, all within the same grace period.
func stopAll(pod *v1.Pod, state *runtime.State, grace int64) []Stop {
	var stops []Stop
	var sidecars []string
	for i := range pod.Spec.InitContainers {
		if runtime.IsSidecar(&pod.Spec.InitContainers[i]) {
			sidecars = append(sidecars, pod.Spec.InitContainers[i].Name)
		}
	}
	for _, c := range state.Containers {
		if c.State == runtime.Running {
			stops = append(stops, Stop{ID: c.ID, Name: c.Name, Message: "Stopping container " + c.Name, Grace: grace})
		}
	}
	for i := range stops {
		place := slices.Index(sidecars, stops[i].Name)
		if place < 0 {
			continue
		}
		for _, other := range stops {
			if at := slices.Index(sidecars, other.Name); at < 0 || at > place {
				stops[i].After = append(stops[i].After, other.ID)
			}
		}
	}
	return stops
}
