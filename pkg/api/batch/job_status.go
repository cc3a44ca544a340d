package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/rules"
)

// hasCondition reports whether a condition is true.
func hasCondition(s *batchv1.JobStatus, kind batchv1.JobConditionType) bool {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func isFinished(s *batchv1.JobStatus) bool {
	return hasCondition(s, batchv1.JobComplete) || hasCondition(s, batchv1.JobFailed)
}

// ValidateJobStatusUpdate says what is wrong with an update of the status of a Job.
// A state that is wrong already is not held against an update of something else.
func ValidateJobStatusUpdate(j, old *batchv1.Job) field.ErrorList {
	errs := rules.MetaUpdate(&j.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateJobCounters(&j.Status, &old.Status)...)
	errs = append(errs, validateUncounted(j.Status.UncountedTerminatedPods)...)
	errs = append(errs, validateStatusIndexes(j, old)...)
	errs = append(errs, validateJobTimes(j, old)...)
	errs = append(errs, validateFinishedJob(&j.Status, &old.Status)...)
	return append(errs, validateJobConditions(j, old)...)
}

func validateJobCounters(s, old *batchv1.JobStatus) field.ErrorList {
	errs := rules.NonNegative(s.Active, statusPath.Child("active"))
	errs = append(errs, rules.NonNegativePtr(s.Ready, statusPath.Child("ready"))...)
	errs = append(errs, rules.NonNegativePtr(s.Terminating, statusPath.Child("terminating"))...)
	errs = append(errs, rules.NonNegative(s.Succeeded, statusPath.Child("succeeded"))...)
	errs = append(errs, rules.NonNegative(s.Failed, statusPath.Child("failed"))...)
	changed := s.Active != old.Active || !ptr.Equal(s.Ready, old.Ready)
	if changed && s.Ready != nil && *s.Ready > s.Active {
		errs = append(errs, field.Invalid(statusPath.Child("ready"), *s.Ready, "cannot set more ready pods than active"))
	}
	if s.Failed < old.Failed {
		errs = append(errs, field.Invalid(statusPath.Child("failed"), s.Failed, "cannot decrease the failed counter"))
	}
	if s.Succeeded < old.Succeeded {
		errs = append(errs, field.Invalid(statusPath.Child("succeeded"), s.Succeeded, "cannot decrease the succeeded counter"))
	}
	return errs
}

func validateUncounted(u *batchv1.UncountedTerminatedPods) field.ErrorList {
	if u == nil {
		return nil
	}
	var errs field.ErrorList
	seen := map[types.UID]bool{}
	check := func(uids []types.UID, p *field.Path) {
		for i, uid := range uids {
			switch {
			case uid == "":
				errs = append(errs, field.Invalid(p.Index(i), uid, "must not be empty"))
			case seen[uid]:
				errs = append(errs, field.Duplicate(p.Index(i), uid))
			}
			seen[uid] = true
		}
	}
	check(u.Succeeded, statusPath.Child("uncountedTerminatedPods", "succeeded"))
	check(u.Failed, statusPath.Child("uncountedTerminatedPods", "failed"))
	return errs
}

func validateStatusIndexes(j, old *batchv1.Job) field.ErrorList {
	s, was := &j.Status, &old.Status
	completedChanged, failedChanged := s.CompletedIndexes != was.CompletedIndexes, !ptr.Equal(s.FailedIndexes, was.FailedIndexes)
	completedPath, failedPath := statusPath.Child("completedIndexes"), statusPath.Child("failedIndexes")
	limit := int(ptr.Deref(j.Spec.Completions, 0))
	completed, completedErr := parseIndexes(s.CompletedIndexes, limit)
	failed, failedErr := parseIndexes(ptr.Deref(s.FailedIndexes, ""), limit)

	var errs field.ErrorList
	if completedChanged && completedErr != nil && j.Spec.Completions != nil {
		errs = append(errs, field.Invalid(completedPath, s.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %v", completedErr)))
	}
	if completedChanged && s.CompletedIndexes != "" && !isIndexed(&j.Spec) {
		errs = append(errs, field.Invalid(completedPath, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
	}
	switch {
	case !failedChanged || s.FailedIndexes == nil:
		failed = nil
	case j.Spec.BackoffLimitPerIndex == nil:
		errs = append(errs, field.Invalid(failedPath, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
	case failedErr != nil && j.Spec.Completions != nil:
		errs = append(errs, field.Invalid(failedPath, *s.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %v", failedErr)))
	}
	if (completedChanged || failedChanged) && completedErr == nil && failedErr == nil {
		if i, ok := completed.overlap(failed); ok {
			errs = append(errs, field.Invalid(failedPath, *s.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", i)))
		}
	}
	return errs
}

func validateJobTimes(j, old *batchv1.Job) field.ErrorList {
	s, was := &j.Status, &old.Status
	startChanged := !s.StartTime.Equal(was.StartTime)
	endChanged := !s.CompletionTime.Equal(was.CompletionTime)
	complete := hasCondition(s, batchv1.JobComplete)
	completeChanged := complete != hasCondition(was, batchv1.JobComplete)
	suspended := ptr.Deref(j.Spec.Suspend, false)
	suspensionChanged := hasCondition(s, batchv1.JobSuspended) != hasCondition(was, batchv1.JobSuspended)

	var errs field.ErrorList
	start, end := statusPath.Child("startTime"), statusPath.Child("completionTime")
	if startChanged && was.StartTime != nil && !suspended && !suspensionChanged {
		errs = append(errs, field.Invalid(start, s.StartTime, "field is immutable for unsuspended job once set"))
	}
	if (startChanged || isFinished(s) != isFinished(was)) && isFinished(s) && s.StartTime == nil && !suspended {
		errs = append(errs, field.Required(start, "startTime is required for finished job"))
	}
	if completeChanged || endChanged {
		switch {
		case complete && s.CompletionTime == nil:
			errs = append(errs, field.Required(end, "completionTime is required for Complete jobs"))
		case !complete && s.CompletionTime != nil:
			errs = append(errs, field.Invalid(end, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
		}
	}
	if endChanged && was.CompletionTime != nil && s.CompletionTime != nil && !completeChanged {
		errs = append(errs, field.Invalid(end, s.CompletionTime, "field is immutable"))
	}
	if (startChanged || endChanged) && s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		errs = append(errs, field.Invalid(end, s.CompletionTime, "must be equal to or after `startTime`"))
	}
	return errs
}

// validateFinishedJob checks that a finished Job has no pods on its hands.
func validateFinishedJob(s, old *batchv1.JobStatus) field.ErrorList {
	if !isFinished(s) {
		return nil
	}
	justFinished := !isFinished(old)
	var errs field.ErrorList
	if (justFinished || s.Active != old.Active) && s.Active > 0 {
		errs = append(errs, field.Invalid(statusPath.Child("active"), s.Active, "active>0 is invalid for finished job"))
	}
	if terminating := ptr.Deref(s.Terminating, 0); (justFinished || !ptr.Equal(s.Terminating, old.Terminating)) && terminating > 0 {
		errs = append(errs, field.Invalid(statusPath.Child("terminating"), terminating, "terminating>0 is invalid for finished job"))
	}
	u := s.UncountedTerminatedPods
	if (justFinished || !equality.Semantic.DeepEqual(u, old.UncountedTerminatedPods)) && u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
		errs = append(errs, field.Invalid(statusPath.Child("uncountedTerminatedPods"), u, "must be empty for finished job"))
	}
	return errs
}

// validateJobConditions checks that the conditions that decide how a Job ends stay,
// and agree.
func validateJobConditions(j, old *batchv1.Job) field.ErrorList {
	is := func(kind batchv1.JobConditionType) bool { return hasCondition(&j.Status, kind) }
	was := func(kind batchv1.JobConditionType) bool { return hasCondition(&old.Status, kind) }
	changed := func(kinds ...batchv1.JobConditionType) bool {
		for _, kind := range kinds {
			if is(kind) != was(kind) {
				return true
			}
		}
		return false
	}
	var errs field.ErrorList
	refuse := func(format string, args ...any) {
		errs = append(errs, field.Invalid(statusPath.Child("conditions"), field.OmitValueType{}, fmt.Sprintf(format, args...)))
	}
	const complete, failed, criteria, target = batchv1.JobComplete, batchv1.JobFailed, batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget

	for _, kind := range []batchv1.JobConditionType{complete, failed, target} {
		if was(kind) && !is(kind) {
			refuse("cannot disable the terminal %s=True condition", kind)
		}
	}
	if was(criteria) && !is(criteria) {
		refuse("cannot disable the %s=True condition", criteria)
	}
	for _, pair := range [][2]batchv1.JobConditionType{{complete, failed}, {complete, target}, {criteria, failed}, {criteria, target}} {
		if changed(pair[:]...) && is(pair[0]) && is(pair[1]) {
			refuse("cannot set %s=True and %s=true conditions", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]batchv1.JobConditionType{{complete, criteria}, {failed, target}} {
		if changed(pair[0]) && is(pair[0]) && !is(pair[1]) {
			refuse("cannot set %s=True condition without the %s=true condition", pair[0], pair[1])
		}
	}
	if j.Spec.SuccessPolicy != nil && changed(complete) && is(complete) && !is(criteria) {
		refuse("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
	}
	return errs
}
