package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// timerSlack is how late the kernel may wake an idle cluster for its timers. Hundreds go
// off in a second, each at its own time; with some slack one waking serves several, which
// halves what an idle cluster uses. What comes from the network or a disk is not delayed,
// and neither are timers while there is something to do.
const timerSlack = 40 * time.Millisecond

// relaxTimers gives all threads of this process the timer slack; threads that they make
// inherit it. A kernel without it, before 4.6, is left alone.
func relaxTimers(slack time.Duration) error {
	files, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	for _, f := range files {
		// The file is there for whole processes and for threads by their number alone.
		file := filepath.Join("/proc", filepath.Base(f), "timerslack_ns")
		if err := os.WriteFile(file, []byte(strconv.FormatInt(slack.Nanoseconds(), 10)), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("timer slack: %w", err)
		}
	}
	return nil
}
