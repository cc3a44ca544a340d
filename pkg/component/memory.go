package component

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// memoryPeriod is how often a process looks at its memory.
	memoryPeriod = 5 * time.Second
	// quietAllocation is what a process allocates in a period, at most, that has nothing to do but look after itself, or
	// a quietShare of what is in use if that is more: of many things to look after, or to tell metrics of, more is made.
	quietAllocation = 5 << 20
	quietShare      = 32
	// quietPeriods is for how many of them it is quiet before memory is given back.
	quietPeriods = 2
	// regrowth is by how much its memory then grows, at least, before more is given back.
	regrowth = 32 << 20
)

// TendMemory keeps the memory of this process in step with what it does, until ctx ends. Between two collections of garbage the
// heap grows by percent, or by room if that is more. GOGC overrules both.
//
// The runtime by itself collects when the heap has doubled, which is often if the heap is small, and it keeps
// what a busy time needed for the next one, which may be far. A server of few objects and many requests wants the opposite.
func TendMemory(ctx context.Context, percent int, room uint64) {
	ticker := Coarse{Period: time.Second}.NewTicker(memoryPeriod)
	defer ticker.Stop()
	t := memoryTender{percent: percent, room: room}
	set := 100 // by the runtime
	for {
		next := t.look(readMemory())
		if next.gcPercent != set && os.Getenv("GOGC") == "" {
			set = next.gcPercent
			debug.SetGCPercent(set)
		}
		if next.giveBack {
			debug.FreeOSMemory()
			t.given(readMemory())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// memory is what the runtime says of itself, in bytes.
type memory struct {
	allocated uint64 // since the process began
	live      uint64 // what the last collection found in use
	held      uint64 // from the system
}

func readMemory() memory {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	return memory{
		allocated: samples[0].Value.Uint64(), live: samples[1].Value.Uint64(),
		held: samples[2].Value.Uint64() - samples[3].Value.Uint64(),
	}
}

// A memoryTender decides what is done about memory.
type memoryTender struct {
	percent int
	room    uint64
	last    uint64 // allocated at the last look
	quiet   int    // periods since there was something to do
	kept    uint64 // held since memory was last given back
}

// tending is what is done about memory.
type tending struct {
	gcPercent int
	giveBack  bool
}

func (t *memoryTender) look(now memory) tending {
	next := tending{gcPercent: t.percent}
	if now.live > 0 {
		// In steps, since each change stops the process for a moment.
		const step = 50
		next.gcPercent = max(t.percent, int(100*t.room/now.live)/step*step)
	}
	if now.allocated-t.last > max(quietAllocation, now.live/quietShare) {
		t.quiet = 0
	} else {
		t.quiet++
	}
	t.last = now.allocated
	next.giveBack = t.quiet >= quietPeriods && now.held > t.kept+max(regrowth, t.kept/4)
	return next
}

// given notes what is held after memory was given back.
func (t *memoryTender) given(now memory) { t.kept, t.last = now.held, now.allocated }
