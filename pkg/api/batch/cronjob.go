package batch

import (
	"cmp"
	"strings"
	"time"
	_ "time/tzdata" // time zones are checked on machines that have no list of them

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// maxCronJobName leaves room for what the names of its Jobs append.
const maxCronJobName = 52

func setCronJob(c *batchv1.CronJob) {
	c.Spec.ConcurrencyPolicy = cmp.Or(c.Spec.ConcurrencyPolicy, batchv1.AllowConcurrent)
	rules.SetPtr(&c.Spec.Suspend, false)
	rules.SetPtr(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	rules.SetPtr(&c.Spec.FailedJobsHistoryLimit, 1)
	setJobSpec(&c.Spec.JobTemplate.Spec)
}

// jobSpecPath is where a CronJob says what its Jobs are like.
var jobSpecPath = specPath.Child("jobTemplate", "spec")

// ValidateCronJob says what is wrong with a new CronJob. Features are those that are on.
func ValidateCronJob(c *batchv1.CronJob, features map[string]bool) field.ErrorList {
	errs := rules.Namespaced(&c.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	errs = append(errs, validateCronJobSpec(&c.Spec, nil)...)
	if len(c.Name) > maxCronJobName {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters"))
	}
	return append(errs, rules.Declared(declaredScheduling, jobSpecPath, &c.Spec.JobTemplate.Spec, nil, features)...)
}

// ValidateCronJobUpdate says what is wrong with an update of a CronJob.
func ValidateCronJobUpdate(c, old *batchv1.CronJob, features map[string]bool) field.ErrorList {
	errs := rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateCronJobSpec(&c.Spec, &old.Spec)...)
	return append(errs, rules.Declared(declaredScheduling, jobSpecPath, &c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec, features)...)
}

// ValidateCronJobStatusUpdate says what is wrong with an update of the status of a CronJob.
func ValidateCronJobStatusUpdate(c, old *batchv1.CronJob) field.ErrorList {
	return rules.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
}

// validateCronJobSpec checks a spec. A schedule or time zone that is stored already
// may be one that is refused today.
func validateCronJobSpec(spec, old *batchv1.CronJobSpec) field.ErrorList {
	var errs field.ErrorList
	if old == nil || spec.Schedule != old.Schedule || !ptr.Equal(spec.TimeZone, old.TimeZone) {
		errs = append(errs, validateSchedule(spec.Schedule, specPath.Child("schedule"))...)
	}
	if spec.TimeZone != nil && (old == nil || !ptr.Equal(spec.TimeZone, old.TimeZone)) {
		errs = append(errs, validateTimeZone(*spec.TimeZone, specPath.Child("timeZone"))...)
	}
	errs = append(errs, rules.NonNegativePtr(spec.StartingDeadlineSeconds, specPath.Child("startingDeadlineSeconds"))...)
	errs = append(errs, rules.RequiredOneOf(spec.ConcurrencyPolicy, specPath.Child("concurrencyPolicy"),
		batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	errs = append(errs, rules.NonNegativePtr(spec.SuccessfulJobsHistoryLimit, specPath.Child("successfulJobsHistoryLimit"))...)
	errs = append(errs, rules.NonNegativePtr(spec.FailedJobsHistoryLimit, specPath.Child("failedJobsHistoryLimit"))...)

	p, job := jobSpecPath, &spec.JobTemplate.Spec
	errs = append(errs, validateJobSpec(job, p)...)
	if ptr.Deref(job.ManualSelector, false) {
		errs = append(errs, field.NotSupported(p.Child("manualSelector"), true, []string{"nil", "false"}))
	}
	if job.Selector != nil {
		errs = append(errs, field.Invalid(p.Child("selector"), job.Selector, "`selector` will be auto-generated"))
	}
	return errs
}

func validateSchedule(schedule string, p *field.Path) field.ErrorList {
	if schedule == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	if _, err := cron.ParseStandard(schedule); err != nil {
		errs = append(errs, field.Invalid(p, schedule, err.Error()))
	}
	if strings.Contains(schedule, "TZ") {
		errs = append(errs, field.Invalid(p, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	}
	return errs
}

func validateTimeZone(zone string, p *field.Path) field.ErrorList {
	if zone == "" {
		return field.ErrorList{field.Invalid(p, zone, "timeZone must be nil or non-empty string")}
	}
	if strings.EqualFold(zone, "Local") {
		return field.ErrorList{field.Invalid(p, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")}
	}
	if _, err := time.LoadLocation(zone); err != nil {
		return field.ErrorList{field.Invalid(p, zone, "unknown time zone "+zone)}
	}
	return nil
}
