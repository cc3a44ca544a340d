package scheduler

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/features"
)

var (
	seed       = flag.Uint64("seed", 1, "seed of the first case")
	cases      = flag.Uint64("cases", 60, "how many cases are compared")
	groupCases = flag.Uint64("group-cases", 60, "how many cases of pod groups are compared")
	most       = flag.Int("differences", 10, "differences after which to stop")
	out        = flag.String("out", "", "directory for the cases that differ, as YAML, and the summary; empty for none")
)

// Both schedulers decide alike about random pods in random clusters.
func TestSchedulersDecideAlike(t *testing.T) {
	stats := &Stats{}
	compareAll(t, "cases", *cases, Generate, func(ctx context.Context, c *Case, first bool) (*Difference, error) {
		if first {
			return Compare(ctx, c, stats, synctest.Wait)
		}
		return Compare(ctx, c, &Stats{}, synctest.Wait)
	})
	t.Logf("seeds %d to %d\n%s", *seed, *seed+*cases-1, stats)
}

// Both schedulers decide alike about trees of pod groups.
func TestSchedulersDecideGroupsAlike(t *testing.T) {
	featuregatetesting.SetFeatureGatesDuringTest(t, utilfeature.DefaultFeatureGate, featuregatetesting.FeatureOverrides{
		features.GenericWorkload: true, features.TopologyAwareWorkloadScheduling: true, features.PodGroupPreemptionPolicy: true, features.CompositePodGroup: true,
	})
	stats := &GroupStats{}
	compareAll(t, "group-cases", *groupCases, GenerateGroups, func(ctx context.Context, c *Case, first bool) (*Difference, error) {
		if first {
			return CompareGroups(ctx, c, stats, synctest.Wait)
		}
		return CompareGroups(ctx, c, &GroupStats{}, synctest.Wait)
	})
	t.Logf("seeds %d to %d\n%s", *seed, *seed+*groupCases-1, stats)
}

// compareAll compares cases of a kind, each in a bubble, where all that goes on in the background can be waited
// for, and shows those that differ, reduced.
func compareAll(t *testing.T, kind string, cases uint64, generate func(uint64) *Case, decide func(ctx context.Context, c *Case, first bool) (*Difference, error)) {
	klog.SetLogger(logr.Discard())
	utilruntime.ErrorHandlers = nil // they log, and sleep for a while that depends on when the error before came
	// The original waits for a signal to dump its cache. What Go starts for the first who waits must not be in a bubble.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR2)
	compare := func(t *testing.T, c *Case, first bool) (d *Difference) {
		t.Run(fmt.Sprint("seed-", c.Seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var err error
				if d, err = decide(context.Background(), c, first); err != nil {
					t.Fatalf("%v\n%s", err, c)
				}
			})
		})
		return d
	}
	found := 0
	for s := *seed; s < *seed+cases && found < *most; s++ {
		c := generate(s)
		d := compare(t, c, true)
		if d == nil {
			continue
		}
		found++
		small := Reduce(c, func(c *Case) bool { return d.Like(compare(t, c, false)) })
		if now := compare(t, small, false); now != nil {
			d = now
		}
		told := fmt.Sprintf("# -seed %d -%s 1, %s\n# %s\n", s, kind, d.Pod, d.What)
		if *out == "" {
			t.Errorf("%s%s", told, small)
			continue
		}
		t.Error(told)
		if err := os.WriteFile(filepath.Join(*out, fmt.Sprintf("%s-%d.yaml", strings.TrimSuffix(kind, "s"), s)), []byte(fmt.Sprintf("%s%s", told, small)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
