package apiserver_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	apiregistrationclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"

	"github.com/leme-k8s/leme/pkg/component"
	"github.com/leme-k8s/leme/pkg/testcluster"
)

// heard is what an aggregated API server learns of a client.
type heard struct {
	User   string
	Groups []string
	Peer   string
}

// startBooks starts an API server for books, and returns its port and certificate.
func startBooks(t *testing.T) (int32, []byte) {
	t.Helper()
	cert, key, err := component.SelfSigned("books.default.svc")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	const openapi = `"info": {"title": "books", "version": "1"}, "paths": {
		"/apis/books.example.com/v1/namespaces/{namespace}/books": {"get": {"operationId": "listBooks", "responses": {"200": {"description": "OK"}}}},
		"/apis/else.example.com/v1/": {"get": {"operationId": "listElse", "responses": {"200": {"description": "OK"}}}}}}`
	m := http.NewServeMux()
	for path, text := range map[string]string{
		"/apis/books.example.com/v1": `{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "books.example.com/v1", "resources":
			[{"name": "books", "singularName": "book", "kind": "Book", "namespaced": true, "verbs": ["get", "list"]}]}`,
		"/openapi/v2":                           `{"swagger": "2.0", ` + openapi,
		"/openapi/v3":                           `{"paths": {"apis/books.example.com/v1": {"serverRelativeURL": "/openapi/v3/apis/books.example.com/v1?hash=1"}}}`,
		"/openapi/v3/apis/books.example.com/v1": `{"openapi": "3.0.0", ` + openapi,
	} {
		m.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(text))
		})
	}
	m.HandleFunc("/apis/books.example.com/v1/namespaces/default/books", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(heard{
			User: r.Header.Get("X-Remote-User"), Groups: r.Header.Values("X-Remote-Group"), Peer: r.TLS.PeerCertificates[0].Subject.CommonName,
		})
	})
	s := httptest.NewUnstartedServer(m)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	return int32(s.Listener.Addr().(*net.TCPAddr).Port), cert
}

func TestAggregation(t *testing.T) {
	dir := t.TempDir()
	cert, key, err := component.SelfSigned("front-proxy")
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for file, data := range map[string][]byte{certFile: cert, keyFile: key} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--proxy-client-cert-file="+certFile, "--proxy-client-key-file="+keyFile))
	s := &sea{Cluster: c, raw: discovery.NewDiscoveryClientForConfigOrDie(c.Config).RESTClient()}
	client, services := c.Client(t), apiregistrationclient.NewForConfigOrDie(c.Config).APIServices()

	port, ca := startBooks(t)
	if _, err := client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "books"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	register := func(group string, port int32) {
		if _, err := services.Create(t.Context(), &apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: "v1." + group},
			Spec: apiregistrationv1.APIServiceSpec{
				Group: group, Version: "v1", GroupPriorityMinimum: 1000, VersionPriority: 15, CABundle: ca,
				Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "books", Port: &port},
			},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	condition := func(ctx context.Context, name string) apiregistrationv1.APIServiceCondition {
		s, err := services.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return apiregistrationv1.APIServiceCondition{}
		}
		if c := helper.GetAPIServiceConditionByType(s, apiregistrationv1.Available); c != nil {
			return *c
		}
		return apiregistrationv1.APIServiceCondition{}
	}
	const books = "/apis/books.example.com/v1/namespaces/default/books"
	reachable := func(ctx context.Context) bool { return s.raw.Get().AbsPath(books).Do(ctx).Error() == nil }

	s.get(t, "/openapi/v2") // what is registered later must show nevertheless
	register("books.example.com", port)
	register("down.example.com", 1)
	eventually(t, "books to be available", func(ctx context.Context) bool {
		return condition(ctx, "v1.books.example.com").Reason == "Passed" && reachable(ctx)
	})
	t.Run("front proxy", func(t *testing.T) {
		var got heard
		if err := json.Unmarshal([]byte(s.get(t, books)), &got); err != nil {
			t.Fatal(err)
		}
		if got.User != "admin" || !slices.Contains(got.Groups, "system:masters") || got.Peer != "front-proxy" {
			t.Errorf("got %+v, want admin of system:masters from front-proxy", got)
		}
	})
	t.Run("discovery", func(t *testing.T) {
		eventually(t, "books to be discovered", func(context.Context) bool {
			return strings.Contains(s.get(t, "/apis", "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"), `"resource":"books"`) &&
				strings.Contains(s.get(t, "/apis"), "books.example.com/v1")
		})
	})
	t.Run("OpenAPI", func(t *testing.T) {
		eventually(t, "books in the documents", func(context.Context) bool {
			return strings.Contains(s.get(t, "/openapi/v2"), "listBooks") && strings.Contains(s.get(t, "/openapi/v3"), "/openapi/v3/apis/books.example.com/v1?hash=1")
		})
		if got := s.get(t, "/openapi/v3/apis/books.example.com/v1"); !strings.Contains(got, "listBooks") {
			t.Errorf("/openapi/v3/apis/books.example.com/v1 is %s", got)
		}
		if got := s.get(t, "/openapi/v2"); strings.Contains(got, "listElse") || !strings.Contains(got, "/apis/apps/v1/deployments") {
			t.Error("/openapi/v2 has what is not of the group, or lost built-in kinds")
		}
	})
	t.Run("down", func(t *testing.T) {
		eventually(t, "what is down to be unavailable", func(ctx context.Context) bool {
			c := condition(ctx, "v1.down.example.com")
			return c.Status == apiregistrationv1.ConditionFalse && c.Reason == "FailedDiscoveryCheck"
		})
		if err := s.raw.Get().AbsPath("/apis/down.example.com/v1").Do(t.Context()).Error(); !apierrors.IsServiceUnavailable(err) {
			t.Errorf("got %v, want that it is unavailable", err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		if err := client.CoreV1().Services("default").Delete(t.Context(), "books", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "books to be unavailable", func(ctx context.Context) bool {
			return condition(ctx, "v1.books.example.com").Reason == "ServiceNotFound" && !reachable(ctx)
		})
		if err := services.Delete(t.Context(), "v1.books.example.com", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "books to be gone", func(ctx context.Context) bool {
			return apierrors.IsNotFound(s.raw.Get().AbsPath(books).Do(ctx).Error()) && !strings.Contains(s.get(t, "/openapi/v2"), "listBooks") &&
				!strings.Contains(s.get(t, "/openapi/v3"), "books.example.com")
		})
	})
}
