package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

// memory is what -shapes calls the measurement of memory.
const memory = "memory"

// measureMemory measures what schedulers hold, after a rest, of one cluster whose nodes have many pods.
func measureMemory(ctx context.Context, binaries []bench.Binary, t *bench.Table) (err error) {
	server, client, err := startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	c := &cluster{client: client}
	if err := c.fill(ctx); err != nil {
		return err
	}
	if err := bench.InParallel(ctx, *clients, *held, func(i int) error {
		pod := newPod(fmt.Sprintf("held-%06d", i), fmt.Sprint("app-", i%100), amounts("10m", "32Mi"))
		pod.Spec.NodeName = nodeName(i % *nodes)
		_, err := client.CoreV1().Pods(others).Create(ctx, pod, metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	for _, b := range binaries {
		if err := c.hold(ctx, server, b, t); err != nil {
			return fmt.Errorf("%s: %w\n%s", b.Name, err, server.LogOf(b.Path))
		}
	}
	return nil
}

// hold starts a scheduler, lets it rest once it knows the cluster, and stops it.
func (c *cluster) hold(ctx context.Context, server *bench.Server, b bench.Binary, t *bench.Table) error {
	sched, err := startScheduler(ctx, server, b.Path)
	if err != nil {
		return err
	}
	if err := c.warmUp(ctx, "first-of-"+b.Name); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(*rest):
	}
	usage, err := bench.ProcessUsage(sched.process.Pid)
	if err != nil {
		return err
	}
	t.Add(b.Name, fmt.Sprintf("memory with %d pods, MiB", *held), float64(usage.Resident)/(1<<20))
	if *profiles != "" {
		if err := bench.HeapProfile(ctx, sched.config, filepath.Join(*profiles, b.Name+"-memory.pprof")); err != nil {
			return err
		}
	}
	return sched.process.Kill()
}
