// Command controllers starts two control planes that differ in one thing: one has the
// original kube-controller-manager, the other has Leme's. It takes both through the same
// scenarios and says where they end differently.
//
//	scenario.go    the scenarios, which are data: scenarios/*.yaml
//	planes.go      starts the control planes
//	world.go       what there is in one of them, scenario by scenario
//	nodes.go       plays the scheduler and the kubelets
//	stage.go       takes one scenario through its steps
//	normalise.go   takes out what no two runs have in common
//
// The differences that are known are in known.yaml, with their reasons.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/test/conformance/differential/internal/listed"
	"github.com/leme-k8s/leme/test/conformance/differential/internal/peers"
)

type options struct {
	original, leme, server, etcd string
	scenarios, known, out        string
	only, ends, features         string
	parallel                     int
	quiet, patience, timeout     time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.original, "original", "bin/originals/kube-controller-manager", "the original kube-controller-manager `binary`")
	flag.StringVar(&o.leme, "leme", "bin/kube-controller-manager", "Leme's kube-controller-manager `binary`")
	flag.StringVar(&o.server, "server", "bin/kube-apiserver", "the kube-apiserver `binary` that both have")
	flag.StringVar(&o.etcd, "etcd", "bin/runtime/etcd", "the etcd `binary`")
	flag.StringVar(&o.scenarios, "scenarios", "scenarios", "`directory` of the scenarios")
	flag.StringVar(&o.known, "known", "known.yaml", "`file` of the known differences")
	flag.StringVar(&o.out, "out", "bin/differential", "`directory` for logs and controllers.txt")
	flag.StringVar(&o.only, "only", "", "`regexp` of scenarios: run these alone, and miss nothing that is known")
	flag.StringVar(&o.features, "features", "", "feature `gates` that are on besides the usual ones, as Name=true; what needs one of them is left out without it")
	flag.StringVar(&o.ends, "ends", "", "`directory` for what is compared: a file for each scenario and side")
	flag.IntVar(&o.parallel, "parallel", 32, "`number` of scenarios at a time")
	flag.DurationVar(&o.quiet, "quiet", 2*time.Second, "`time` without a change after which a scenario goes on")
	flag.DurationVar(&o.patience, "patience", 20*time.Second, "`time` without a change after which a difference is one, and neither the lag of a busy machine nor what the original does every 15 seconds")
	flag.DurationVar(&o.timeout, "timeout", 45*time.Minute, "`time` after which the run is ended")
	flag.Parse()
	klog.SetLogger(logr.Discard()) // watches complain when a server ends
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "controllers:", err)
		os.Exit(1)
	}
}

// errDifferent says that the scenarios do not end as they should.
var errDifferent = errors.New("the controllers differ where they are not known to: see controllers.txt")

func run(ctx context.Context, o options) error {
	list, err := listed.Load(o.known)
	if err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	scenarios, err := loadScenarios(o.scenarios)
	if err != nil {
		return err
	}
	scenarios = slices.DeleteFunc(scenarios, func(s *scenario) bool { return !only.MatchString(s.name) || !strings.Contains(o.features, s.feature) })
	// Those that wait for a clock start first; the others are mixed, so that no controller has all to do at once.
	slices.SortStableFunc(scenarios, func(a, b *scenario) int { return cmp.Or(rank(a)-rank(b), strings.Compare(a.mixed(), b.mixed())) })
	p, err := peers.New(o.out)
	if err != nil {
		return err
	}
	defer p.Stop()
	original, err := startPlane(ctx, p, "original", o.original, o)
	if err != nil {
		return err
	}
	leme, err := startPlane(ctx, p, "leme", o.leme, o)
	if err != nil {
		return err
	}
	c := &comparison{original: original, leme: leme, options: o, report: &listed.Report{Unit: "scenarios", Known: list}}
	started := time.Now()
	if err := c.all(ctx, scenarios, o.parallel); err != nil {
		return errors.Join(err, c.report.Write(filepath.Join(o.out, "controllers.txt")))
	}
	if o.only != "" {
		c.report.Known = nil
	}
	good := c.report.Summary(os.Stdout)
	fmt.Printf("%d scenarios in %s; %d were run a second time\n", len(scenarios), time.Since(started).Round(time.Second), c.again)
	if err := c.report.Write(filepath.Join(o.out, "controllers.txt")); err != nil {
		return err
	}
	if !good {
		return errDifferent
	}
	p.Stop()
	return p.Remove()
}

func rank(s *scenario) int {
	if s.slow {
		return 0
	}
	return 1
}

// comparison takes both control planes through scenarios.
type comparison struct {
	original, leme *plane
	options        options
	report         *listed.Report
	again          int
}

// all runs scenarios, some at a time. What is different where it is not known to be is
// run once more, with less beside it, for what takes too long on a busy machine is no
// difference between controllers.
func (c *comparison) all(ctx context.Context, scenarios []*scenario, parallel int) error {
	lines := make([][]string, len(scenarios))
	errs := make([]error, len(scenarios))
	var done atomic.Int32
	each(len(scenarios), parallel, func(i int) {
		lines[i], errs[i] = c.one(ctx, scenarios[i])
		if n := done.Add(1); n%100 == 0 {
			fmt.Fprintf(os.Stderr, "%d of %d scenarios\n", n, len(scenarios))
		}
	})
	var again []int
	for i, s := range scenarios {
		if len(c.report.Unlisted(s.name, lines[i])) > 0 {
			again = append(again, i)
		}
	}
	c.again = len(again)
	each(len(again), max(parallel/4, 1), func(k int) {
		s := *scenarios[again[k]]
		s.ns = "t9" + s.ns[len("t9"):]
		lines[again[k]], errs[again[k]] = c.one(ctx, &s)
	})
	for i, s := range scenarios {
		c.report.Add(s.group(), s.name, lines[i])
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// each calls f for 0 to n-1, some at a time.
func each(n, parallel int, f func(int)) {
	slots := make(chan struct{}, parallel)
	var group sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	group.Wait()
}

// one runs a scenario on both control planes, step by step, and returns how they differ
// in the end.
func (c *comparison) one(ctx context.Context, s *scenario) ([]string, error) {
	both := []*stage{{plane: c.original, scenario: s}, {plane: c.leme, scenario: s}}
	inBoth := func(f func(a *stage)) {
		var group sync.WaitGroup
		for _, a := range both {
			group.Go(func() { f(a) })
		}
		group.Wait()
	}
	inBoth(func(a *stage) { a.open(ctx) })
	defer inBoth(func(a *stage) { a.world.drop(a.ns) })
	var ends []outcome
	for i, st := range s.steps {
		inBoth(func(a *stage) { a.step(ctx, i) })
		if !st.Soon {
			var err error
			if ends, err = c.settle(ctx, both); err != nil {
				return nil, err
			}
		}
	}
	return compare(ends[0], ends[1]), c.write(s, ends)
}

// settle waits until both are quiet. What differs then may be late on one side; it is
// waited for.
func (c *comparison) settle(ctx context.Context, both []*stage) ([]outcome, error) {
	const poll, most = 250 * time.Millisecond, 90 * time.Second
	end := time.Now().Add(most)
	for {
		quiet := min(both[0].world.quiet(both[0].ns), both[1].world.quiet(both[1].ns))
		if late := time.Now().After(end); quiet >= c.options.quiet || late {
			ends := []outcome{both[0].outcome(), both[1].outcome()}
			if late || quiet >= c.options.patience || len(c.report.Unlisted(both[0].name, compare(ends[0], ends[1]))) == 0 {
				return ends, nil
			}
			if err := pause(ctx, poll); err != nil {
				return nil, err
			}
		}
		if err := pause(ctx, max(poll, c.options.quiet-quiet)); err != nil {
			return nil, err
		}
	}
}

// write leaves what was compared in files.
func (c *comparison) write(s *scenario, ends []outcome) error {
	if c.options.ends == "" {
		return nil
	}
	if err := os.MkdirAll(c.options.ends, 0o755); err != nil {
		return err
	}
	for i, side := range []string{"original", "leme"} {
		data, err := yaml.Marshal(map[string]any{"objects": ends[i].objects, "trouble": ends[i].trouble})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.options.ends, strings.ReplaceAll(s.name, "/", "_")+"."+side+".yaml"), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
