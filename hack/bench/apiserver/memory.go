package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

// measurePods measures what many pods, and those who watch them, cost in memory.
func measurePods(ctx context.Context, servers []*server, t *bench.Table) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := inTurns(servers, 1, func(s *server, _ int) error { return s.createWatchedPods(ctx) }); err != nil {
		return err
	}
	return measureMemory(ctx, servers, t, fmt.Sprintf("memory with %d pods and %d watchers, MiB", *pods, *watchers), "pods")
}

// createWatchedPods creates pods, the last hundredth of them when those are there who watch them all, until ctx ends.
func (s *server) createWatchedPods(ctx context.Context) error {
	clients, namespace, err := s.clients(ctx, 16, protobuf, "many")
	if err != nil {
		return err
	}
	last := *pods / 100
	if err := kinds[0].send(ctx, clients, namespace, 0, *pods-last); err != nil {
		return err
	}
	list, err := clients[0].CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	watching, _, err := s.clients(ctx, *watchers, protobuf, "unused")
	if err != nil {
		return err
	}
	seen, err := watchAll(ctx, watching, namespace, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	if err := kinds[0].send(ctx, clients, namespace, *pods-last, last); err != nil {
		return err
	}
	return seen(last)
}

// measureCRDs measures what definitions of custom resources cost in memory.
func measureCRDs(ctx context.Context, servers []*server, t *bench.Table) error {
	if err := measureMemory(ctx, servers, t, "memory of a server at rest, MiB", "rest"); err != nil {
		return err
	}
	if err := inTurns(servers, 1, func(s *server, _ int) error { return s.createDefinitions(ctx) }); err != nil {
		return err
	}
	return measureMemory(ctx, servers, t, fmt.Sprintf("memory with %d definitions, MiB", *crds), "definitions")
}

// createDefinitions creates definitions. Users ask for what they define, and for what describes it.
func (s *server) createDefinitions(ctx context.Context) error {
	client, err := dynamic.NewForConfig(s.Config)
	if err != nil {
		return err
	}
	api := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for i := range *crds {
		crd, err := definition(i)
		if err != nil {
			return err
		}
		if _, err := api.Create(ctx, crd, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	typed, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		return err
	}
	for i := range *crds {
		path := fmt.Sprintf("/apis/bench.example.com/v1/things%d", i)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			err := typed.RESTClient().Get().AbsPath(path).Do(ctx).Error()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	return typed.RESTClient().Get().AbsPath("/openapi/v2").Do(ctx).Error()
}

// measureMemory measures resident memory after a rest, and takes a profile of it if that is wanted.
func measureMemory(ctx context.Context, servers []*server, t *bench.Table, name, profile string) error {
	time.Sleep(*rest)
	return inTurns(servers, 1, func(s *server, _ int) error {
		u, err := bench.ProcessUsage(s.Process.Pid)
		if err != nil {
			return err
		}
		t.Add(s.name, name, float64(u.Resident)/(1<<20))
		if *profiles == "" {
			return nil
		}
		return bench.HeapProfile(ctx, s.Config, filepath.Join(*profiles, s.name+"-"+profile+".pprof"))
	})
}
