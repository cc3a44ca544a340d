package namespaceexists

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestValidate(t *testing.T) {
	p := New()
	client := admissiontest.Start(t, p, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "there"}})
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "fresh"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := func(namespace string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"}}
	}
	for name, c := range map[string]struct {
		request admissiontest.Request
		err     string
	}{
		"there":             {request: admissiontest.Request{Resource: "/pods", Object: pod("there")}},
		"not in the cache":  {request: admissiontest.Request{Resource: "/pods", Object: pod("fresh")}},
		"missing":           {request: admissiontest.Request{Resource: "/pods", Object: pod("gone")}, err: `namespaces "gone" not found`},
		"missing, update":   {request: admissiontest.Request{Resource: "/pods", Object: pod("gone"), Old: pod("gone")}, err: `namespaces "gone" not found`},
		"a namespace":       {request: admissiontest.Request{Resource: "/namespaces", Kind: "Namespace", Object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "n"}}}},
		"without namespace": {request: admissiontest.Request{Resource: "/nodes", Object: &corev1.Node{}}},
	} {
		t.Run(name, func(t *testing.T) {
			admissiontest.Check(t, admissiontest.Run(t, p, c.request.Attributes(t)), c.err)
		})
	}
}
