package main

import (
	"context"
	"fmt"
	"math"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/hack/bench/internal/bench"
)

const namespace = "measured"

// A cluster has nodes, whose kubelets are played here, and Deployments, which are followed.
type cluster struct {
	client      kubernetes.Interface
	pods        cache.Store
	deployments cache.Store
	queue       workqueue.TypedInterface[string]

	mu      sync.Mutex
	steady  func(*appsv1.Deployment) bool
	wanted  map[string]int64 // the generation in which each Deployment that is not steady yet is to be
	reached chan struct{}    // closed when none is left
}

func newCluster(ctx context.Context, client kubernetes.Interface) (*cluster, error) {
	c := &cluster{client: client, queue: workqueue.NewTyped[string]()}
	if err := bench.InParallel(ctx, *clients, *nodes, func(i int) error {
		_, err := client.CoreV1().Nodes().Create(ctx, node(i), metav1.CreateOptions{})
		return err
	}); err != nil {
		return nil, err
	}
	f := informers.NewSharedInformerFactory(client, 0)
	informer := f.Core().V1().Pods().Informer()
	c.pods = informer.GetStore()
	changed := func(o any) {
		if pod, ok := o.(*corev1.Pod); ok {
			c.queue.Add(cache.MetaObjectToName(pod).String())
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, o any) { changed(o) }}); err != nil {
		return nil, err
	}
	seen := func(o any) {
		if d, ok := o.(*appsv1.Deployment); ok {
			c.seen(d)
		}
	}
	informer = f.Apps().V1().Deployments().Informer()
	c.deployments = informer.GetStore()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: seen, UpdateFunc: func(_, o any) { seen(o) }}); err != nil {
		return nil, err
	}
	f.StartWithContext(ctx)
	f.WaitForCacheSync(ctx.Done())
	for i := range *clients {
		go c.kubelet(ctx, i)
	}
	context.AfterFunc(ctx, c.queue.ShutDown)
	return c, nil
}

// kubelet takes pods a step further, one after the other. Errors are those of a stale pod, of which a newer version is on its way.
func (c *cluster) kubelet(ctx context.Context, i int) {
	for n := i; ; n += *clients {
		key, shutdown := c.queue.Get()
		if shutdown {
			return
		}
		if o, found, _ := c.pods.GetByKey(key); found {
			c.step(ctx, o.(*corev1.Pod), n)
		}
		c.queue.Done(key)
	}
}

// step binds a pod, lets it run or ends it.
func (c *cluster) step(ctx context.Context, pod *corev1.Pod, n int) {
	api := c.client.CoreV1().Pods(pod.Namespace)
	switch {
	case pod.DeletionTimestamp != nil:
		_ = api.Delete(ctx, pod.Name, *metav1.NewDeleteOptions(0))
	case pod.Spec.NodeName == "":
		_ = api.Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName(n % *nodes)},
		}, metav1.CreateOptions{})
	case pod.Status.Phase == corev1.PodPending:
		pod = pod.DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Status.PodIP = fmt.Sprintf("10.%d.%d.%d", 64+(n>>16)&63, (n>>8)&255, n&255)
		pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		_, _ = api.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	}
}

// awaitManager waits until the manager works: until a namespace has what pods need.
func (c *cluster) awaitManager(ctx context.Context) error {
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	for {
		_, err := c.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		if err := bench.Pause(ctx); err != nil {
			return fmt.Errorf("waiting for a ServiceAccount: %w", err)
		}
	}
}

func (c *cluster) create(ctx context.Context) error {
	return c.change(ctx, running, func(name string) (*appsv1.Deployment, error) {
		return c.client.AppsV1().Deployments(namespace).Create(ctx, deployment(name), metav1.CreateOptions{})
	})
}

func (c *cluster) rollout(ctx context.Context) error {
	return c.patch(ctx, running, `{"spec":{"template":{"metadata":{"annotations":{"version":"2"}}}}}`)
}

func (c *cluster) scaleToZero(ctx context.Context) error {
	gone := func(d *appsv1.Deployment) bool {
		terminating := d.Status.TerminatingReplicas
		return d.Status.Replicas == 0 && (terminating == nil || *terminating == 0)
	}
	if err := c.patch(ctx, gone, `{"spec":{"replicas":0}}`); err != nil {
		return err
	}
	for len(c.pods.ListKeys()) > 0 {
		if err := bench.Pause(ctx); err != nil {
			return fmt.Errorf("%d pods are left: %w", len(c.pods.ListKeys()), err)
		}
	}
	return nil
}

func (c *cluster) deleteNamespace(ctx context.Context) error {
	err := c.client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
	for err == nil {
		if _, err = c.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); err == nil {
			err = bench.Pause(ctx)
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// running says that all pods are of the newest version and available.
func running(d *appsv1.Deployment) bool {
	s, n := d.Status, int32(*pods)
	return s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n
}

func (c *cluster) patch(ctx context.Context, steady func(*appsv1.Deployment) bool, patch string) error {
	return c.change(ctx, steady, func(name string) (*appsv1.Deployment, error) {
		return c.client.AppsV1().Deployments(namespace).Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	})
}

// change changes all Deployments and waits until they are steady again.
func (c *cluster) change(ctx context.Context, steady func(*appsv1.Deployment) bool, do func(name string) (*appsv1.Deployment, error)) error {
	c.mu.Lock()
	c.steady, c.wanted, c.reached = steady, map[string]int64{}, make(chan struct{})
	for i := range *deployments {
		c.wanted[deploymentName(i)] = math.MaxInt64 // until it is changed
	}
	c.mu.Unlock()
	if err := bench.InParallel(ctx, *clients, *deployments, func(i int) error {
		d, err := do(deploymentName(i))
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.wanted[d.Name] = d.Generation
		c.mu.Unlock()
		if o, found, _ := c.deployments.Get(d); found { // it may have been seen already
			c.seen(o.(*appsv1.Deployment))
		}
		return nil
	}); err != nil {
		return err
	}
	select {
	case <-c.reached:
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		return fmt.Errorf("%d Deployments are not steady: %w", len(c.wanted), ctx.Err())
	}
}

// seen takes notice of a Deployment's newest state.
func (c *cluster) seen(d *appsv1.Deployment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	generation, waiting := c.wanted[d.Name]
	if !waiting || d.Generation < generation || d.Status.ObservedGeneration < d.Generation || !c.steady(d) {
		return
	}
	if delete(c.wanted, d.Name); len(c.wanted) == 0 {
		close(c.reached)
	}
}

func deploymentName(i int) string { return fmt.Sprintf("web-%04d", i) }

func deployment(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	amounts := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(int32(*pods)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/web:1.2.3", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "two"}}, Resources: corev1.ResourceRequirements{Requests: amounts},
			}}}},
		},
	}
}

// node returns the i-th node, which is ready.
func node(i int) *corev1.Node {
	amounts := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("1000")}
	name, now := nodeName(i), metav1.Now()
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprint("zone-", i%3)}},
		Status: corev1.NodeStatus{
			Capacity: amounts, Allocatable: amounts,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Fake", LastHeartbeatTime: now, LastTransitionTime: now}},
		},
	}
}

func nodeName(i int) string { return fmt.Sprintf("node-%04d", i) }
