package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	clientrest "k8s.io/client-go/rest"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

// An encoding is what clients speak.
type encoding struct{ name, contentType string }

var (
	protobuf  = encoding{"protobuf", "application/vnd.kubernetes.protobuf"}
	encodings = []encoding{protobuf, {"JSON", "application/json"}}
)

// A kind of request. do sends the i-th one.
type kind struct {
	name string
	// every says that one is sent where many of the others are.
	every int
	do    func(ctx context.Context, client kubernetes.Interface, namespace string, i int) error
}

// kinds of requests, in the order in which they are sent: all but the first find the pods of the first.
var kinds = []kind{
	{"create", 1, func(ctx context.Context, client kubernetes.Interface, ns string, i int) error {
		_, err := client.CoreV1().Pods(ns).Create(ctx, pod(i), metav1.CreateOptions{})
		return err
	}},
	{"get", 1, func(ctx context.Context, client kubernetes.Interface, ns string, i int) error {
		_, err := client.CoreV1().Pods(ns).Get(ctx, podName(i), metav1.GetOptions{})
		return err
	}},
	{"list of 500", 20, func(ctx context.Context, client kubernetes.Interface, ns string, _ int) error {
		_, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{Limit: 500})
		return err
	}},
	{"patch", 1, func(ctx context.Context, client kubernetes.Interface, ns string, i int) error {
		_, err := client.CoreV1().Pods(ns).Patch(ctx, podName(i), types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"patched":"yes"}}}`), metav1.PatchOptions{})
		return err
	}},
	{"apply", 1, func(ctx context.Context, client kubernetes.Interface, ns string, i int) error {
		text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"labels":{"applied":"yes"}}}`, podName(i))
		_, err := client.CoreV1().Pods(ns).Patch(ctx, podName(i), types.ApplyPatchType, []byte(text), metav1.PatchOptions{FieldManager: "bench"})
		return err
	}},
	{"delete", 1, func(ctx context.Context, client kubernetes.Interface, ns string, i int) error {
		return client.CoreV1().Pods(ns).Delete(ctx, podName(i), *metav1.NewDeleteOptions(0))
	}},
}

// warmUp is how many requests of each kind are sent before any is measured.
const warmUp = 200

// measureRequests measures each kind of request at each number of clients in each encoding.
func measureRequests(ctx context.Context, servers []*server, t *bench.Table, counts []int) error {
	for _, e := range encodings {
		for _, s := range servers {
			if err := s.warmUp(ctx, e); err != nil {
				return fmt.Errorf("%s, warming up: %w", s.name, err)
			}
		}
		for _, n := range counts {
			if err := measureKinds(ctx, servers, t, e, n); err != nil {
				return err
			}
		}
		if err := measureFanOut(ctx, servers, t, e); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	return nil
}

func (s *server) warmUp(ctx context.Context, e encoding) error {
	clients, ns, err := s.clients(ctx, 4, e, "warm")
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if err := k.send(ctx, clients, ns, 0, warmUp/k.every); err != nil {
			return err
		}
	}
	return nil
}

func measureKinds(ctx context.Context, servers []*server, t *bench.Table, e encoding, n int) error {
	clients, namespace := map[*server][]kubernetes.Interface{}, ""
	for _, s := range servers {
		var err error
		if clients[s], namespace, err = s.clients(ctx, n, e, fmt.Sprint("n", n)); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for _, k := range kinds {
		name := fmt.Sprintf("%s, %s, %d clients: requests per CPU-second", k.name, e.name, n)
		count := max(1, *requests / *rounds / k.every)
		if err := inTurns(servers, *rounds, func(s *server, round int) error {
			send := func() error { return k.send(ctx, clients[s], namespace, round*count, count) }
			if round == *rounds-1 && *profiles != "" {
				return s.profile(ctx, fmt.Sprintf("%s-%s-%d", k.name, e.name, n), send)
			}
			cost, err := s.cost(send)
			t.Add(s.name, name, float64(count)/cost.Seconds())
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// clients returns clients that each have a connection of their own, which is open, and a namespace for them.
func (s *server) clients(ctx context.Context, n int, e encoding, purpose string) ([]kubernetes.Interface, string, error) {
	list := make([]kubernetes.Interface, n)
	for i := range list {
		config := clientrest.CopyConfig(s.Config)
		config.ContentType, config.AcceptContentTypes = e.contentType, e.contentType
		config.Dial = (&net.Dialer{}).DialContext // one that no other client has
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, "", err
		}
		if _, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return nil, "", err
		}
		list[i] = client
	}
	ns := &corev1.Namespace{}
	ns.Name = purpose + map[bool]string{true: "-p", false: "-j"}[e == protobuf]
	_, err := list[0].CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	return list, ns.Name, err
}

// send sends so many requests from all clients at once.
func (k kind) send(ctx context.Context, clients []kubernetes.Interface, namespace string, first, count int) error {
	return bench.InParallel(ctx, len(clients), len(clients), func(c int) error {
		for i := c; i < count; i += len(clients) {
			if err := k.do(ctx, clients[c], namespace, first+i); err != nil {
				return err
			}
		}
		return nil
	})
}

// measureFanOut creates pods that many watch.
func measureFanOut(ctx context.Context, servers []*server, t *bench.Table, e encoding) error {
	count := max(1, *requests/8 / *rounds)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		clients   = map[*server][]kubernetes.Interface{}
		seen      = map[*server]func(events int) error{}
		namespace string
	)
	for _, s := range servers {
		var err error
		if clients[s], namespace, err = s.clients(ctx, 1+*watchers, e, "watched"); err != nil {
			return err
		}
		if seen[s], err = watchAll(ctx, clients[s][1:], namespace, metav1.ListOptions{}); err != nil {
			return err
		}
	}
	return inTurns(servers, *rounds, func(s *server, round int) error {
		cost, err := s.cost(func() error {
			if err := kinds[0].send(ctx, clients[s][:1], namespace, round*count, count); err != nil {
				return err
			}
			return seen[s](count)
		})
		t.Add(s.name, fmt.Sprintf("watch, %s, %d watchers: events per CPU-second", e.name, *watchers), float64(count**watchers)/cost.Seconds())
		return err
	})
}

// watchAll has each client watch the pods of a namespace. What it returns waits until each has seen so many events more.
func watchAll(ctx context.Context, clients []kubernetes.Interface, namespace string, options metav1.ListOptions) (func(events int) error, error) {
	var (
		seen  atomic.Int64 // by all of them
		want  int64
		ended atomic.Bool
	)
	for _, client := range clients {
		w, err := client.CoreV1().Pods(namespace).Watch(ctx, options)
		if err != nil {
			return nil, err
		}
		go func() {
			for range w.ResultChan() {
				seen.Add(1)
			}
			ended.Store(true)
		}()
	}
	return func(events int) error {
		want += int64(events * len(clients))
		for seen.Load() < want {
			if ended.Load() {
				return errors.New("a watch ended before it had seen everything")
			}
			if err := bench.Pause(ctx); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
