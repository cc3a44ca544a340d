package namespaceautoprovision

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestAdmit(t *testing.T) {
	there := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "there"}}
	pod := func(namespace string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"}}
	}
	failing := func(err error) func(*fake.Clientset) {
		return func(c *fake.Clientset) {
			c.PrependReactor("create", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
		}
	}
	for name, c := range map[string]struct {
		request admissiontest.Request
		server  func(*fake.Clientset)
		made    string
		err     string
	}{
		"missing":             {request: admissiontest.Request{Resource: "/pods", Object: pod("new")}, made: "new"},
		"there":               {request: admissiontest.Request{Resource: "/pods", Object: pod("there")}},
		"only tried":          {request: admissiontest.Request{Resource: "/pods", Object: pod("new"), DryRun: true}},
		"updated":             {request: admissiontest.Request{Resource: "/pods", Object: pod("new"), Old: pod("new")}},
		"without namespace":   {request: admissiontest.Request{Resource: "/nodes", Object: &corev1.Node{}}},
		"made by another one": {request: admissiontest.Request{Resource: "/pods", Object: pod("new")}, server: failing(apierrors.NewAlreadyExists(corev1.Resource("namespaces"), "new"))},
		"cannot be made":      {request: admissiontest.Request{Resource: "/pods", Object: pod("new")}, server: failing(apierrors.NewServerTimeout(corev1.Resource("namespaces"), "create", 1)), err: "forbidden: The create operation against namespaces could not be completed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := New()
			client := admissiontest.Start(t, p, there)
			if c.server != nil {
				c.server(client)
			}
			admissiontest.Check(t, admissiontest.Run(t, p, c.request.Attributes(t)), c.err)
			if c.made != "" {
				if _, err := client.CoreV1().Namespaces().Get(t.Context(), c.made, metav1.GetOptions{}); err != nil {
					t.Error(err)
				}
			} else if all, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil || len(all.Items) != 1 {
				t.Errorf("%d namespaces, %v", len(all.Items), err)
			}
		})
	}
}
