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
	d = max(d, c.Period).Round(c.Period)
	t := &coarseTicker{Ticker: time.NewTicker(math.MaxInt64)}
	t.start = time.AfterFunc(c.until(d), func() { t.Reset(d) })
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

// A coarseTicker starts to tick when a Period begins.
type coarseTicker struct {
	*time.Ticker
	start *time.Timer
}

// C implements clock.Ticker.
func (t *coarseTicker) C() <-chan time.Time { return t.Ticker.C }

// Stop implements clock.Ticker. A ticker that has just begun to start ticks on; nobody
// listens to it.
func (t *coarseTicker) Stop() {
	t.start.Stop()
	t.Ticker.Stop()
}
