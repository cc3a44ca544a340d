package statefulset

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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
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
	kinds := []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), kind,
		appsv1.SchemeGroupVersion.WithKind("ControllerRevision"),
	}
	indexes := []index.Index{index.ByController(&corev1.Pod{}), index.ByController(&appsv1.ControllerRevision{})}
	c := controllertest.Start(t, api.Config(), kinds, indexes, func(cached, live client.Client) controllertest.Registrar {
		return New(cached, live, &record.FakeRecorder{}, true, metrics.NewKubeRegistry())
	})
	ctx := t.Context()
	s := set(3, func(s *appsv1.StatefulSetSpec) {
		s.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
	})
	s.UID = ""
	change := func(f func()) {
		t.Helper()
		componenttest.EventuallyTold(t, "a change", func() (bool, string) {
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
		componenttest.EventuallyTold(t, fmt.Sprint(n, " replicas in the status"), func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
				t.Fatal(err)
			}
			return s.Status.Replicas == n, fmt.Sprintf("%+v", s.Status)
		})
	}
	writes := func(resource, method string, n int) {
		t.Helper()
		componenttest.EventuallyTold(t, fmt.Sprint(n, " times ", method, " of ", resource), func() (bool, string) {
			got := api.Writes(resource, method)
			return got == n, fmt.Sprint(got)
		})
	}
	run := func(ordinal int) { // what a kubelet does
		t.Helper()
		p := &corev1.Pod{}
		componenttest.EventuallyTold(t, "a pod", func() (bool, string) {
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
