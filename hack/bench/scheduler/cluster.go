package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

// namespaces of the pods that are measured, and of all others.
const (
	measured = "measured"
	others   = "others"
)

// A cluster is nodes and pods that nobody runs.
type cluster struct {
	client kubernetes.Interface
	shape  shape
}

// fill makes the nodes, and the pods that are there before.
func (c *cluster) fill(ctx context.Context) error {
	for _, name := range []string{measured, others} {
		if _, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	high := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: highPriority}, Value: 1000}
	if _, err := c.client.SchedulingV1().PriorityClasses().Create(ctx, high, metav1.CreateOptions{}); err != nil {
		return err
	}
	return bench.InParallel(ctx, *clients, *nodes, func(i int) error {
		if _, err := c.client.CoreV1().Nodes().Create(ctx, node(i), metav1.CreateOptions{}); err != nil || !c.shape.preempts {
			return err
		}
		victim := newPod(fmt.Sprintf("victim-%06d", i), "victim", amounts("3", "1Gi"))
		victim.Spec.NodeName = nodeName(i)
		_, err := c.client.CoreV1().Pods(others).Create(ctx, victim, metav1.CreateOptions{})
		return err
	})
}

// warmUp waits until the scheduler has placed a pod: then it knows all nodes.
func (c *cluster) warmUp(ctx context.Context, name string) error {
	pod := newPod(name, name, amounts("10m", "32Mi"))
	if _, err := c.client.CoreV1().Pods(others).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	for {
		got, err := c.client.CoreV1().Pods(others).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("waiting for the first pod: %w", err)
		}
		if got.Spec.NodeName != "" {
			return nil
		}
		if err := bench.Pause(ctx); err != nil {
			return fmt.Errorf("waiting for the first pod: %w", err)
		}
	}
}

// schedule creates the pods and waits until each has its node.
func (c *cluster) schedule(ctx context.Context) (result, error) {
	count := *pods
	if c.shape.preempts {
		count = min(max(count/10, 1), *nodes)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	none, err := c.client.CoreV1().Pods(measured).List(ctx, metav1.ListOptions{})
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	created := make(chan error, 1)
	go func() {
		err := bench.InParallel(ctx, *clients, count, func(i int) error {
			_, err := c.client.CoreV1().Pods(measured).Create(ctx, c.shape.pod(i), metav1.CreateOptions{})
			return err
		})
		if err != nil {
			cancel()
		}
		created <- err
	}()
	waits, err := c.waits(ctx, none.ResourceVersion, count)
	took := time.Since(began)
	return result{took, waits}, errors.Join(err, <-created)
}

// waits returns how long each pod waited from its creation to its binding, as a watch shows them, in order.
func (c *cluster) waits(ctx context.Context, version string, count int) ([]time.Duration, error) {
	seen := map[string]time.Time{}
	var waits []time.Duration
	bound := map[string]bool{}
	for len(bound) < count { // a server ends the watches of those who are slow to read, as this is on a busy machine
		w, err := c.client.CoreV1().Pods(measured).Watch(ctx, metav1.ListOptions{ResourceVersion: version})
		if err != nil {
			return nil, fmt.Errorf("%d of %d pods have a node: %w", len(bound), count, err)
		}
		for e := range w.ResultChan() {
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				w.Stop()
				return nil, fmt.Errorf("the watch of pods says %v", e.Object)
			}
			version = pod.ResourceVersion
			if _, ok := seen[pod.Name]; !ok {
				seen[pod.Name] = time.Now()
			}
			if pod.Spec.NodeName == "" || bound[pod.Name] {
				continue
			}
			bound[pod.Name] = true
			waits = append(waits, time.Since(seen[pod.Name]))
			if len(bound) == count {
				break
			}
		}
		w.Stop()
	}
	slices.Sort(waits)
	return waits, nil
}
