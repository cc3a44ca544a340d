package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	clientrest "k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

// encodings are what clients speak.
var encodings = []struct{ name, contentType string }{
	{"protobuf", "application/vnd.kubernetes.protobuf"}, {"JSON", "application/json"},
}

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
	{"list of 500", 50, func(ctx context.Context, client kubernetes.Interface, ns string, _ int) error {
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

// measureRequests measures each kind of request at each number of clients in each encoding.
func measureRequests(ctx context.Context, s *server, t *bench.Table, counts []int) error {
	for _, e := range encodings {
		for _, n := range counts {
			clients, err := s.clients(n, e.contentType)
			if err != nil {
				return err
			}
			ns := fmt.Sprintf("%s-%d", map[bool]string{true: "p", false: "j"}[e.name == "protobuf"], n)
			if err := createNamespace(ctx, clients[0], ns); err != nil {
				return err
			}
			for _, k := range kinds {
				name := fmt.Sprintf("%s, %s, %d clients: requests per CPU-second", k.name, e.name, n)
				var rate float64
				if err := s.profile(ctx, fmt.Sprintf("%s-%s-%d", k.name, e.name, n), func() error {
					rate, err = s.rate(ctx, clients, *requests/k.every, func(client kubernetes.Interface, i int) error { return k.do(ctx, client, ns, i) })
					return err
				}); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				t.Add(s.name, name, rate)
			}
		}
		if err := measureFanOut(ctx, s, t, e.name, e.contentType); err != nil {
			return err
		}
	}
	return nil
}

// clients returns clients that each have a connection of their own, which is open.
func (s *server) clients(n int, contentType string) ([]kubernetes.Interface, error) {
	list := make([]kubernetes.Interface, n)
	for i := range list {
		config := clientrest.CopyConfig(s.Config)
		config.ContentType, config.AcceptContentTypes = contentType, contentType
		config.Dial = (&net.Dialer{}).DialContext // one that no other client has
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		if _, err := client.CoreV1().Namespaces().Get(context.Background(), "default", metav1.GetOptions{}); err != nil {
			return nil, err
		}
		list[i] = client
	}
	return list, nil
}

// rate sends requests from all clients at once, and returns how many the server answers in
// a second of processor time.
func (s *server) rate(ctx context.Context, clients []kubernetes.Interface, count int, send func(kubernetes.Interface, int) error) (float64, error) {
	before, err := s.usage()
	if err != nil {
		return 0, err
	}
	var next atomic.Int64
	errs := make(chan error, len(clients))
	for _, client := range clients {
		go func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= count || ctx.Err() != nil {
					errs <- ctx.Err()
					return
				}
				if err := send(client, i); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	var all []error
	for range clients {
		all = append(all, <-errs)
	}
	if err := errors.Join(all...); err != nil {
		return 0, err
	}
	after, err := s.usage()
	return float64(count) / (after.CPU - before.CPU).Seconds(), err
}

// measureFanOut changes pods that many watch.
func measureFanOut(ctx context.Context, s *server, t *bench.Table, encoding, contentType string) error {
	clients, err := s.clients(1+*watchers, contentType)
	if err != nil {
		return err
	}
	ns := map[bool]string{true: "watched-p", false: "watched-j"}[encoding == "protobuf"]
	if err := createNamespace(ctx, clients[0], ns); err != nil {
		return err
	}
	count := *requests / 8
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen sync.WaitGroup
	var ended atomic.Bool
	for _, client := range clients[1:] {
		w, err := client.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		seen.Go(func() {
			defer w.Stop()
			for range count {
				if _, open := <-w.ResultChan(); !open {
					ended.Store(true)
					return
				}
			}
		})
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	for i := range count {
		if _, err := clients[0].CoreV1().Pods(ns).Create(ctx, pod(i), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	seen.Wait()
	if ended.Load() {
		return errors.New("a watch ended before it had seen everything")
	}
	after, err := s.usage()
	t.Add(s.name, fmt.Sprintf("watch, %s, %d watchers: events per CPU-second", encoding, *watchers),
		float64(count**watchers)/(after.CPU-before.CPU).Seconds())
	return err
}

// measurePods measures what many pods, and those who watch them, cost in memory.
func measurePods(ctx context.Context, s *server, t *bench.Table) error {
	if *pods == 0 {
		return nil
	}
	clients, err := s.clients(16, encodings[0].contentType)
	if err != nil {
		return err
	}
	if err := createNamespace(ctx, clients[0], "many"); err != nil {
		return err
	}
	if _, err := s.rate(ctx, clients, *pods, func(client kubernetes.Interface, i int) error {
		_, err := client.CoreV1().Pods("many").Create(ctx, pod(i), metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	watching, err := s.clients(*watchers, encodings[0].contentType)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, client := range watching {
		w, err := client.CoreV1().Pods("many").Watch(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return err
		}
		for range *pods {
			if _, open := <-w.ResultChan(); !open {
				return errors.New("a watch ended")
			}
		}
	}
	return s.memory(ctx, t, fmt.Sprintf("memory with %d pods and %d watchers, MiB", *pods, *watchers), "pods")
}

// measureCRDs measures what definitions of custom resources cost in memory.
func measureCRDs(ctx context.Context, s *server, t *bench.Table) error {
	if *crds == 0 {
		return nil
	}
	if err := s.memory(ctx, t, "memory of a server at rest, MiB", "rest"); err != nil {
		return err
	}
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
	// Users ask for them, and for what describes them.
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
	if err := typed.RESTClient().Get().AbsPath("/openapi/v2").Do(ctx).Error(); err != nil {
		return err
	}
	return s.memory(ctx, t, fmt.Sprintf("memory with %d definitions, MiB", *crds), "definitions")
}

// memory measures resident memory after a rest, and takes a profile of it if that is wanted.
func (s *server) memory(ctx context.Context, t *bench.Table, name, profile string) error {
	time.Sleep(*rest)
	u, err := s.usage()
	if err != nil {
		return err
	}
	t.Add(s.name, name, float64(u.Resident)/(1<<20))
	if *profiles == "" {
		return nil
	}
	return bench.HeapProfile(ctx, s.Config, filepath.Join(*profiles, s.name+"-"+profile+".pprof"))
}

func createNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

func podName(i int) string { return fmt.Sprintf("web-7d4b9c6f5-%05d", i) }

// pod is like those of a Deployment.
func pod(i int) *corev1.Pod {
	amounts := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/check", "--fast"}}}, PeriodSeconds: 5}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        podName(i),
			Labels:      map[string]string{"app": "web", "pod-template-hash": "7d4b9c6f5", "tier": "front"},
			Annotations: map[string]string{"example.com/checksum": "8f14e45fceea167a5a36dedd4bea2543"},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/web:1.2.3", Args: []string{"--listen=:8080", "--verbose"},
				Env:            []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "two"}},
				Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Resources:      corev1.ResourceRequirements{Requests: amounts, Limits: amounts},
				ReadinessProbe: probe, LivenessProbe: probe,
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
			}},
			Volumes:                       []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
			NodeSelector:                  map[string]string{"disk": "ssd"},
			TerminationGracePeriodSeconds: ptr.To[int64](30),
		},
	}
}

// definition is like those of operators: some dozens of fields with descriptions, and status.
func definition(i int) (*unstructured.Unstructured, error) {
	text := func(description string) map[string]any {
		return map[string]any{"type": "string", "description": description, "maxLength": int64(253)}
	}
	fields := map[string]any{}
	for f := range 40 {
		fields[fmt.Sprint("field", f)] = map[string]any{"type": "object", "description": "One of many settings of a thing, which has parts of its own.",
			"properties": map[string]any{"name": text("The name of the part."), "value": text("What the part is set to."), "from": text("Where the value comes from.")}}
	}
	names := map[string]any{"plural": fmt.Sprint("things", i), "singular": fmt.Sprint("thing", i), "kind": fmt.Sprint("Thing", i), "listKind": fmt.Sprintf("Thing%dList", i)}
	crd := map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": fmt.Sprintf("things%d.bench.example.com", i)},
		"spec": map[string]any{"group": "bench.example.com", "scope": "Namespaced", "names": names, "versions": []any{map[string]any{
			"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{
				"spec": map[string]any{"type": "object", "properties": fields}, "status": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true},
			}}},
		}}},
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&unstructured.Unstructured{Object: crd})
	return &unstructured.Unstructured{Object: content}, err
}
