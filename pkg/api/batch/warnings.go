package batch

import (
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/core"
	"github.com/leme-k8s/leme/pkg/api/rules"
)

// WarningsJob are what the author of a Job should know. old is nil on creation.
func WarningsJob(j, old *batchv1.Job) []string {
	var warnings []string
	var was *corev1.PodTemplateSpec
	if old == nil {
		warnings = rules.HostNameWarnings(j.Name)
	} else {
		if j.Generation == old.Generation {
			return nil
		}
		was = &old.Spec.Template
	}
	completions, parallelism := ptr.Deref(j.Spec.Completions, 0), ptr.Deref(j.Spec.Parallelism, 0)
	if isIndexed(&j.Spec) && completions > manyCompletions && parallelism > maxParallelismForMany {
		warnings = append(warnings, fmt.Sprintf("%s: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail", specPath))
	}
	return append(warnings, core.WarningsPodTemplateSpec(&j.Spec.Template, was, specPath.Child("template"))...)
}

// WarningsCronJob are what the author of a CronJob should know. old is nil on creation.
func WarningsCronJob(c, old *batchv1.CronJob) []string {
	var warnings []string
	var was *corev1.PodTemplateSpec
	if old == nil {
		warnings = rules.HostNameWarnings(c.Name)
	} else {
		was = &old.Spec.JobTemplate.Spec.Template
	}
	if strings.Contains(c.Spec.Schedule, "TZ") {
		warnings = append(warnings, fmt.Sprintf("cannot use TZ or CRON_TZ in %s, use timeZone instead", specPath.Child("schedule")))
	}
	if old != nil && c.Generation == old.Generation {
		return warnings
	}
	return append(warnings, core.WarningsPodTemplateSpec(&c.Spec.JobTemplate.Spec.Template, was, specPath.Child("jobTemplate", "spec", "template"))...)
}
