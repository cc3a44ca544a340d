package wake

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestThose(t *testing.T) {
	pod := func(namespace, name, node string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.PodSpec{NodeName: node}}
	}
	api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(pod("a", "1", "n"), pod("a", "2", "m"), pod("b", "3", "n")).Build()
	h := Those(api, func(p *corev1.Pod, changed client.Object) bool { return p.Spec.NodeName == changed.GetName() })
	for name, tc := range map[string]struct {
		changed client.Object
		want    []string
	}{
		"of a namespace": {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "n"}}, []string{"a/1"}},
		"of all":         {&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, []string{"a/1", "b/3"}},
		"of none":        {&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "o"}}, nil},
	} {
		q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		h.Create(t.Context(), event.CreateEvent{Object: tc.changed}, q)
		var got []string
		for q.Len() > 0 {
			req, _ := q.Get()
			got = append(got, req.String())
			q.Done(req)
		}
		q.ShutDown()
		if slices.Sort(got); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
