package cronjob

import (
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// ten is ten o'clock, on a Thursday.
var ten = time.Date(2016, 5, 19, 10, 0, 0, 0, time.UTC)

func cronJob(schedule string, since time.Time, change ...func(*batchv1.CronJob)) *batchv1.CronJob {
	cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns", UID: "c", CreationTimestamp: metav1.NewTime(since)}}
	cj.Spec.Schedule = schedule
	for _, f := range change {
		f(cj)
	}
	return cj
}

func deadline(seconds int64) func(*batchv1.CronJob) {
	return func(cj *batchv1.CronJob) { cj.Spec.StartingDeadlineSeconds = &seconds }
}
func zone(name string) func(*batchv1.CronJob) {
	return func(cj *batchv1.CronJob) { cj.Spec.TimeZone = &name }
}
func policy(p batchv1.ConcurrencyPolicy) func(*batchv1.CronJob) {
	return func(cj *batchv1.CronJob) { cj.Spec.ConcurrencyPolicy = p }
}
func active(names ...string) func(*batchv1.CronJob) {
	return func(cj *batchv1.CronJob) {
		for _, n := range names {
			cj.Status.Active = append(cj.Status.Active, corev1.ObjectReference{Name: n, UID: types.UID(n)})
		}
	}
}

func TestSchedule(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name     string
		schedule string
		since    time.Duration // after ten
		now      time.Duration
		deadline int64
		zone     string
		due      time.Duration // -1 is never
		next     time.Duration
		many     bool
	}{
		{"not yet", "0 * * * *", 0, 30 * time.Second, 0, "", -1, time.Hour, false},
		{"on the minute", "0 * * * *", 0, time.Hour, 0, "", time.Hour, 2 * time.Hour, false},
		{"just after", "0 * * * *", 0, 61 * time.Minute, 0, "", time.Hour, 2 * time.Hour, false},
		{"five missed", "0 * * * *", 10 * time.Second, 301 * time.Minute, 0, "", 5 * time.Hour, 6 * time.Hour, false},
		{"many missed", "* * * * *", 0, 10*day + time.Second, 0, "", 10 * day, 10*day + time.Minute, true},
		{"many missed, within a deadline", "* * * * *", 0, 10*day + time.Second, 120, "", 10 * day, 10*day + time.Minute, false},
		{"over night", "30 6-16/4 * * 1-5", 30 * time.Minute, day + 31*time.Minute, 0, "", day + 30*time.Minute, day + 4*time.Hour + 30*time.Minute, false},
		{"a gap that is longer than the last step", "30 10,11,12 * * 1-5", 30 * time.Minute, 30*time.Hour + 30*time.Minute, 0, "", 26*time.Hour + 30*time.Minute, 4*day + 30*time.Minute, false},
		{"over the weekend", "30 10,11,12 * * 1-5", 26*time.Hour + 30*time.Minute, 3 * day, 0, "", -1, 4*day + 30*time.Minute, false},
		{"once a week", "0 12 * * 4", 2 * time.Hour, 19*day + 90*time.Minute, 0, "", 14*day + 2*time.Hour, 21*day + 2*time.Hour, false},
		{"too late", "0 * * * *", 0, 70 * time.Minute, 60, "", -1, 2 * time.Hour, false},
		{"not too late", "0 * * * *", 0, 70 * time.Minute, 660, "", time.Hour, 2 * time.Hour, false},
		{"at intervals from the last start", "@every 1h", time.Minute, 7 * day, 0, "", 7*day - 59*time.Minute, 7*day + time.Minute, true},
		{"at intervals, in time", "@every 1h", time.Minute, 61*time.Minute + 5*time.Second, 10, "", 61 * time.Minute, 121 * time.Minute, false},
		{"noon in Rome", "0 12 * * *", -time.Hour, 30 * time.Second, 0, "Europe/Rome", 0, day, false},
	} {
		cj := cronJob(c.schedule, ten.Add(c.since))
		if c.deadline > 0 {
			deadline(c.deadline)(cj)
		}
		if c.zone != "" {
			zone(c.zone)(cj)
		}
		s, err := parse(cj)
		if err != nil {
			t.Fatal(err)
		}
		now := ten.Add(c.now)
		at, missed, err := s.due(cj, now)
		if err != nil {
			t.Fatal(err)
		}
		if c.due < 0 && !at.IsZero() || c.due >= 0 && !at.Equal(ten.Add(c.due)) || missed > manyMissed != c.many {
			t.Errorf("%s: due %v with %d missed", c.name, at, missed)
		}
		if next := now.Add(s.wait(now) - slack); !next.Equal(ten.Add(c.next)) {
			t.Errorf("%s: next %v", c.name, next)
		}
	}
	if s, err := parse(cronJob("59 23 31 2 *", ten)); err != nil {
		t.Error(err)
	} else if _, _, err := s.last(ten.Add(time.Hour)); err == nil {
		t.Error("the 31st of February comes")
	}
}

// job is one that has ended in a way, or has not, started some hours before ten.
func job(name string, end batchv1.JobConditionType, hours int) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	j.Status.StartTime = ptr.To(metav1.NewTime(ten.Add(-time.Duration(hours) * time.Hour)))
	if end != "" {
		j.Status.Conditions = []batchv1.JobCondition{{Type: end, Status: corev1.ConditionTrue}}
		j.Status.CompletionTime = ptr.To(metav1.NewTime(j.Status.StartTime.Add(time.Minute)))
	}
	return j
}

func TestPlan(t *testing.T) {
	const hourly = "0 * * * *"
	before := ten.Add(-time.Minute)
	limits := func(good, bad int32) func(*batchv1.CronJob) {
		return func(cj *batchv1.CronJob) {
			cj.Spec.SuccessfulJobsHistoryLimit, cj.Spec.FailedJobsHistoryLimit = &good, &bad
		}
	}
	names := func(jobs []*batchv1.Job) string {
		var all []string
		for _, j := range jobs {
			all = append(all, j.Name)
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		name               string
		cj                 *batchv1.CronJob
		jobs               []*batchv1.Job
		create             string
		old, replaced      string
		active             int
		reasons            string
		never, noSuccesses bool
	}{
		{name: "it is time", cj: cronJob(hourly, before), create: "c-24394200", noSuccesses: true},
		{name: "not yet", cj: cronJob(hourly, ten), noSuccesses: true},
		{name: "started already", cj: cronJob(hourly, before, func(cj *batchv1.CronJob) { cj.Status.LastScheduleTime = ptr.To(metav1.NewTime(ten)) }), noSuccesses: true},
		{name: "suspended", cj: cronJob(hourly, before, func(cj *batchv1.CronJob) { cj.Spec.Suspend = ptr.To(true) }), never: true, noSuccesses: true},
		{name: "being deleted", cj: cronJob(hourly, before, func(cj *batchv1.CronJob) { cj.DeletionTimestamp = ptr.To(metav1.NewTime(ten)) }), never: true, noSuccesses: true},
		{name: "no schedule", cj: cronJob("often", before), reasons: "UnparseableSchedule", never: true, noSuccesses: true},
		{name: "no such day", cj: cronJob("0 0 31 2 *", before), reasons: "InvalidSchedule", never: true, noSuccesses: true},
		{name: "no such zone", cj: cronJob(hourly, before, zone("Mars/Olympus")), reasons: "UnknownTimeZone", never: true, noSuccesses: true},
		{name: "a zone in the schedule", cj: cronJob("TZ=UTC "+hourly, before), reasons: "UnsupportedSchedule", create: "c-24394200", noSuccesses: true},
		{name: "side by side", cj: cronJob(hourly, before, active("a")), jobs: []*batchv1.Job{job("a", "", 1)}, create: "c-24394200", active: 1, noSuccesses: true},
		{name: "one at a time", cj: cronJob(hourly, before, active("a"), policy(batchv1.ForbidConcurrent)), jobs: []*batchv1.Job{job("a", "", 1)}, active: 1, reasons: "JobAlreadyActive", noSuccesses: true},
		{name: "one for the other", cj: cronJob(hourly, before, active("a"), policy(batchv1.ReplaceConcurrent)), jobs: []*batchv1.Job{job("a", "", 1)},
			create: "c-24394200", replaced: "a", active: 1, noSuccesses: true},
		{name: "the last has ended", cj: cronJob(hourly, before, active("a"), policy(batchv1.ForbidConcurrent)), jobs: []*batchv1.Job{job("a", batchv1.JobComplete, 1)},
			create: "c-24394200", reasons: "SawCompletedJob"},
		{name: "the last has failed", cj: cronJob(hourly, ten, active("a")), jobs: []*batchv1.Job{job("a", batchv1.JobFailed, 1)}, reasons: "SawCompletedJob", noSuccesses: true},
		{name: "the last is gone", cj: cronJob(hourly, ten, active("a")), reasons: "MissingJob", noSuccesses: true},
		{name: "one that is not listed", cj: cronJob(hourly, ten), jobs: []*batchv1.Job{job("a", "", 1)}, reasons: "UnexpectedJob", noSuccesses: true},
		{name: "history", cj: cronJob(hourly, ten, limits(1, 0)), jobs: []*batchv1.Job{
			job("a", batchv1.JobComplete, 3), job("b", batchv1.JobComplete, 2), job("c", batchv1.JobComplete, 1), job("d", batchv1.JobFailed, 1), job("e", "", 4),
		}, old: "a b d", reasons: "UnexpectedJob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := (&input{cj: c.cj, jobs: c.jobs, now: ten.Add(time.Second)}).plan()
			created := ""
			if p.create != nil {
				created = p.create.Name
			}
			var reasons []string
			for _, n := range p.news {
				reasons = append(reasons, n.reason)
			}
			if created != c.create || names(p.old) != c.old || names(p.replaced) != c.replaced || strings.Join(reasons, " ") != c.reasons {
				t.Errorf("create %q, delete %q, replace %q, events %q", created, names(p.old), names(p.replaced), reasons)
			}
			if len(p.status.Active) != c.active || (p.status.LastSuccessfulTime == nil) != c.noSuccesses {
				t.Errorf("status %+v", p.status)
			}
			if (p.again == 0) != c.never {
				t.Errorf("again in %v", p.again)
			}
		})
	}
}

func TestNewJob(t *testing.T) {
	cj := cronJob("0 * * * *", ten, zone("Europe/Rome"), func(cj *batchv1.CronJob) {
		cj.Spec.JobTemplate.Labels, cj.Spec.JobTemplate.Annotations = map[string]string{"a": "b"}, map[string]string{"x": "y"}
	})
	j := newJob(cj, ten)
	if j.Name != "c-24394200" || j.Labels["a"] != "b" || j.Annotations["x"] != "y" || !metav1.IsControlledBy(j, cj) {
		t.Errorf("%+v", j.ObjectMeta)
	}
	if got := j.Annotations[batchv1.CronJobScheduledTimestampAnnotation]; got != "2016-05-19T12:00:00+02:00" {
		t.Errorf("scheduled for %s", got)
	}
	if len(cj.Spec.JobTemplate.Annotations) != 1 {
		t.Error("the template has changed")
	}
}
