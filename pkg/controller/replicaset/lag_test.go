package replicaset

import (
	"fmt"
	"net/http"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
	"github.com/leme-k8s/leme/pkg/controller/internal/index"
)

// While the cache does not show the pods that the controller has created or deleted,
// other events make it reconcile again. It must neither create nor delete twice.
func TestCacheThatLags(t *testing.T) {
	api := controllertest.StartLaggingAPI(t, map[string]string{"pods": "v1/Pod", "replicasets": "apps/v1/ReplicaSet"})
	kinds := []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Pod"), appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
	}
	indexes := []index.Index{index.ByController(&corev1.Pod{}), index.ByController(&appsv1.ReplicaSet{})}
	c := controllertest.Start(t, api.Config(), kinds, indexes, func(cached, live client.Client) controllertest.Registrar {
		return New(cached, live, &record.FakeRecorder{}, Gates{TerminatingReplicas: true, PodDeletionCost: true}, NewMetrics(metrics.NewKubeRegistry()))
	})
	ctx := t.Context()
	labels := map[string]string{"a": "b"}
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "x"},
		Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}}},
	}
	poke := func(round int) { // an event of the ReplicaSet that changes nothing
		t.Helper()
		componenttest.EventuallyTold(t, "a change", func() (bool, string) {
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
		componenttest.EventuallyTold(t, "a change", func() (bool, string) {
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
		componenttest.EventuallyTold(t, fmt.Sprint(n, " replicas in the status"), func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(rs), rs); err != nil {
				t.Fatal(err)
			}
			return rs.Status.Replicas == n, fmt.Sprint(rs.Status.Replicas)
		})
	}
	writes := func(method string, n int) {
		t.Helper()
		componenttest.EventuallyTold(t, fmt.Sprint(n, " times ", method), func() (bool, string) {
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
