package deletion

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestDelete(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	for _, c := range []struct {
		name string
		obj  client.Object
		code int
		body string
		path string
		ok   func(error) bool
	}{
		{"an answer that nobody can read", pod, http.StatusOK, "\x00", "/api/v1/namespaces/ns/pods/a", func(err error) bool { return err == nil }},
		{"an object of no namespace", node, http.StatusOK, "", "/api/v1/nodes/n", func(err error) bool { return err == nil }},
		{"another object of the name", pod, http.StatusConflict, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409}`,
			"/api/v1/namespaces/ns/pods/a", apierrors.IsConflict},
		{"no object", pod, http.StatusNotFound, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`,
			"/api/v1/namespaces/ns/pods/a", apierrors.IsNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked string
			var options metav1.DeleteOptions
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				asked = req.Method + " " + req.URL.Path
				body, err := io.ReadAll(req.Body)
				if err != nil {
					t.Error(err)
				}
				if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &options); err != nil {
					t.Errorf("the options: %v", err)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.code)
				fmt.Fprint(w, c.body)
			}))
			defer server.Close()
			mapper := meta.NewDefaultRESTMapper(nil)
			mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
			mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
			cfg := &rest.Config{Host: server.URL}
			plain, err := client.New(cfg, client.Options{Scheme: scheme.Scheme, Mapper: mapper})
			if err != nil {
				t.Fatal(err)
			}
			err = NewClient(plain, cfg, server.Client()).Delete(t.Context(), c.obj, client.Preconditions{UID: ptr.To(pod.UID)})
			if !c.ok(err) {
				t.Errorf("the error is %v", err)
			}
			if asked != "DELETE "+c.path {
				t.Errorf("asked for %s, want %s", asked, c.path)
			}
			if options.Preconditions == nil || options.Preconditions.UID == nil {
				t.Errorf("the options do not say which object is meant: %+v", options)
			}
		})
	}
}
