package pods

import "time"

// Backoff is how long a container that keeps ending waits before it is started again. Its
// zero value has never been restarted.
type Backoff struct {
	// Delay is the wait before the next start, Last when the one before was granted.
	Delay time.Duration
	Last  time.Time
}

// BackoffLimits bound a back-off: the first delay, and the largest. A container that has run
// for twice the largest starts afresh.
type BackoffLimits struct{ Initial, Max time.Duration }

// Until is the time before which a container that ended then does not start.
func (b Backoff) Until(ended time.Time, l BackoffLimits) time.Time {
	if b.Delay == 0 || ended.Sub(b.Last) > 2*l.Max {
		return time.Time{}
	}
	return ended.Add(b.Delay)
}

// Next is the back-off after a start.
func (b Backoff) Next(ended, now time.Time, l BackoffLimits) Backoff {
	if b.Delay == 0 || ended.Sub(b.Last) > 2*l.Max {
		return Backoff{Delay: l.Initial, Last: now}
	}
	return Backoff{Delay: min(2*b.Delay, l.Max), Last: now}
}
