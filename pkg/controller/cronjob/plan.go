package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// input is what is decided on.
type input struct {
	cj   *batchv1.CronJob
	jobs []*batchv1.Job // that it controls
	now  time.Time
}

// plan is what to do.
type plan struct {
	status batchv1.CronJobStatus
	news   []news
	// old are finished Jobs beyond what the history is to hold.
	old []*batchv1.Job
	// replaced are Jobs that end before create starts.
	replaced []*batchv1.Job
	create   *batchv1.Job
	// at is the time in the schedule that create is for.
	at    time.Time
	again time.Duration
}

// news is an event to record.
type news struct{ kind, reason, message string }

func (p *plan) tell(kind, reason, format string, args ...any) {
	p.news = append(p.news, news{kind, reason, fmt.Sprintf(format, args...)})
}

// plan decides what to do.
func (in *input) plan() *plan {
	p := &plan{status: *in.cj.Status.DeepCopy()}
	in.settle(p)
	in.trim(p)
	if in.cj.DeletionTimestamp == nil && !ptr.Deref(in.cj.Spec.Suspend, false) {
		in.start(p)
	}
	return p
}

// settle brings the status up to date with the Jobs there are.
func (in *input) settle(p *plan) {
	s := &p.status
	here := map[string]bool{}
	for _, j := range in.jobs {
		here[string(j.UID)] = true
		listed := slices.ContainsFunc(s.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID })
		end := ended(j)
		switch {
		case end == "" && !listed:
			p.tell(corev1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
		case end != "" && listed:
			p.drop(j)
			p.tell(corev1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, end)
		}
		if end == batchv1.JobComplete && j.Status.CompletionTime != nil && (s.LastSuccessfulTime == nil || s.LastSuccessfulTime.Before(j.Status.CompletionTime)) {
			s.LastSuccessfulTime = j.Status.CompletionTime
		}
	}
	for _, r := range slices.Clone(s.Active) {
		if !here[string(r.UID)] {
			s.Active = slices.DeleteFunc(s.Active, func(other corev1.ObjectReference) bool { return other.UID == r.UID })
			p.tell(corev1.EventTypeNormal, "MissingJob", "Active job went missing: %v", r.Name)
		}
	}
}

// drop takes a Job off the list of active ones.
func (p *plan) drop(j *batchv1.Job) {
	p.status.Active = slices.DeleteFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID })
}

// trim finds the Jobs that the history has no room for.
func (in *input) trim(p *plan) {
	for end, limit := range map[batchv1.JobConditionType]*int32{
		batchv1.JobComplete: in.cj.Spec.SuccessfulJobsHistoryLimit, batchv1.JobFailed: in.cj.Spec.FailedJobsHistoryLimit,
	} {
		if limit == nil {
			continue
		}
		var done []*batchv1.Job
		for _, j := range in.jobs {
			if ended(j) == end {
				done = append(done, j)
			}
		}
		slices.SortFunc(done, func(a, b *batchv1.Job) int {
			return cmp.Or(started(a).Compare(started(b)), cmp.Compare(a.Name, b.Name))
		})
		p.old = append(p.old, done[:max(0, len(done)-int(*limit))]...)
	}
}

// start decides whether it is time for a Job.
func (in *input) start(p *plan) {
	cj := in.cj
	if _, err := location(cj); err != nil {
		p.tell(corev1.EventTypeWarning, "UnknownTimeZone", "invalid timeZone: %q: %s", ptr.Deref(cj.Spec.TimeZone, ""), err)
		return
	}
	if namesZone(cj.Spec.Schedule) {
		p.tell(corev1.EventTypeWarning, "UnsupportedSchedule", "CRON_TZ or TZ used in schedule %q is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", cj.Spec.Schedule)
	}
	s, err := parse(cj)
	if err != nil {
		p.tell(corev1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule: %q : %s", cj.Spec.Schedule, err)
		return
	}
	at, missed, err := s.due(cj, in.now)
	if err != nil {
		p.tell(corev1.EventTypeWarning, "InvalidSchedule", "invalid schedule: %s : %s", cj.Spec.Schedule, err)
		return
	}
	p.again = s.wait(in.now)
	if missed > manyMissed {
		p.tell(corev1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	if at.IsZero() || slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.Name == jobName(cj, at) }) {
		return
	}
	switch cj.Spec.ConcurrencyPolicy {
	case batchv1.ForbidConcurrent:
		if len(p.status.Active) > 0 {
			p.tell(corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return
		}
	case batchv1.ReplaceConcurrent:
		for _, j := range in.jobs {
			if slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID }) {
				p.replaced = append(p.replaced, j)
			}
		}
	}
	p.at, p.create = at, newJob(cj, at)
}

// jobName names a Job after the minute that it is for, so that none is made twice.
func jobName(cj *batchv1.CronJob, at time.Time) string {
	return fmt.Sprintf("%s-%d", cj.Name, at.Unix()/60)
}

// newJob returns the Job for a time in the schedule.
func newJob(cj *batchv1.CronJob, at time.Time) *batchv1.Job {
	t := cj.Spec.JobTemplate.DeepCopy()
	annotations := map[string]string{}
	maps.Copy(annotations, t.Annotations)
	if zone, err := location(cj); err == nil && cj.Spec.TimeZone != nil {
		at = at.In(zone)
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cj.Namespace, Name: jobName(cj, at), Labels: t.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, kind)},
		},
		Spec: t.Spec,
	}
}

// started returns when a Job was started; one that was not is the latest.
func started(j *batchv1.Job) time.Time {
	if j.Status.StartTime == nil {
		return time.Unix(1<<40, 0)
	}
	return j.Status.StartTime.Time
}

// ended returns how a Job has ended, or nothing.
func ended(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}
