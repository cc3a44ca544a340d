package pods

import (
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/leme-k8s/leme/pkg/kubelet/runtime"
)

// policy is a container's restart policy: its own or the pod's.
func policy(pod *v1.Pod, c *v1.Container) v1.RestartPolicy {
	if c.RestartPolicy != nil {
		return v1.RestartPolicy(*c.RestartPolicy)
	}
	if pod.Spec.RestartPolicy == "" {
		return v1.RestartPolicyAlways
	}
	return pod.Spec.RestartPolicy
}

// ShouldRestart tells whether a container that ended with the given code is started again: by
// the first of its rules that knows the code, else by its policy.
func ShouldRestart(pod *v1.Pod, c *v1.Container, exitCode int) bool {
	if rule := matchingRule(c, exitCode); rule != nil {
		return rule.Action == v1.ContainerRestartRuleActionRestart || rule.Action == v1.ContainerRestartRuleActionRestartAllContainers
	}
	switch policy(pod, c) {
	case v1.RestartPolicyAlways:
		// A succeeded init container has done its work.
		return exitCode != 0 || !slices.ContainsFunc(pod.Spec.InitContainers, func(i v1.Container) bool { return i.Name == c.Name && !runtime.IsSidecar(&i) })
	case v1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	return false
}

func matchingRule(c *v1.Container, exitCode int) *v1.ContainerRestartRule {
	for i := range c.RestartPolicyRules {
		codes := c.RestartPolicyRules[i].ExitCodes
		if codes == nil {
			continue
		}
		in := slices.Contains(codes.Values, int32(exitCode))
		if in == (codes.Operator == v1.ContainerRestartRuleOnExitCodesOpIn) {
			return &c.RestartPolicyRules[i]
		}
	}
	return nil
}

// restarter is the container that ended in a way that has the whole pod start over; nil if none did.
func (in *Input) restarter() *runtime.Container {
	var found *runtime.Container
	runtime.EachContainer(in.Pod, func(c *v1.Container, _ runtime.Kind) {
		newest := in.State.Newest(c.Name)
		if newest == nil || newest.State != runtime.Exited {
			return
		}
		if rule := matchingRule(c, newest.ExitCode); rule != nil && rule.Action == v1.ContainerRestartRuleActionRestartAllContainers {
			found = newest
		}
	})
	return found
}

// restartAll stops every container and removes them all, so that the pod begins anew in
// its sandbox, as often as the back-off of the container that asked for it allows.
func (in *Input) restartAll(p *Plan, by *runtime.Container) {
	if p.Stop = stopAll(in.Pod, in.State, Grace(in.Pod)); len(p.Stop) > 0 || in.waits(p, by) {
		return
	}
	p.Charge = &Start{Name: by.Name, Ended: by.FinishedAt}
	for _, c := range in.State.Containers {
		p.Remove = append(p.Remove, c.ID)
	}
}
