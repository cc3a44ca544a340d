// Command testcluster measures how long a control plane in a test takes to start and to
// stop: etcd and API server, in this process, one after the other. Beside the time by the
// clock it gives the processor time that all of the process has used meanwhile, as the
// kernel counts it, which hardly depends on what else the machine does.
//
// The first start, which also makes what the process keeps, is shown by itself; the
// others are warm.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

var (
	runs      = flag.Int("runs", 20, "how many warm starts are measured")
	full      = flag.Bool("full", false, "start the controller manager and the scheduler as well")
	profile   = flag.String("profile", "", "file for a processor profile of the warm starts and stops; empty takes none")
	traceFile = flag.String("trace", "", "file for an execution trace of the last start; empty takes none")
)

func main() {
	flag.Parse()
	klog.SetLogger(logr.Discard()) // what is logged would hide what is measured
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "testcluster:", err)
		os.Exit(1)
	}
}

// A cost is what something took.
type cost struct{ clock, processor time.Duration }

func run() error {
	var opts []testcluster.Option
	if *full {
		opts = append(opts, testcluster.WithControllerManager(), testcluster.WithScheduler())
	}
	first, _, err := startAndStop(opts)
	if err != nil {
		return err
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	goroutines := runtime.NumGoroutine()
	var starts, stops []cost
	for i := range *runs {
		if *traceFile != "" && i == *runs-1 {
			f, err := os.Create(*traceFile)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := trace.Start(f); err != nil {
				return err
			}
			defer trace.Stop()
		}
		started, stopped, err := startAndStop(opts)
		if err != nil {
			return err
		}
		starts, stops = append(starts, started), append(stops, stopped)
		fmt.Fprintf(os.Stderr, "start %v (processor %v), stop %v (processor %v)\n", started.clock.Round(time.Millisecond),
			started.processor.Round(time.Millisecond), stopped.clock.Round(time.Millisecond), stopped.processor.Round(time.Millisecond))
	}
	fmt.Println("| ms | median | min | max |\n|---|---|---|---|")
	row("first start", []cost{first})
	row("start", starts)
	row("stop", stops)
	// Some of the library's wait for a few seconds before they see that it is over.
	for range 50 {
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Printf("\nLeft behind by %d starts and stops: %d goroutines.\n", *runs, max(0, runtime.NumGoroutine()-goroutines))
	return nil
}

func startAndStop(opts []testcluster.Option) (start, stop cost, err error) {
	var c *testcluster.Cluster
	start, err = measure(func() (err error) {
		c, err = testcluster.New(context.Background(), opts...)
		return err
	})
	if err != nil {
		return cost{}, cost{}, err
	}
	stop, err = measure(c.Stop)
	return start, stop, err
}

func measure(f func() error) (cost, error) {
	began, before := time.Now(), processor()
	err := f()
	return cost{time.Since(began), processor() - before}, err
}

// processor returns the processor time that the process has used.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it does not fail for the process itself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// row prints what some costs have in common, by the clock and in processor time.
func row(name string, costs []cost) {
	var clock, processor []time.Duration
	for _, c := range costs {
		clock, processor = append(clock, c.clock), append(processor, c.processor)
	}
	for what, times := range [][]time.Duration{clock, processor} {
		slices.Sort(times)
		fmt.Printf("| %s: %s | %d | %d | %d |\n", name, []string{"clock", "processor"}[what],
			times[len(times)/2].Milliseconds(), times[0].Milliseconds(), times[len(times)-1].Milliseconds())
	}
}
