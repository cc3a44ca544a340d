// Command startup measures how long a cluster takes to start and what it uses when it
// is idle, Leme's and one of the original components, in turn, on this machine.
//
// A cold start makes everything: certificates, data, imported images. A warm start
// comes back from `leme stop`. From the beginning of `leme up` it takes the time until
//
//	the API server is ready, the node is Ready, a pod made as soon as possible runs,
//	and another pod reaches a Service of an application by its DNS name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

var (
	runs = flag.Int("runs", 3, "how often each start is measured")
	idle = flag.Duration("idle", time.Minute, "how long an idle cluster is watched")
)

const image = "registry.k8s.io/e2e-test-images/busybox:1.37.0-2"

// steps are measured from the beginning of `leme up`.
var steps = []string{"API ready", "node Ready", "first pod Running", "application and DNS"}

// result has all times of a cluster, by kind of start and step.
type result struct {
	times    map[string][][]time.Duration // "cold", "warm"
	resident []int64
	cpu      []float64 // percent of a core
}

func main() { bench.Main("startup", run) }

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "leme-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	clusters := bench.Clusters(dir)
	results := map[string]*result{}
	for range *runs {
		for _, c := range clusters {
			r := results[c.Name]
			if r == nil {
				r = &result{times: map[string][][]time.Duration{}}
				results[c.Name] = r
			}
			if err := r.measure(ctx, c); err != nil {
				return errors.Join(err, c.Do("down"))
			}
		}
	}
	report(clusters, results)
	return nil
}

func (r *result) measure(ctx context.Context, c *bench.Cluster) error {
	for _, kind := range []string{"cold", "warm"} {
		times, err := start(ctx, c)
		if err != nil {
			return fmt.Errorf("%s start of %s: %w", kind, c.Name, err)
		}
		r.times[kind] = append(r.times[kind], times)
		if kind == "warm" {
			break
		}
		if err := c.Do("stop"); err != nil {
			return err
		}
	}
	// What was started takes a while to settle.
	if err := bench.Rest(ctx, 20*time.Second); err != nil {
		return err
	}
	before, err := c.Usage()
	if err != nil {
		return err
	}
	if err := bench.Rest(ctx, *idle); err != nil {
		return err
	}
	after, err := c.Usage()
	if err != nil {
		return err
	}
	r.resident = append(r.resident, after.Resident)
	r.cpu = append(r.cpu, 100*float64(after.CPU-before.CPU)/float64(*idle))
	return c.Do("down")
}

// start starts a cluster, uses it as soon as it can be used, and returns the times.
func start(ctx context.Context, c *bench.Cluster) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	began := time.Now()
	wait, err := c.Up()
	if err != nil {
		return nil, err
	}
	client, _, err := c.Client(ctx)
	if err != nil {
		return nil, errors.Join(err, wait())
	}
	up := make(chan error, 1)
	go func() { up <- wait() }()
	var times []time.Duration
	for _, step := range []func(context.Context, *kubernetes.Clientset) (bool, error){ready, nodeReady(began), podRunning, reached} {
		for {
			done, err := step(ctx, client)
			if err != nil {
				return nil, err
			}
			if done {
				break
			}
			select {
			case err := <-up:
				if err != nil {
					return nil, err
				}
				up <- nil
			default:
			}
			if err := bench.Pause(ctx); err != nil {
				return nil, fmt.Errorf("waiting for: %s: %w", steps[len(times)], err)
			}
		}
		times = append(times, time.Since(began))
	}
	if err := <-up; err != nil {
		return nil, err
	}
	background := metav1.DeletePropagationBackground
	if err := client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		return nil, err
	}
	for {
		if _, err := client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			return times, nil
		}
		if err := bench.Pause(ctx); err != nil {
			return nil, fmt.Errorf("waiting for the namespace to go: %w", err)
		}
	}
}

const namespace = "bench"

// ready makes everything that is measured later as soon as the API server lets it.
func ready(ctx context.Context, client *kubernetes.Clientset) (bool, error) {
	if err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return false, nil
	}
	return true, nil
}

// nodeReady asks whether the kubelet has said, since the start began, that the node is
// Ready; what the cluster remembers from before does not count.
func nodeReady(began time.Time) func(context.Context, *kubernetes.Clientset) (bool, error) {
	began = began.Truncate(time.Second) // as precise as the API is
	return func(ctx context.Context, client *kubernetes.Clientset) (bool, error) {
		if err := makeAll(ctx, client); err != nil {
			return false, err
		}
		return heardFrom(ctx, client, began)
	}
}

func heardFrom(ctx context.Context, client *kubernetes.Clientset, began time.Time) (bool, error) {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	for i := range nodes.Items {
		for _, cond := range nodes.Items[i].Status.Conditions {
			if cond.Type == v1.NodeReady && cond.Status == v1.ConditionTrue && !cond.LastHeartbeatTime.Time.Before(began) {
				return true, nil
			}
		}
	}
	return false, nil
}

func podRunning(ctx context.Context, client *kubernetes.Clientset) (bool, error) {
	if err := makeAll(ctx, client); err != nil {
		return false, err
	}
	return phase(ctx, client, "first", v1.PodRunning)
}

func reached(ctx context.Context, client *kubernetes.Clientset) (bool, error) {
	return phase(ctx, client, "visitor", v1.PodSucceeded)
}

func phase(ctx context.Context, client *kubernetes.Clientset, name string, want v1.PodPhase) (bool, error) {
	pod, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil && pod.Status.Phase == want, err
}

// makeAll makes what is not there yet. A pod is refused until the controller manager
// has made the namespace's ServiceAccount; it is tried again then.
func makeAll(ctx context.Context, client *kubernetes.Clientset) error {
	web := []string{"sh", "-c", "mkdir /www; echo ok > /www/index.html; exec httpd -f -p 8080 -h /www"}
	visit := []string{"sh", "-c", "until timeout 1 wget -q -O - http://web." + namespace + ".svc.cluster.local; do sleep 0.1; done"}
	labels := map[string]string{"app": "web"}
	opts := metav1.CreateOptions{}
	for _, create := range []func() error{
		func() error {
			_, err := client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, opts)
			return err
		},
		func() error {
			_, err := client.CoreV1().Services(namespace).Create(ctx, &v1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: "web"},
				Spec:       v1.ServiceSpec{Selector: labels, Ports: []v1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
			}, opts)
			return err
		},
		func() error {
			_, err := client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: "web"},
				Spec: appsv1.DeploymentSpec{
					Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec(web, v1.RestartPolicyAlways)},
				},
			}, opts)
			return err
		},
		func() error {
			_, err := client.CoreV1().Pods(namespace).Create(ctx, &v1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "first"}, Spec: podSpec([]string{"sleep", "3600"}, v1.RestartPolicyAlways),
			}, opts)
			return err
		},
		func() error {
			_, err := client.CoreV1().Pods(namespace).Create(ctx, &v1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "visitor"}, Spec: podSpec(visit, v1.RestartPolicyNever),
			}, opts)
			return err
		},
	} {
		err := create()
		if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

func podSpec(command []string, restart v1.RestartPolicy) v1.PodSpec {
	return v1.PodSpec{
		RestartPolicy:                 restart,
		TerminationGracePeriodSeconds: ptr.To[int64](0),
		Containers:                    []v1.Container{{Name: "c", Image: image, Command: command}},
	}
}

func report(clusters []*bench.Cluster, results map[string]*result) {
	fmt.Printf("medians of %d runs\n\n| |", *runs)
	for _, c := range clusters {
		fmt.Printf(" %s |", c.Name)
	}
	fmt.Print("\n|---|")
	for range clusters {
		fmt.Print("---|")
	}
	fmt.Println()
	for _, kind := range []string{"cold", "warm"} {
		for i, step := range steps {
			fmt.Printf("| %s start: %s, s |", kind, step)
			for _, c := range clusters {
				var list []time.Duration
				for _, times := range results[c.Name].times[kind] {
					list = append(list, times[i])
				}
				fmt.Printf(" %.2f |", bench.Median(list).Seconds())
			}
			fmt.Println()
		}
	}
	fmt.Print("| idle: resident memory, MiB |")
	for _, c := range clusters {
		fmt.Printf(" %d |", bench.Median(results[c.Name].resident)>>20)
	}
	fmt.Print("\n| idle: CPU, % of a core |")
	for _, c := range clusters {
		fmt.Printf(" %.1f |", bench.Median(results[c.Name].cpu))
	}
	fmt.Println()
}
