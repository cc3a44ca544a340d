// Command controllers measures what a controller manager costs while Deployments come, change and go: Leme's and
// the original, one after the other on an API server of Leme and an etcd of its own, with nodes whose kubelets
// are played here and do at once what they are asked for.
//
// Processor time and memory are those of the manager's process, as the kernel counts them; requests are
// those that it counts itself (rest_client_requests_total). The time to a steady state includes the API server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	clientrest "k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

var (
	deployments = flag.Int("deployments", 200, "Deployments that are created")
	pods        = flag.Int("pods", 20, "pods of each")
	nodes       = flag.Int("nodes", 50, "nodes that the pods are bound to in turn")
	runs        = flag.Int("runs", 1, "how often each manager is measured")
	clients     = flag.Int("clients", 16, "how many create and change Deployments at once, and as many play kubelets")
	qps         = flag.Int("qps", 10000, "limit of requests a second that both managers are given; 0 leaves each its default")
	rest        = flag.Duration("rest", 10*time.Second, "time of rest before and after, which is measured as well")
	patience    = flag.Duration("timeout", 20*time.Minute, "how long one manager may take")
	profiles    = flag.String("profiles", "", "directory for profiles of the managers, of the processor and of the heap; empty takes none")
)

func main() { bench.Main("controllers", run) }

func run(ctx context.Context) error {
	fmt.Printf("%d Deployments of %d pods on %d nodes, medians of %d runs\n\n", *deployments, *pods, *nodes, *runs)
	t := &bench.Table{}
	binaries := bench.Binaries("kube-controller-manager")
	for range *runs {
		for _, b := range binaries {
			if err := measure(ctx, b, t); err != nil {
				return fmt.Errorf("%s: %w", b.Name, err)
			}
		}
	}
	t.Print(len(binaries) > 1)
	return nil
}

// measure measures one manager, on a cluster that is made for it.
func measure(ctx context.Context, b bench.Binary, t *bench.Table) (err error) {
	ctx, cancel := context.WithTimeout(ctx, *patience)
	defer cancel()
	server, err := bench.StartServer(ctx, filepath.Join(*bench.Bin, "kube-apiserver"), "--disable-admission-plugins=TaintNodesByCondition")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	config := clientrest.CopyConfig(server.Config)
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	c, err := newCluster(ctx, client)
	if err != nil {
		return err
	}
	m, err := startManager(ctx, server, b, t)
	if err != nil {
		return err
	}
	if err := c.awaitManager(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, server.LogOf(b.Path))
	}
	idle := func(ctx context.Context) error { return bench.Rest(ctx, *rest) }
	for _, phase := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"rest before", idle},
		{"creation", c.create},
		{"rollout", c.rollout},
		{"rest", idle},
		{"scale to zero", c.scaleToZero},
		{"deletion of the namespace", c.deleteNamespace},
	} {
		if err := m.measure(ctx, phase.name, phase.do); err != nil {
			return fmt.Errorf("%s: %w\n%s", phase.name, err, server.LogOf(b.Path))
		}
	}
	return m.total()
}
