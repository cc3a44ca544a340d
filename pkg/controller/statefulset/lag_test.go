package statefulset

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

// While the cache does not show what the controller has written, other events make it reconcile again. It must
// neither create nor delete twice, nor take a pod that it does not see for one that it may go on after.
func TestCacheThatLags(t *testing.T) {
	api := controllertest.StartLaggingAPI(t, map[string]string{
		"pods": "v1/Pod", "persistentvolumeclaims": "v1/PersistentVolumeClaim",
		"statefulsets": "apps/v1/StatefulSet", "controllerrevisions": "apps/v1/ControllerRevision",
	})
	c := startController(t, api.Config())
	ctx := t.Context()
	s := set(3, func(s *appsv1.StatefulSetSpec) {
		s.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
	})
	s.UID = ""
	change := func(f func()) {
		t.Helper()
		eventually(t, "a change", func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
				t.Fatal(err)
			}
			f()
			err := c.Update(ctx, s)
			return err == nil, fmt.Sprint(err)
		})
	}
	poke := func() { // events of the set that change nothing
		t.Helper()
		for i := range 5 {
			change(func() { s.Annotations = map[string]string{"round": fmt.Sprint(i)} })
		}
	}
	settled := func(n int32) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " replicas in the status"), func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
				t.Fatal(err)
			}
			return s.Status.Replicas == n, fmt.Sprintf("%+v", s.Status)
		})
	}
	writes := func(resource, method string, n int) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " times ", method, " of ", resource), func() (bool, string) {
			got := api.Writes(resource, method)
			return got == n, fmt.Sprint(got)
		})
	}
	run := func(ordinal int) { // what a kubelet does
		t.Helper()
		p := &corev1.Pod{}
		eventually(t, "a pod", func() (bool, string) {
			err := c.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: podName(s, ordinal)}, p)
			return err == nil, fmt.Sprint(err)
		})
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now)}}
		if err := c.Status().Update(ctx, p); err != nil {
			t.Fatal(err)
		}
	}

	api.Hold("pods")
	api.Hold("persistentvolumeclaims")
	api.Hold("controllerrevisions")
	if err := c.Create(ctx, s); err != nil {
		t.Fatal(err)
	}
	writes("controllerrevisions", http.MethodPost, 1)
	poke()
	api.Release("controllerrevisions")
	writes("pods", http.MethodPost, 1)
	poke()
	api.Release("pods")
	api.Release("persistentvolumeclaims")
	run(0)
	run(1)
	run(2)
	settled(3)
	writes("pods", http.MethodPost, 3)
	writes("persistentvolumeclaims", http.MethodPost, 3)
	writes("controllerrevisions", http.MethodPost, 1)

	// An update takes down one pod, and no other while it is not seen that the first is gone.
	api.Hold("pods")
	change(func() { s.Spec.Template.Annotations = map[string]string{"new": "yes"} })
	writes("pods", http.MethodDelete, 1)
	poke()
	writes("pods", http.MethodDelete, 1)
	api.Release("pods")
	writes("pods", http.MethodPost, 4)
	run(2)
	writes("pods", http.MethodDelete, 2)
	writes("controllerrevisions", http.MethodPost, 2)
}

func startController(t *testing.T, cfg *rest.Config) client.Client {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion})
	for _, k := range []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), kind, appsv1.SchemeGroupVersion.WithKind("ControllerRevision"),
	} {
		mapper.Add(k, meta.RESTScopeNamespace)
	}
	mgr, err := manager.New(cfg, manager.Options{
		Scheme: scheme.Scheme, Logger: klog.Background().V(1), Metrics: metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil },
		Controller:     config.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []index.Index{index.ByController(&corev1.Pod{}), index.ByController(&appsv1.ControllerRevision{})} {
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
