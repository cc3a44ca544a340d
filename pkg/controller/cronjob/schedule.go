package cronjob

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // for machines that have no list of time zones

	"github.com/robfig/cron/v3"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/utils/ptr"
)

// slack is added to the wait for a start, so that it has come when the wait is over.
const slack = 100 * time.Millisecond

// manyMissed is how many missed starts are worth a warning.
const manyMissed = 100

// schedule says when a CronJob is to start a Job.
type schedule struct {
	cron.Schedule
	// since is when the last Job was started, or the CronJob created.
	since time.Time
}

// parse returns the schedule of cj. It is in the time zone of the spec, unless its text names one.
func parse(cj *batchv1.CronJob) (schedule, error) {
	text := cj.Spec.Schedule
	if zone := cj.Spec.TimeZone; zone != nil && !namesZone(text) {
		text = fmt.Sprintf("TZ=%s %s", *zone, text)
	}
	s, err := cron.ParseStandard(text)
	if err != nil {
		return schedule{}, err
	}
	since := cj.CreationTimestamp.Time
	if cj.Status.LastScheduleTime != nil {
		since = cj.Status.LastScheduleTime.Time
	}
	return schedule{s, since}, nil
}

func namesZone(text string) bool { return strings.Contains(text, "TZ") }

// errTooOften says that a schedule has no two times that can be told apart, or none at all.
var errTooOften = errors.New("time difference between two schedules is less than 1 second")

// last returns the latest time in the schedule that is not after now, or zero if there is none since the
// last start; and about how many there are.
func (s schedule) last(now time.Time) (at time.Time, missed int, err error) {
	one := s.Next(s.since)
	two := s.Next(one)
	step := two.Sub(one)
	switch {
	case step < time.Second:
		return time.Time{}, 0, errTooOften
	case now.Before(one):
		return time.Time{}, 0, nil
	case now.Before(two):
		return one, 1, nil
	}
	missed = int(now.Sub(one)/step) + 1
	if _, ok := s.Schedule.(cron.ConstantDelaySchedule); ok { // it goes on from the last start
		return one.Add(time.Duration(missed-1) * step), missed, nil
	}
	// Look back further and further, so that years of missed starts need not be counted one by one.
	for back := step; ; back *= 2 {
		from := now.Add(-back)
		if from.Before(one) {
			at, from = one, one
		} else if at = s.Next(from); at.After(now) {
			continue
		}
		for next := s.Next(at); !next.After(now); next = s.Next(at) {
			at = next
		}
		return at, missed, nil
	}
}

// wait returns how long it is from now to the next start.
func (s schedule) wait(now time.Time) time.Duration {
	at, _, err := s.last(now)
	switch {
	case err != nil:
		at = now
	case at.IsZero():
		at = s.since
	}
	return s.Next(at).Sub(now) + slack
}

// due returns the time that a Job is to be started for, or zero if none is. A start that is later than the
// deadline allows does not take place.
func (s schedule) due(cj *batchv1.CronJob, now time.Time) (at time.Time, missed int, err error) {
	at, missed, err = s.last(now)
	if cj.Spec.StartingDeadlineSeconds == nil || err != nil || at.IsZero() {
		return at, missed, err
	}
	deadline := now.Add(-time.Duration(*cj.Spec.StartingDeadlineSeconds) * time.Second)
	if !at.After(deadline) {
		return time.Time{}, 0, nil
	}
	if deadline.After(s.since) { // what was missed before is forgiven
		missed = int(at.Sub(deadline)/s.Next(at).Sub(at)) + 1
	}
	return at, missed, nil
}

// location returns the time zone that a CronJob asks for.
func location(cj *batchv1.CronJob) (*time.Location, error) {
	return time.LoadLocation(ptr.Deref(cj.Spec.TimeZone, ""))
}
