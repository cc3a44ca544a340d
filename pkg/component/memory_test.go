package component

import "testing"

func TestMemoryTender(t *testing.T) {
	const mib = 1 << 20
	tender := memoryTender{percent: 100, room: 128 * mib}
	for _, step := range []struct {
		name      string
		now       memory
		held      uint64 // after it was given back
		gcPercent int
		giveBack  bool
	}{
		{name: "nothing has been collected", now: memory{allocated: 60 * mib, held: 80 * mib}, gcPercent: 100},
		{name: "a small heap may grow", now: memory{allocated: 300 * mib, live: 60 * mib, held: 240 * mib}, gcPercent: 200},
		{name: "quiet, but not for long", now: memory{allocated: 301 * mib, live: 60 * mib, held: 240 * mib}, gcPercent: 200},
		{name: "quiet", now: memory{allocated: 302 * mib, live: 60 * mib, held: 240 * mib}, held: 90 * mib, gcPercent: 200, giveBack: true},
		{name: "there is little to give", now: memory{allocated: 306 * mib, live: 60 * mib, held: 94 * mib}, gcPercent: 200},
		{name: "busy", now: memory{allocated: 900 * mib, live: 200 * mib, held: 400 * mib}, gcPercent: 100},
		{name: "quiet, but not for long, again", now: memory{allocated: 901 * mib, live: 200 * mib, held: 400 * mib}, gcPercent: 100},
		{name: "quiet again", now: memory{allocated: 902 * mib, live: 200 * mib, held: 400 * mib}, held: 230 * mib, gcPercent: 100, giveBack: true},
		{name: "a large heap grows slowly", now: memory{allocated: 903 * mib, live: 200 * mib, held: 270 * mib}, gcPercent: 100},
		{name: "busy for a small heap", now: memory{allocated: 909 * mib, live: 100 * mib, held: 300 * mib}, gcPercent: 100},
		{name: "quiet for a large one, but not for long", now: memory{allocated: 915 * mib, live: 200 * mib, held: 300 * mib}, gcPercent: 100},
		{name: "quiet for a large one", now: memory{allocated: 921 * mib, live: 200 * mib, held: 300 * mib}, held: 230 * mib, gcPercent: 100, giveBack: true},
	} {
		got := tender.look(step.now)
		if want := (tending{step.gcPercent, step.giveBack}); got != want {
			t.Fatalf("%s: %+v, want %+v", step.name, got, want)
		}
		if got.giveBack {
			tender.given(memory{allocated: step.now.allocated, held: step.held})
		}
	}
}

func TestReadMemory(t *testing.T) {
	m := readMemory()
	if m.allocated == 0 || m.held == 0 {
		t.Errorf("the runtime says nothing: %+v", m)
	}
}
