package terse

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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
			var options metav1.DeleteOptions
			terse, got := serve(t, c.code, c.body, &options)
			err := terse.Delete(t.Context(), c.obj, client.Preconditions{UID: ptr.To(pod.UID)})
			if !c.ok(err) {
				t.Errorf("the error is %v", err)
			}
			if got.asked != "DELETE "+c.path {
				t.Errorf("asked for %s, want %s", got.asked, c.path)
			}
			if options.Preconditions == nil || options.Preconditions.UID == nil {
				t.Errorf("the options do not say which object is meant: %+v", options)
			}
		})
	}
}

// What has been written keeps what it was written with and has the metadata that comes back.
func TestWrites(t *testing.T) {
	set := func() *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a", Finalizers: []string{"old"}}, Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3)}}
	}
	conflict := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409}`
	written := `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"namespace":"ns","name":"a","uid":"u","resourceVersion":"7"}}`
	whole := `{"kind":"ReplicaSet","apiVersion":"apps/v1","metadata":{"namespace":"ns","name":"a","uid":"u","resourceVersion":"7"},"spec":{"replicas":3}}`
	create := func(c client.Client, o client.Object) error { return c.Create(t.Context(), o, client.FieldOwner("me")) }
	update := func(c client.Client, o client.Object) error { return c.Update(t.Context(), o) }
	status := func(c client.Client, o client.Object) error { return c.Status().Update(t.Context(), o) }
	none := func(err error) bool { return err == nil }
	for _, c := range []struct {
		name  string
		do    func(client.Client, client.Object) error
		code  int
		body  string
		asked string
		ok    func(error) bool
	}{
		{"a creation", create, http.StatusCreated, written, "POST /apis/apps/v1/namespaces/ns/replicasets?fieldManager=me", none},
		{"an update", update, http.StatusOK, written, "PUT /apis/apps/v1/namespaces/ns/replicasets/a", none},
		{"a status", status, http.StatusOK, written, "PUT /apis/apps/v1/namespaces/ns/replicasets/a/status", none},
		{"a conflict", status, http.StatusConflict, conflict, "PUT /apis/apps/v1/namespaces/ns/replicasets/a/status", apierrors.IsConflict},
		{"the whole object", update, http.StatusOK, whole, "PUT /apis/apps/v1/namespaces/ns/replicasets/a", none},
		{"an answer that nobody can read", update, http.StatusOK, "\x00", "PUT /apis/apps/v1/namespaces/ns/replicasets/a", func(err error) bool { return err != nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sent appsv1.ReplicaSet
			terse, got := serve(t, c.code, c.body, &sent)
			rs := set()
			err := c.do(terse, rs)
			if !c.ok(err) {
				t.Errorf("the error is %v", err)
			}
			if got.asked != c.asked || !strings.Contains(got.accepted, "as=PartialObjectMetadata") {
				t.Errorf("asked for %s, accepting %s", got.asked, got.accepted)
			}
			if *sent.Spec.Replicas != 3 || *rs.Spec.Replicas != 3 {
				t.Errorf("sent %v, which is %v then", sent.Spec, rs.Spec)
			}
			want := set().ObjectMeta
			if err == nil {
				want = metav1.ObjectMeta{Namespace: "ns", Name: "a", UID: "u", ResourceVersion: "7"}
			}
			if !equality.Semantic.DeepEqual(rs.ObjectMeta, want) {
				t.Errorf("the metadata is %v, want %v", rs.ObjectMeta, want)
			}
		})
	}
}

// A request is what a server has been asked.
type request struct{ asked, accepted string }

// serve returns a client of a server that gives one answer, and what that server is asked; the body of the request is read into the given object.
func serve(t *testing.T, code int, answer string, into runtime.Object) (client.Client, *request) {
	t.Helper()
	got := &request{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		got.asked, got.accepted = req.Method+" "+req.URL.RequestURI(), req.Header.Get("Accept")
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, into); err != nil {
			t.Errorf("the body: %v", err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), meta.RESTScopeNamespace)
	cfg := &rest.Config{Host: server.URL}
	plain, err := client.New(cfg, client.Options{Scheme: scheme.Scheme, Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	terse, err := NewClient(plain, cfg, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	return terse, got
}
