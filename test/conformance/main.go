// Command conformance runs the official conformance suite on a cluster of Leme that
// it starts and takes down again, and says what passed, failed and was not run.
//
// What passes is listed in passing.txt and has to go on passing; what does not is
// listed in STATUS.md under the capability that it misses.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

type options struct {
	selection
	suite   suite
	cluster cluster
	lists   lists
	out     string
	timeout time.Duration
	// of the swap matrix
	originals string
	perCell   int

	resume bool
	update bool
}

func parseFlags() (options, error) {
	var o options
	var with string
	flag.StringVar(&o.suite.dir, "suite", "bin/conformance", "`directory` of e2e.test, ginkgo and kubectl")
	flag.StringVar(&o.suite.labels, "labels", "Conformance", "Ginkgo's label `filter` of the tests that count")
	flag.IntVar(&o.suite.workers, "parallel", 6, "`number` of workers for the parallel part")
	flag.StringVar(&o.cluster.leme, "leme", "bin/leme", "the leme `binary`")
	flag.StringVar(&o.cluster.images, "images", "bin/images", "`directory` of image archives")
	flag.StringVar(&o.cluster.dataDir, "data-dir", "/var/lib/leme-conformance", "`directory` for the cluster")
	flag.IntVar(&o.cluster.nodes, "nodes", 2, "`number` of nodes")
	flag.StringVar(&with, "with", "", "components to run from other binaries, as `COMPONENT=PATH` separated by spaces")
	flag.StringVar(&o.cluster.kubeconfig, "kubeconfig", "", "`file` of a cluster that runs already, to be left alone, instead of one of Leme")
	flag.StringVar(&o.out, "out", "bin/conformance/results", "`directory` for results, junit and logs")
	flag.StringVar(&o.lists.passing, "passing-list", "passing.txt", "`file` with the tests that pass")
	flag.StringVar(&o.lists.status, "status", "STATUS.md", "`file` with the tests that do not, by missing capability")
	flag.DurationVar(&o.timeout, "timeout", 45*time.Minute, "`time` after which the run is ended")
	flag.StringVar(&o.focus, "focus", "", "`regexp` of the tests to run")
	flag.StringVar(&o.skip, "skip", "", "`regexp` of tests not to run")
	flag.BoolVar(&o.passingOnly, "passing", false, "run only tests that are listed as passing")
	flag.BoolVar(&o.all, "all", false, "run as well the tests that STATUS.md says cannot pass")
	flag.BoolVar(&o.resume, "resume", false, "keep the results of the last run and run only what has none")
	flag.BoolVar(&o.update, "update", false, "add to passing.txt what has newly passed")
	flag.StringVar(&o.originals, "originals", "", "`directory` of the original components: run the swap matrix with them")
	flag.IntVar(&o.perCell, "per-cell", 24, "`number` of tests in each cell of the swap matrix")
	flag.Parse()
	o.cluster.with = strings.Fields(with)
	if o.cluster.kubeconfig != "" {
		o.cluster.nodes = 0
	}
	if flag.NArg() > 0 {
		return o, fmt.Errorf("%s: takes no arguments", strings.Join(flag.Args(), " "))
	}
	for _, path := range []*string{&o.suite.dir, &o.cluster.leme, &o.cluster.images, &o.out, &o.originals} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return o, err
		}
		*path = abs
	}
	return o, nil
}

// errRegression is returned when the run was complete but not good.
var errRegression = errors.New("tests that passing.txt lists have failed")

func main() {
	o, err := parseFlags()
	if err == nil {
		ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer cancel()
		if o.originals != "" {
			err = swap(ctx, o)
		} else {
			err = run(ctx, o)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	start := time.Now()
	specs, err := o.suite.specs(ctx)
	if err != nil {
		return err
	}
	passing, missing, err := o.lists.load(specs)
	if err != nil {
		return err
	}
	store, err := openStore(o.out, o.resume)
	if err != nil {
		return err
	}
	stages, skipped, err := o.selection.plan(specs, passing, missing, store.results)
	if err != nil {
		return err
	}
	store.set(skipped)
	if len(stages) == 0 {
		fmt.Println("Nothing is left to run.")
		return conclude(o, store, specs, passing)
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.cluster.kubeconfig == "" {
		if err := o.suite.checkImages(ctx, o.cluster.images); err != nil {
			return err
		}
		defer func() {
			// Also after an interrupt: nothing is left behind.
			err = errors.Join(err, o.cluster.down(context.WithoutCancel(ctx)))
		}()
		if err := o.cluster.up(ctx); err != nil {
			return err
		}
	}
	go func() { cancel(o.cluster.watch(ctx, o.suite.kubectl(), o.out)) }()

	progress := newProgress(os.Stdout, term.IsTerminal(int(os.Stdout.Fd())), start, count(stages))
	if err := o.runStages(ctx, stages, specs, store, progress, start); err != nil {
		return err
	}
	if again := lost(specs, passing, store.results); len(again) > 0 && len(again) <= secondChances {
		first := maps.Clone(store.results)
		st := stage{name: "again", serial: true, specs: again}
		if err := o.runStages(ctx, []stage{st}, specs, store, progress, start); err != nil {
			return err
		}
		store.settle(again, first)
	}
	progress.end()
	return conclude(o, store, specs, passing)
}

// secondChances is how many tests that have passed before may fail to be run once more,
// alone: with more, it is not by chance.
const secondChances = 10

// lost are the tests that have passed before and failed.
func lost(specs []spec, passing map[string]bool, results map[string]result) []string {
	var names []string
	for _, s := range specs {
		if passing[s.name] && results[s.name].State == failed {
			names = append(names, s.name)
		}
	}
	return names
}

// runStages runs one stage after the other for as long as there is time.
func (o options) runStages(ctx context.Context, stages []stage, specs []spec, store *store, progress *progress, start time.Time) error {
	for _, s := range stages {
		left := o.timeout - time.Since(start)
		if left < time.Minute {
			store.set(unrun(s.specs, "out of time"))
			continue
		}
		results, report, err := o.suite.run(ctx, s, o.cluster, o.out, left, progress)
		if err := errors.Join(store.merge(results, report), err); err != nil {
			return err
		}
		if cause := context.Cause(ctx); cause != nil {
			progress.end()
			summarize(os.Stdout, specs, store.results)
			if errors.Is(cause, context.Canceled) {
				cause = errors.New("interrupted")
			}
			return fmt.Errorf("%w: the results so far are in %s, RESUME=1 goes on from there", cause, o.out)
		}
	}
	return nil
}

// conclude shows the table and compares with what has passed before.
func conclude(o options, store *store, specs []spec, passing map[string]bool) error {
	if err := store.save(); err != nil {
		return err
	}
	summarize(os.Stdout, specs, store.results)
	fmt.Printf("\nLogs, junit.xml and results.json are in %s.\n", o.out)
	list := func(title string, names []string) {
		if len(names) > 0 {
			fmt.Printf("\n%s:\n  %s\n", title, strings.Join(names, "\n  "))
		}
	}
	failures := lost(specs, passing, store.results)
	list("Listed in passing.txt, and failed", failures)
	list("Failed at first, and passed when run again alone", store.again)
	if o.update {
		added, err := o.lists.add(passing, store.results)
		if err != nil {
			return err
		}
		fmt.Printf("\n%d tests are new in %s.\n", added, o.lists.passing)
	}
	if len(failures) > 0 {
		return errRegression
	}
	return nil
}
