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
	"slices"
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
	profiles = flag.String("profiles", "", "directory for processor profiles of the requests; empty takes none")
)

// A row is one measured number, by server.
type row struct {
	name   string
	higher bool // is better
	values map[string]float64
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
	binaries := []struct{ name, path string }{{"leme", *bench.Bin + "/kube-apiserver"}}
	if *bench.Originals != "" {
		binaries = append(binaries, struct{ name, path string }{"original", *bench.Originals + "/kube-apiserver"})
	}
	t := &table{}
	for _, b := range binaries {
		for _, measure := range []func(context.Context, *server, *table) error{
			func(ctx context.Context, s *server, t *table) error { return measureRequests(ctx, s, t, counts) },
			measurePods, measureCRDs,
		} {
			if err := onServer(b.name, b.path, t, measure); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
		}
	}
	t.print(len(binaries) > 1)
	return nil
}

// onServer measures on a server that is started for it.
func onServer(name, path string, t *table, measure func(context.Context, *server, *table) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := startServer(ctx, name, path)
	if err != nil {
		return err
	}
	return errors.Join(measure(ctx, s, t), s.stop())
}

// A table has the rows in the order in which they were first measured.
type table struct{ rows []*row }

func (t *table) add(server, name string, higherIsBetter bool, value float64) {
	i := slices.IndexFunc(t.rows, func(r *row) bool { return r.name == name })
	if i < 0 {
		i = len(t.rows)
		t.rows = append(t.rows, &row{name: name, higher: higherIsBetter, values: map[string]float64{}})
	}
	t.rows[i].values[server] = value
	fmt.Fprintf(os.Stderr, "%-9s %-44s %10.1f\n", server, name, value)
}

func (t *table) print(compared bool) {
	if !compared {
		fmt.Println("| | Leme |\n|---|---|")
		for _, r := range t.rows {
			fmt.Printf("| %s | %.0f |\n", r.name, r.values["leme"])
		}
		return
	}
	fmt.Println("| | Leme | original | ratio |\n|---|---|---|---|")
	for _, r := range t.rows {
		fmt.Printf("| %s | %.0f | %.0f | %.2f |\n", r.name, r.values["leme"], r.values["original"], r.values["leme"]/r.values["original"])
	}
}
