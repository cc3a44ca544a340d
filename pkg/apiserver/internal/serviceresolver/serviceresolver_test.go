package serviceresolver

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func TestResolve(t *testing.T) {
	name, port := "https", int32(8443)
	service := func(name, ip string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, Ports: []corev1.ServicePort{{Name: "https", Port: 443}},
		}}
	}
	for _, tc := range []struct {
		name      string
		endpoints bool
		service   string
		namespace string
		port      int32
		want      string
	}{
		{name: "cluster IP", namespace: "n", service: "a", port: 443, want: "https://10.0.0.1:443"},
		{name: "endpoint", endpoints: true, namespace: "n", service: "a", port: 443, want: "https://10.1.0.1:8443"},
		{name: "headless", namespace: "n", service: "headless", port: 443},
		{name: "no such port", namespace: "n", service: "a", port: 80},
		{name: "no such service", namespace: "n", service: "b", port: 443},
		{name: "no endpoints", endpoints: true, namespace: "n", service: "headless", port: 443},
		{name: "this server", namespace: "default", service: "kubernetes", port: 443, want: "https://127.0.0.1:6443"},
		{name: "this server, by endpoint", endpoints: true, namespace: "default", service: "kubernetes", port: 443, want: "https://127.0.0.1:6443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
			r, err := New(all, tc.endpoints, "https://127.0.0.1:6443")
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []*corev1.Service{service("a", "10.0.0.1"), service("headless", corev1.ClusterIPNone)} {
				if err := all.Core().V1().Services().Informer().GetStore().Add(s); err != nil {
					t.Fatal(err)
				}
			}
			if err := all.Discovery().V1().EndpointSlices().Informer().GetStore().Add(&discoveryv1.EndpointSlice{
				ObjectMeta:  metav1.ObjectMeta{Namespace: "n", Name: "a-1", Labels: map[string]string{discoveryv1.LabelServiceName: "a"}},
				AddressType: discoveryv1.AddressTypeIPv4,
				Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
				Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.1"}}},
			}); err != nil {
				t.Fatal(err)
			}
			got, err := r.ResolveEndpoint(tc.namespace, tc.service, tc.port)
			switch {
			case tc.want == "" && err == nil:
				t.Errorf("resolved to %s, want an error", got)
			case tc.want != "" && err != nil:
				t.Error(err)
			case tc.want != "" && got.String() != tc.want:
				t.Errorf("resolved to %s, want %s", got, tc.want)
			}
		})
	}
}
