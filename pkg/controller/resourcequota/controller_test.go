package resourcequota

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	quotalib "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func amounts(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func TestCounted(t *testing.T) {
	r := New(nil, nil, nil, 0).registry(t.Context())
	for _, tc := range []struct {
		hard corev1.ResourceList
		want []schema.GroupResource
	}{
		{hard: amounts("pods", "1", "count/pods", "1", "services.nodeports", "1", "requests.storage", "1")},
		{hard: amounts("secrets", "1"), want: []schema.GroupResource{{Resource: "secrets"}}},
		{hard: amounts("count/secrets", "1", "count/deployments.apps", "1", "count/widgets.example.com", "2"), want: []schema.GroupResource{
			{Resource: "secrets"}, {Group: "apps", Resource: "deployments"}, {Group: "example.com", Resource: "widgets"}}},
		{hard: amounts("example.com/unheard-of", "1")},
	} {
		if got := counted(r, tc.hard); !got.Equal(sets.New(tc.want...)) {
			t.Errorf("%v: %v, want %v", tc.hard, got, tc.want)
		}
	}
}

func TestStatusOf(t *testing.T) {
	q := &corev1.ResourceQuota{
		Spec:   corev1.ResourceQuotaSpec{Hard: amounts("pods", "3", "count/widgets.example.com", "5", "example.com/never", "1")},
		Status: corev1.ResourceQuotaStatus{Hard: amounts("pods", "2", "secrets", "2"), Used: amounts("pods", "2", "secrets", "1", "count/widgets.example.com", "4")},
	}
	got := statusOf(q, amounts("pods", "1"))
	if !quotalib.Equals(got.Hard, q.Spec.Hard) {
		t.Errorf("hard is %v", got.Hard)
	}
	// What is not measured keeps its last value, what is not limited has none.
	if want := amounts("pods", "1", "count/widgets.example.com", "4"); !quotalib.Equals(got.Used, want) {
		t.Errorf("used is %v, want %v", got.Used, want)
	}
}

func TestUsesOtherwise(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: amounts("cpu", "1")}}}}}
		change(p)
		return p
	}
	svc := func(t corev1.ServiceType) *corev1.Service {
		return &corev1.Service{Spec: corev1.ServiceSpec{Type: t, Ports: make([]corev1.ServicePort, 1)}}
	}
	claim := func(class string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: &class}}
	}
	same := func(*corev1.Pod) {}
	registry := New(nil, nil, nil, 0).registry(context.Background())
	for name, tc := range map[string]struct {
		resource      string
		before, after client.Object
		want          bool
	}{
		"a pod's status":          {"pods", pod(same), pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }), false},
		"a pod's end":             {"pods", pod(same), pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), true},
		"a pod that gets a limit": {"pods", pod(same), pod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](1) }), true},
		"a pod that is resized":   {"pods", pod(same), pod(func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = amounts("cpu", "2") }), true},
		"a pod that should be gone": {"pods", pod(same), pod(func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = ptr.To(metav1.NewTime(time.Unix(0, 0))), ptr.To[int64](0)
		}), true},
		"a Service's type":     {"services", svc("NodePort"), svc("ClusterIP"), true},
		"a Service":            {"services", svc("NodePort"), svc("NodePort"), false},
		"a claim's attributes": {"persistentvolumeclaims", claim("a"), claim("b"), true},
		"a claim":              {"persistentvolumeclaims", claim("a"), claim("a"), false},
	} {
		if got := usesOtherwise(registry.Get(corev1.Resource(tc.resource)), tc.before, tc.after); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
