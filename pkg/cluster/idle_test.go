package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRelaxTimers(t *testing.T) {
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	if err := relaxTimers(3 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		got, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
		if err == nil && strings.TrimSpace(string(got)) != "3000000" {
			t.Errorf("thread %s has a slack of %s ns", filepath.Base(thread), strings.TrimSpace(string(got)))
		}
	}
}
