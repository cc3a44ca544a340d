package component

import (
	"math"
	"time"

	"k8s.io/utils/clock"
)

// Coarse is a clock for what is done now and then and nobody waits for: a metric
// brought up to date, a bookmark sent. Tickers, and timers of at least a Period, go
// off at the multiple of Period that is nearest to when they should. So all that
// share a Period wake an idle process at the same moments, not each at its own; a
// process of many such loops sleeps most of the time. Shorter timers are exact.
type Coarse struct {
	clock.RealClock
	Period time.Duration
}

// NewTicker implements clock.WithTicker. It does not tick more often than once a Period.
func (c Coarse) NewTicker(d time.Duration) clock.Ticker {
	d = max(d, c.Period)
	t := &coarseTicker{c: make(chan time.Time, 1), stopped: make(chan struct{})}
	// Not before t.timer is set:
	t.timer = time.AfterFunc(math.MaxInt64, func() {
		select {
		case t.c <- time.Now():
		default: // nobody took the last one
		}
		select {
		case <-t.stopped:
		default:
			t.timer.Reset(c.until(d))
		}
	})
	t.timer.Reset(c.until(d))
	return t
}

// NewTimer implements clock.Clock.
func (c Coarse) NewTimer(d time.Duration) clock.Timer {
	return &coarseTimer{Timer: c.RealClock.NewTimer(c.until(d)), clock: c}
}

// until is the time from now to when something due after d goes off.
func (c Coarse) until(d time.Duration) time.Duration {
	if d < c.Period {
		return d
	}
	now := time.Now()
	at := now.Add(d).Round(c.Period)
	for !at.After(now) {
		at = at.Add(c.Period)
	}
	return at.Sub(now)
}

type coarseTimer struct {
	clock.Timer
	clock Coarse
}

// Reset implements clock.Timer.
func (t *coarseTimer) Reset(d time.Duration) bool { return t.Timer.Reset(t.clock.until(d)) }

type coarseTicker struct {
	c       chan time.Time
	timer   *time.Timer
	stopped chan struct{}
}

// C implements clock.Ticker.
func (t *coarseTicker) C() <-chan time.Time { return t.c }

// Stop implements clock.Ticker.
func (t *coarseTicker) Stop() {
	close(t.stopped)
	t.timer.Stop()
}
