package job

import (
	"fmt"
	"net/http"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/leme-k8s/leme/pkg/component/componenttest"
	"github.com/leme-k8s/leme/pkg/controller/internal/controllertest"
	cacheindex "github.com/leme-k8s/leme/pkg/controller/internal/index"
)

// While the cache does not show what the controller has written, other events make it reconcile again. It must
// neither create twice nor count an end twice or not at all.
func TestCacheThatLags(t *testing.T) {
	api := controllertest.StartLaggingAPI(t, map[string]string{"pods": "v1/Pod", "jobs": "batch/v1/Job"})
	kinds := []schema.GroupVersionKind{corev1.SchemeGroupVersion.WithKind("Pod"), kind}
	c := controllertest.Start(t, api.Config(), kinds, []cacheindex.Index{cacheindex.ByController(&corev1.Pod{})}, func(cached, live client.Client) controllertest.Registrar {
		return New(cached, live, &record.FakeRecorder{}, metrics.NewKubeRegistry(), false)
	})
	ctx := t.Context()
	labels := map[string]string{"a": "b"}
	j := job(func(s *batchv1.JobSpec) { // two at a time, three in all
		s.Selector = &metav1.LabelSelector{MatchLabels: labels}
		s.Template.Labels = labels
	})
	j.Namespace, j.UID, j.Status = "ns", "", batchv1.JobStatus{}
	poke := func() { // events of the Job that change nothing
		t.Helper()
		for i := range 5 {
			componenttest.EventuallyTold(t, "a change", func() (bool, string) {
				if err := c.Get(ctx, client.ObjectKeyFromObject(j), j); err != nil {
					t.Fatal(err)
				}
				j.Annotations = map[string]string{"round": fmt.Sprint(i)}
				err := c.Update(ctx, j)
				return err == nil, fmt.Sprint(err)
			})
		}
	}
	writes := func(method string, n int) {
		t.Helper()
		componenttest.EventuallyTold(t, fmt.Sprint(n, " times ", method), func() (bool, string) {
			got := api.Writes("pods", method)
			return got == n, fmt.Sprint(got)
		})
	}
	status := func(what string, holds func(*batchv1.JobStatus) bool) {
		t.Helper()
		componenttest.EventuallyTold(t, what, func() (bool, string) {
			if err := c.Get(ctx, client.ObjectKeyFromObject(j), j); err != nil {
				t.Fatal(err)
			}
			return holds(&j.Status), fmt.Sprintf("%+v", j.Status)
		})
	}
	succeed := func() { // what kubelets do
		t.Helper()
		componenttest.EventuallyTold(t, "the end of all pods", func() (bool, string) {
			var list corev1.PodList
			if err := c.List(ctx, &list); err != nil {
				t.Fatal(err)
			}
			for i := range list.Items {
				p := &list.Items[i]
				if p.Status.Phase == corev1.PodSucceeded {
					continue
				}
				p.Status.Phase = corev1.PodSucceeded
				if err := c.Status().Update(ctx, p); err != nil {
					return false, err.Error()
				}
			}
			return true, ""
		})
	}

	api.Hold("pods")
	if err := c.Create(ctx, j); err != nil {
		t.Fatal(err)
	}
	writes(http.MethodPost, 2)
	poke()
	writes(http.MethodPost, 2)
	api.Release("pods")
	status("two at work", func(s *batchv1.JobStatus) bool { return s.Active == 2 })

	// The ends are seen, and what is written down of them is not.
	api.Hold("jobs")
	succeed()
	// The second one may be seen later, and then waits.
	status("an end written down", func(s *batchv1.JobStatus) bool {
		return s.UncountedTerminatedPods != nil && len(s.UncountedTerminatedPods.Succeeded) > 0
	})
	poke()
	api.Release("jobs")
	status("both ends counted", func(s *batchv1.JobStatus) bool { return s.Succeeded == 2 })
	writes(http.MethodPost, 3)

	// It is not seen that the last one is free of its finalizer.
	succeedAndHold := func() {
		succeed()
		writes(http.MethodPatch, 3)
		api.Hold("pods")
	}
	succeedAndHold()
	poke()
	api.Release("pods")
	status("the end", func(s *batchv1.JobStatus) bool { return isTrue(*s, batchv1.JobComplete) })
	if s := j.Status; s.Succeeded != 3 || s.Failed != 0 || s.Active != 0 || len(s.UncountedTerminatedPods.Succeeded) != 0 {
		t.Errorf("%+v", s)
	}
	writes(http.MethodPost, 3)
	writes(http.MethodPatch, 3)
}
