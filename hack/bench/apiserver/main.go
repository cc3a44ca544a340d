// Command apiserver measures what a request costs the API server, and what objects,
// watchers and custom resources cost it in memory: Leme's and the original, each a process
// of its own on an etcd of its own of the same version, one after the other in one run.
//
// The unit is the processor time that the server's process has used, as the kernel counts it, so that
// what else the machine does matters little. Memory is resident memory after a time of rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

var (
	requests = flag.Int("requests", 4000, "requests of each kind")
	clients  = flag.String("clients", "1,16,256", "numbers of clients that send them at once")
	pods     = flag.Int("pods", 50000, "pods that are stored when memory is measured; 0 leaves that out")
	watchers = flag.Int("watchers", 100, "watchers of all pods when memory is measured, and of the fan-out")
	crds     = flag.Int("crds", 200, "CustomResourceDefinitions when memory is measured; 0 leaves that out")
	rest     = flag.Duration("rest", 30*time.Second, "time of rest before memory is measured")
	profiles = flag.String("profiles", "", "directory for profiles: of the processor while requests are sent, of the heap when memory is measured; empty takes none")
)

// A server is one that is measured.
type server struct {
	*bench.Server
	name string
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run() error {
	var counts []int
	for _, text := range strings.Split(*clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-clients: %q is no number of clients", text)
		}
		counts = append(counts, n)
	}
	binaries := bench.Binaries("kube-apiserver")
	t := &bench.Table{}
	for _, b := range binaries {
		for _, measure := range []func(context.Context, *server, *bench.Table) error{
			func(ctx context.Context, s *server, t *bench.Table) error { return measureRequests(ctx, s, t, counts) },
			measurePods, measureCRDs,
		} {
			if err := onServer(b.Name, b.Path, t, measure); err != nil {
				return fmt.Errorf("%s: %w", b.Name, err)
			}
		}
	}
	t.Print(len(binaries) > 1)
	return nil
}

// onServer measures on a server that is started for it.
func onServer(name, path string, t *bench.Table, measure func(context.Context, *server, *bench.Table) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started, err := bench.StartServer(ctx, path)
	if err != nil {
		return err
	}
	return errors.Join(measure(ctx, &server{started, name}, t), started.Stop())
}

// usage is what the API server's process has used and uses.
func (s *server) usage() (bench.Usage, error) { return bench.ProcessUsage(s.Process.Pid) }

// profile takes a processor profile of the API server while f runs, if that is wanted.
func (s *server) profile(ctx context.Context, name string, f func() error) error {
	if *profiles == "" {
		return f()
	}
	return bench.Profile(ctx, s.Config, filepath.Join(*profiles, s.name+"-"+name+".pprof"), f)
}
