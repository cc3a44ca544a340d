package lookout

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
)

// looking counts the looks at dir. Until the test ends, it is looked at when newWatcher's watcher says so, or every period.
func looking(t *testing.T, newWatcher func() (*fsnotify.Watcher, error), period time.Duration, dir string) (more func(what string)) {
	t.Helper()
	var looks atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		run(ctx, newWatcher, "a test", period, func() ([]string, time.Duration) {
			looks.Add(1)
			return []string{dir}, 0
		})
	}()
	t.Cleanup(func() { cancel(); <-stopped })
	seen := int64(0)
	return func(what string) {
		t.Helper()
		componenttest.Eventually(t, what, func() bool { return looks.Load() > seen })
		seen = looks.Load()
	}
}

func TestChanges(t *testing.T) {
	dir := t.TempDir()
	more := looking(t, fsnotify.NewWatcher, time.Hour, dir)
	more("the first look")
	more("a look after the directory is watched")
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	more("a look after a change")
}

func TestLostNotifications(t *testing.T) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	more := looking(t, func() (*fsnotify.Watcher, error) { return watcher, nil }, time.Hour, t.TempDir())
	more("the first look")
	more("a look after the directory is watched")
	for range 2 {
		watcher.Errors <- fsnotify.ErrEventOverflow
		more("a look after notifications were lost")
	}
}

func TestWithoutNotifications(t *testing.T) {
	for name, newWatcher := range map[string]func() (*fsnotify.Watcher, error){
		"no watcher":   func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") },
		"no directory": fsnotify.NewWatcher,
	} {
		t.Run(name, func(t *testing.T) {
			more := looking(t, newWatcher, time.Millisecond, filepath.Join(t.TempDir(), "absent"))
			for range 3 {
				more("a look without a change")
			}
		})
	}
}
