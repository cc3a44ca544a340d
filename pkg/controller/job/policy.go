package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// matchFailure returns what the Job's failure policy says about a failed pod: the
// action of the first rule that matches, and why it does. Count is the rule of those
// that no rule speaks of.
func (in *input) matchFailure(p *corev1.Pod) (batchv1.PodFailurePolicyAction, string) {
	policy := in.job.Spec.PodFailurePolicy
	if policy == nil || p.Status.Phase != corev1.PodFailed {
		return batchv1.PodFailurePolicyActionCount, ""
	}
	for i, rule := range policy.Rules {
		if r := rule.OnExitCodes; r != nil {
			if st := matchExitCode(p, r); st != nil {
				return rule.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d",
					st.Name, p.Namespace, p.Name, st.State.Terminated.ExitCode, rule.Action, i)
			}
		}
		for _, pattern := range rule.OnPodConditions {
			for _, c := range p.Status.Conditions {
				if c.Type == pattern.Type && c.Status == pattern.Status {
					return rule.Action, fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d", p.Namespace, p.Name, c.Type, rule.Action, i)
				}
			}
		}
	}
	return batchv1.PodFailurePolicyActionCount, ""
}

func matchExitCode(p *corev1.Pod, r *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range statuses {
			st := &statuses[i]
			if st.State.Terminated == nil || st.State.Terminated.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != st.Name {
				continue
			}
			if slices.Contains(r.Values, st.State.Terminated.ExitCode) == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return st
			}
		}
	}
	return nil
}

// ignores reports whether a failure does not count.
func (in *input) ignores(p *corev1.Pod) bool {
	action, _ := in.matchFailure(p)
	return action == batchv1.PodFailurePolicyActionIgnore
}

// failJobRule returns why the failure policy fails the whole Job, if it does.
func (in *input) failJobRule() string {
	if in.job.Spec.PodFailurePolicy == nil {
		return ""
	}
	for _, p := range in.pods {
		if action, why := in.matchFailure(p); action == batchv1.PodFailurePolicyActionFailJob {
			return why
		}
	}
	return ""
}

// successRule returns why the success policy ends the Job, if it does.
func (in *input) successRule() string {
	for i, rule := range in.job.Spec.SuccessPolicy.Rules {
		of, total := in.done.len(), 0
		if rule.SucceededIndexes != nil {
			want := parseIndexes(*rule.SucceededIndexes, int(*in.job.Spec.Completions))
			of, total = in.done.within(want), want.len()
		}
		if rule.SucceededCount != nil {
			total = int(*rule.SucceededCount)
		}
		if total > 0 && of >= total {
			return fmt.Sprintf("Matched rules at index %d", i)
		}
	}
	return ""
}
