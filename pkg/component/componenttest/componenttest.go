// Package componenttest is what the tests of all components have in common.
package componenttest

import (
	"testing"
	"time"
)

// patience is how long a test waits on a machine that is busy with other tests.
const patience = 30 * time.Second

// Eventually waits for what another goroutine does.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	EventuallyTold(t, what, func() (bool, string) { return holds(), "" })
}

// EventuallyTold is Eventually for what can also describe how far it is.
func EventuallyTold(t testing.TB, what string, holds func() (bool, string)) {
	t.Helper()
	EventuallyWithin(t, patience, what, holds)
}

// EventuallyWithin is EventuallyTold for what takes longer.
func EventuallyWithin(t testing.TB, patience time.Duration, what string, holds func() (bool, string)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		ok, state := holds()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %s", what, state)
		}
	}
}
