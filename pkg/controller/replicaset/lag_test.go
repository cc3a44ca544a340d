package replicaset

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
)

// While the cache does not show the pods that the controller has created or deleted,
// other events make it reconcile again. It must neither create nor delete twice.
func TestCacheThatLags(t *testing.T) {
	api := controllertest.StartLaggingAPI(t, map[string]string{"pods": "v1/Pod", "replicasets": "apps/v1/ReplicaSet"})
	c := startController(t, api.Config())
	ctx := t.Context()
	labels := map[string]string{"a": "b"}
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "x"},
		Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}}},
	}
	poke := func(round int) { // an event of the ReplicaSet that changes nothing
		t.Helper()
		eventually(t, "a change", func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(rs), rs); err != nil {
				t.Fatal(err)
			}
			rs.Annotations = map[string]string{"round": fmt.Sprint(round)}
			err := c.Update(ctx, rs)
			return err == nil, fmt.Sprint(err)
		})
	}
	scale := func(n int32) {
		t.Helper()
		eventually(t, "a change", func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(rs), rs); err != nil {
				t.Fatal(err)
			}
			rs.Spec.Replicas = &n
			err := c.Update(ctx, rs)
			return err == nil, fmt.Sprint(err)
		})
	}
	settled := func(n int32) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " replicas in the status"), func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(rs), rs); err != nil {
				t.Fatal(err)
			}
			return rs.Status.Replicas == n, fmt.Sprint(rs.Status.Replicas)
		})
	}
	writes := func(method string, n int) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " times ", method), func() (bool, string) {
			got := api.Writes("pods", method)
			return got == n, fmt.Sprint(got)
		})
	}

	api.Hold("pods")
	if err := c.Create(ctx, rs); err != nil {
		t.Fatal(err)
	}
	writes(http.MethodPost, 3)
	for i := range 5 {
		poke(i)
	}
	api.Release("pods")
	settled(3)
	writes(http.MethodPost, 3)

	api.Hold("pods")
	scale(1)
	writes(http.MethodDelete, 2)
	for i := range 5 {
		poke(i)
	}
	api.Release("pods")
	settled(1)
	writes(http.MethodDelete, 2)

	// The other way round: the pods are seen before the ReplicaSet that they belong to has
	// its new size.
	api.Hold("replicasets")
	scale(4)
	poke(9)
	writes(http.MethodPost, 3)
	api.Release("replicasets")
	settled(4)
	writes(http.MethodPost, 6)
	writes(http.MethodDelete, 2)
}

func startController(t *testing.T, cfg *rest.Config) client.Client {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), meta.RESTScopeNamespace)
	mgr, err := manager.New(cfg, manager.Options{
		Scheme: scheme.Scheme, Logger: klog.Background().V(1), Metrics: metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil },
		Controller:     config.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []index.Index{index.ByController(&corev1.Pod{}), index.ByController(&appsv1.ReplicaSet{})} {
		if err := mgr.GetFieldIndexer().IndexField(t.Context(), i.Object, i.Field, i.Values); err != nil {
			t.Fatal(err)
		}
	}
	live, err := client.New(cfg, client.Options{Scheme: scheme.Scheme, Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	cached, err := client.New(cfg, client.Options{Scheme: scheme.Scheme, Mapper: mapper, Cache: &client.CacheOptions{
		Reader: mgr.GetCache(), EnableReadYourWritesConsistency: ptr.To(true),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := New(cached, live, &record.FakeRecorder{}).Register(mgr, controller.Options{MaxConcurrentReconciles: 3}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return live
}

func eventually(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %s", what, state)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
