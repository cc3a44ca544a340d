package component

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestCoarseTimers: long timers of many loops go off together, short ones on time.
func TestCoarseTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Coarse{Period: time.Second}
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(300*time.Millisecond + time.Second)))
		began := time.Now()
		for _, tc := range []struct{ d, want time.Duration }{
			{100 * time.Millisecond, 100 * time.Millisecond},
			{time.Second, 700 * time.Millisecond},
			{1200 * time.Millisecond, 1700 * time.Millisecond},
			{3 * time.Second, 2700 * time.Millisecond},
		} {
			timer := c.NewTimer(tc.d)
			if took := (<-timer.C()).Sub(began); took != tc.want {
				t.Errorf("a timer of %s went off after %s, want %s", tc.d, took, tc.want)
			}
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(300*time.Millisecond + time.Second)))
			began = time.Now()
			timer.Reset(tc.d)
			if took := (<-timer.C()).Sub(began); took != tc.want {
				t.Errorf("a timer set again to %s went off after %s, want %s", tc.d, took, tc.want)
			}
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(300*time.Millisecond + time.Second)))
			began = time.Now()
		}
	})
}

// TestCoarseTickers: tickers that were made at different times tick together, no more
// often than once a period, and not after they were stopped.
func TestCoarseTickers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Coarse{Period: time.Second}
		a := c.NewTicker(500 * time.Millisecond)
		time.Sleep(130 * time.Millisecond)
		b := c.NewTicker(500 * time.Millisecond)
		var last time.Time
		for range 5 {
			x, y := <-a.C(), <-b.C()
			if !x.Equal(y) || !x.Equal(x.Truncate(time.Second)) || !last.IsZero() && x.Sub(last) != time.Second {
				t.Fatalf("ticks at %s and %s, before at %s", x, y, last)
			}
			last = x
		}
		a.Stop()
		b.Stop()
		time.Sleep(10 * time.Second)
		select {
		case <-a.C():
			t.Error("a stopped ticker ticked")
		default:
		}
	})
}
