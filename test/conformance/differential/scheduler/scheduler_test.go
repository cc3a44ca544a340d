package scheduler

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"
)

var (
	seed  = flag.Uint64("seed", 1, "seed of the first case")
	cases = flag.Uint64("cases", 60, "how many cases are compared")
	most  = flag.Int("differences", 10, "differences after which to stop")
	out   = flag.String("out", "", "directory for the cases that differ, as YAML, and the summary; empty for none")
)

// Both schedulers decide alike about random pods in random clusters.
func TestSchedulersDecideAlike(t *testing.T) {
	klog.SetLogger(logr.Discard())
	utilruntime.ErrorHandlers = nil // they log, and sleep for a while that depends on when the error before came
	// The original waits for a signal to dump its cache. What Go starts for the first who waits must not be in a bubble.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR2)
	stats, found := &Stats{}, 0
	for s := *seed; s < *seed+*cases && found < *most; s++ {
		c := Generate(s)
		d := compare(t, c, stats)
		if d == nil {
			continue
		}
		found++
		small := Reduce(c, func(c *Case) bool { return d.Like(compare(t, c, &Stats{})) })
		if now := compare(t, small, &Stats{}); now != nil {
			d = now
		}
		told := fmt.Sprintf("# -seed %d -cases 1, pod %s\n# %s\n", s, d.Pod, d.What)
		if *out == "" {
			t.Errorf("%s%s", told, small)
			continue
		}
		t.Error(told)
		if err := os.WriteFile(filepath.Join(*out, fmt.Sprintf("case-%d.yaml", s)), []byte(fmt.Sprintf("%s%s", told, small)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seeds %d to %d\n%s", *seed, *seed+*cases-1, stats)
}

// compare runs a case in a bubble, where all that goes on in the background can be waited for.
func compare(t *testing.T, c *Case, stats *Stats) (d *Difference) {
	t.Run(fmt.Sprint("seed-", c.Seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var err error
			if d, err = Compare(context.Background(), c, stats, synctest.Wait); err != nil {
				t.Fatalf("%v\n%s", err, c)
			}
		})
	})
	return d
}
