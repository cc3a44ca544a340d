// Package lookout looks at directories again when something in them has changed.
package lookout

import (
	"context"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/klog/v2"
)

// settle is how long a change may take: a file is written in several steps.
const settle = 50 * time.Millisecond

// Run calls look now, and again whenever something changes in the directories that it returns, until ctx ends. Where a directory
// cannot be watched, such as one that is yet to be made, it looks every period. look also says after what time it wants to be called
// at the latest; 0 leaves that to changes. What it looks at is named in messages.
func Run(ctx context.Context, what string, period time.Duration, look func() (dirs []string, next time.Duration)) {
	run(ctx, fsnotify.NewWatcher, what, period, look)
}

func run(ctx context.Context, newWatcher func() (*fsnotify.Watcher, error), what string, period time.Duration, look func() ([]string, time.Duration)) {
	logger := klog.FromContext(ctx)
	var events <-chan fsnotify.Event
	var lost <-chan error
	watcher, err := newWatcher()
	if err == nil {
		defer watcher.Close()
		events, lost = watcher.Events, watcher.Errors
	} else {
		logger.Error(err, "Cannot be notified of changes; looking for them instead", "of", what, "period", period)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			timer.Reset(settle)
		case err := <-lost: // unless this is read, no event comes any more
			logger.Error(err, "Notifications of changes were lost; looking for them", "of", what)
			timer.Reset(settle)
		case <-timer.C:
			dirs, next := look()
			atTheLatest := func(d time.Duration) {
				if next == 0 || next > d {
					next = d
				}
			}
			for _, dir := range dirs {
				switch {
				case watcher == nil:
					atTheLatest(period)
				case slices.Contains(watcher.WatchList(), dir):
				case watcher.Add(dir) == nil:
					atTheLatest(settle) // what has changed between the look and now is in no event
				default:
					atTheLatest(period)
				}
			}
			if next > 0 {
				timer.Reset(next)
			}
		}
	}
}
