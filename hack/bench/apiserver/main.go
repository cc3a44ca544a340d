// Command apiserver measures what a request costs the API server, and what objects,
// watchers and custom resources cost it in memory: Leme's and the original, each a process
// of its own on an etcd of its own of the same version.
//
// Both run at the same time and are measured in turns, so that what else the machine does meets both. The unit is
// the processor time that the server's process has used, as the kernel counts it. Memory is resident memory after a time of rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

var (
	requests = flag.Int("requests", 2000, "requests of each kind, in all rounds")
	rounds   = flag.Int("rounds", 5, "rounds in which they are sent; the median is shown")
	clients  = flag.String("clients", "1,16,256", "numbers of clients that send them at once; empty leaves requests out")
	pods     = flag.Int("pods", 50000, "pods that are stored when memory is measured; 0 leaves that out")
	watchers = flag.Int("watchers", 100, "watchers of all pods when memory is measured, and of the fan-out")
	crds     = flag.Int("crds", 200, "CustomResourceDefinitions when memory is measured; 0 leaves that out")
	rest     = flag.Duration("rest", 30*time.Second, "time of rest before memory is measured")
	profiles = flag.String("profiles", "", "directory for profiles: of the processor in the last round, of the heap when memory is measured; empty takes none")
)

// A server is one that is measured.
type server struct {
	*bench.Server
	name string
}

func main() { bench.Main("apiserver", run) }

func run(ctx context.Context) error {
	var counts []int
	for text := range strings.SplitSeq(*clients, ",") {
		if *clients == "" {
			break
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-clients: %q is no number of clients", text)
		}
		counts = append(counts, n)
	}
	t := &bench.Table{}
	var all []func(context.Context, []*server, *bench.Table) error
	if len(counts) > 0 {
		all = append(all, func(ctx context.Context, servers []*server, t *bench.Table) error {
			return measureRequests(ctx, servers, t, counts)
		})
	}
	if *pods > 0 {
		all = append(all, measurePods)
	}
	if *crds > 0 {
		all = append(all, measureCRDs)
	}
	for _, measure := range all {
		if err := onServers(ctx, t, measure); err != nil {
			return err
		}
	}
	t.Print(*bench.Originals != "")
	return nil
}

// onServers measures on servers that are started for it.
func onServers(ctx context.Context, t *bench.Table, measure func(context.Context, []*server, *bench.Table) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var servers []*server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.Stop())
		}
	}()
	for _, b := range bench.Binaries("kube-apiserver") {
		started, err := bench.StartServer(ctx, b.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
		servers = append(servers, &server{started, b.Name})
	}
	return measure(ctx, servers, t)
}

// inTurns lets each server do something in each round. Who was first is last in the next one.
func inTurns(servers []*server, rounds int, do func(s *server, round int) error) error {
	servers = slices.Clone(servers)
	for round := range rounds {
		for _, s := range servers {
			if err := do(s, round); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		slices.Reverse(servers)
	}
	return nil
}

// cost returns how much processor time the API server uses while f runs.
func (s *server) cost(f func() error) (time.Duration, error) {
	before, err := bench.ProcessUsage(s.Process.Pid)
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := bench.ProcessUsage(s.Process.Pid)
	return after.CPU - before.CPU, err
}

// profile takes a processor profile of the API server while f runs.
func (s *server) profile(ctx context.Context, name string, f func() error) error {
	return bench.Profile(ctx, s.Config, filepath.Join(*profiles, s.name+"-"+name+".pprof"), f)
}
