// Command scheduler measures what a pod costs the scheduler, how long it waits for its node, and what a scheduler holds in memory: Leme's and
// the original, one after the other on an API server of Leme and an etcd of its own, with nodes that nobody runs.
//
// The unit is the processor time that the scheduler's process has used, as the kernel counts it, so that what
// else the machine does matters little. Pods per second and waiting include the API server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	clientrest "k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

var (
	nodes    = flag.Int("nodes", 5000, "nodes of the cluster, in ten zones")
	pods     = flag.Int("pods", 10000, "pods that are created; a tenth of them where they must preempt others")
	held     = flag.Int("held", 50000, "pods that are on the nodes when memory is measured")
	rest     = flag.Duration("rest", time.Minute, "how long schedulers rest before their memory is measured")
	wanted   = flag.String("shapes", "", "shapes of pods that are measured, and \"memory\"; empty for all")
	runs     = flag.Int("runs", 1, "how often each is measured")
	clients  = flag.Int("clients", 16, "how many create pods at once")
	patience = flag.Duration("timeout", 20*time.Minute, "how long one shape may take")
	recorded = flag.Bool("record", false, "measure Leme once more, while it records all that it sees and decides (--record-to)")
	profiles = flag.String("profiles", "", "directory for processor profiles of the schedulers; empty takes none")
)

func main() { bench.Main("scheduler", run) }

func run(ctx context.Context) error {
	list, holding := shapes, true
	if *wanted != "" {
		list, holding = nil, false
		for _, name := range strings.Split(*wanted, ",") {
			if name == memory {
				holding = true
				continue
			}
			i := slices.IndexFunc(shapes, func(s shape) bool { return s.name == name })
			if i < 0 {
				return fmt.Errorf("-shapes: there is no %q", name)
			}
			list = append(list, shapes[i])
		}
	}
	fmt.Printf("%d nodes, %d pods, medians of %d runs\n\n", *nodes, *pods, *runs)
	t := &bench.Table{}
	binaries := bench.Binaries("kube-scheduler")
	for range *runs {
		for _, s := range list {
			for _, b := range binaries {
				if err := measure(ctx, b, s, false, t); err != nil {
					return fmt.Errorf("%s, %s: %w", b.Name, s.name, err)
				}
				if !*recorded || b.Name != bench.Leme {
					continue
				}
				if err := measure(ctx, b, s, true, t); err != nil {
					return fmt.Errorf("%s, %s, recorded: %w", b.Name, s.name, err)
				}
			}
		}
	}
	if holding {
		if err := measureMemory(ctx, binaries, t); err != nil {
			return fmt.Errorf("memory: %w", err)
		}
	}
	t.Print(len(binaries) > 1)
	return nil
}

// measure measures one scheduler with one shape, on a cluster that is made for it.
func measure(ctx context.Context, b bench.Binary, s shape, record bool, t *bench.Table) (err error) {
	ctx, cancel := context.WithTimeout(ctx, *patience)
	defer cancel()
	server, client, err := startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	c := &cluster{client: client, shape: s}
	if err := c.fill(ctx); err != nil {
		return err
	}
	var flags []string
	called, recording := s.name, server.File("recording")
	if record {
		called += ", recorded"
		flags = append(flags, "--record-to="+recording)
	}
	sched, err := startScheduler(ctx, server, b.Path, flags...)
	if err != nil {
		return err
	}
	if err := c.warmUp(ctx, "first"); err != nil {
		return fmt.Errorf("%w\n%s", err, server.LogOf(b.Path))
	}
	before, err := bench.ProcessUsage(sched.process.Pid)
	if err != nil {
		return err
	}
	var r result
	schedule := func() error { r, err = c.schedule(ctx); return err }
	if *profiles == "" {
		err = schedule()
	} else {
		err = bench.Profile(ctx, sched.config, filepath.Join(*profiles, b.Name+"-"+called+".pprof"), schedule)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, server.LogOf(b.Path))
	}
	after, err := bench.ProcessUsage(sched.process.Pid)
	if err != nil {
		return err
	}
	n := float64(len(r.waits))
	t.Add(b.Name, called+": pods per second", n/r.took.Seconds())
	t.Add(b.Name, called+": scheduler CPU, ms per pod", (after.CPU-before.CPU).Seconds()*1000/n)
	t.Add(b.Name, called+": creation to binding, p50, ms", r.percentile(50))
	t.Add(b.Name, called+": creation to binding, p99, ms", r.percentile(99))
	if !record {
		return nil
	}
	file, err := os.Stat(recording)
	if err != nil {
		return err
	}
	t.Add(b.Name, called+": recording, KiB per pod", float64(file.Size())/1024/n)
	return nil
}

// startServer starts an API server, in which nodes are as they are made, and returns a client of it.
func startServer(ctx context.Context) (*bench.Server, kubernetes.Interface, error) {
	server, err := bench.StartServer(ctx, filepath.Join(*bench.Bin, "kube-apiserver"), "--disable-admission-plugins=TaintNodesByCondition")
	if err != nil {
		return nil, nil, err
	}
	config := clientrest.CopyConfig(server.Config)
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, errors.Join(err, server.Stop())
	}
	return server, client, nil
}

// result is how long it took until all pods had their node, and how long each waited, in order.
type result struct {
	took  time.Duration
	waits []time.Duration
}

func (r result) percentile(p int) float64 {
	return r.waits[(len(r.waits)-1)*p/100].Seconds() * 1000
}
