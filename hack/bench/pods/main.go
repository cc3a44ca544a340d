// Command pods measures how long one node takes to run many pods at once, beside the
// bare CRI calls for the same pods on the same containerd: what the cluster adds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

var (
	runs  = flag.Int("runs", 3, "how often each is measured")
	count = flag.Int("pods", 50, "how many pods are started at once")
	width = flag.Int("parallel", 8, "how many bare CRI calls are made at a time")
)

const (
	image     = "registry.k8s.io/pause:3.10.2"
	namespace = "bench"
)

func main() { bench.Main("pods", run) }

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "leme-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%d pods at once, medians of %d runs\n\n| | all Running, s | bare CRI calls, s | ratio |\n|---|---|---|---|\n", *count, *runs)
	for _, c := range bench.Clusters(dir) {
		if err := measure(ctx, c); err != nil {
			return errors.Join(err, c.Do("down"))
		}
		if err := c.Do("down"); err != nil {
			return err
		}
	}
	return nil
}

func measure(ctx context.Context, c *bench.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	wait, err := c.Up()
	if err != nil {
		return err
	}
	if err := wait(); err != nil {
		return err
	}
	client, _, err := c.Client(ctx)
	if err != nil {
		return err
	}
	runtime, err := remote.NewRemoteRuntimeService(ctx, "unix://"+filepath.Join(c.DataDir, "run", "containerd.sock"), time.Minute, nil, false)
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	var through, bare []time.Duration
	var ratios []float64
	for range *runs {
		t, err := throughAPI(ctx, client)
		if err != nil {
			return err
		}
		b, err := bareCRI(ctx, runtime)
		if err != nil {
			return err
		}
		through, bare, ratios = append(through, t), append(bare, b), append(ratios, t.Seconds()/b.Seconds())
	}
	fmt.Printf("| %s | %.2f | %.2f | %.2f |\n", c.Name, bench.Median(through).Seconds(), bench.Median(bare).Seconds(), bench.Median(ratios))
	return nil
}

// throughAPI makes all pods, waits until they run, and removes them.
func throughAPI(ctx context.Context, client *kubernetes.Clientset) (time.Duration, error) {
	pods := client.CoreV1().Pods(namespace)
	for { // the namespace's ServiceAccount must be there
		_, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			break
		}
		if err := errors.Join(bench.Pause(ctx)); err != nil {
			return 0, err
		}
	}
	watch, err := pods.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	defer watch.Stop()
	began := time.Now()
	err = inParallel(*count, func(i int) error {
		_, err := pods.Create(ctx, &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("pause-", i)},
			Spec: v1.PodSpec{
				TerminationGracePeriodSeconds: ptr.To[int64](0),
				AutomountServiceAccountToken:  ptr.To(false),
				Containers:                    []v1.Container{{Name: "c", Image: image}},
			},
		}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return 0, err
	}
	running := map[string]bool{}
	for len(running) < *count {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d pods run: %w", len(running), *count, ctx.Err())
		case e, ok := <-watch.ResultChan():
			if !ok {
				return 0, errors.New("the watch of pods ended")
			}
			if pod, isPod := e.Object.(*v1.Pod); isPod && pod.Status.Phase == v1.PodRunning {
				running[pod.Name] = true
			}
		}
	}
	took := time.Since(began)
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	for {
		list, err := pods.List(ctx, metav1.ListOptions{})
		if err != nil {
			return 0, err
		}
		if len(list.Items) == 0 {
			return took, nil
		}
		if err := bench.Pause(ctx); err != nil {
			return 0, err
		}
	}
}

// bareCRI makes the same sandboxes and containers without a kubelet.
func bareCRI(ctx context.Context, runtime internalapi.RuntimeService) (time.Duration, error) {
	sandboxes := make([]string, *count)
	slots := make(chan struct{}, *width)
	began := time.Now()
	err := inParallel(*count, func(i int) error {
		slots <- struct{}{}
		defer func() { <-slots }()
		config := &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: fmt.Sprint("bare-", i), Namespace: "bare", Uid: fmt.Sprint("bare-", i)},
			Labels:   map[string]string{"leme.dev/bench": "bare"}, // not Kubernetes' own: the kubelet leaves it alone
			Linux:    &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{}}},
		}
		sandbox, err := runtime.RunPodSandbox(ctx, config, "")
		if err != nil {
			return err
		}
		sandboxes[i] = sandbox
		container, err := runtime.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"},
			Image:    &runtimeapi.ImageSpec{Image: image},
		}, config)
		if err != nil {
			return err
		}
		return runtime.StartContainer(ctx, container)
	})
	took := time.Since(began)
	return took, errors.Join(err, inParallel(*count, func(i int) error {
		if sandboxes[i] == "" {
			return nil
		}
		slots <- struct{}{}
		defer func() { <-slots }()
		return errors.Join(runtime.StopPodSandbox(ctx, sandboxes[i]), runtime.RemovePodSandbox(ctx, sandboxes[i]))
	}))
}

func inParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
