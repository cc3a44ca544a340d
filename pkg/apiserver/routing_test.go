package apiserver_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/testcluster"
)

// TestAggregatorRouting reaches an aggregated API server by the address of its endpoint,
// where nothing leads to the Service's cluster IP.
func TestAggregatorRouting(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithAPIServerFlags("--enable-aggregator-routing=true"))
	client := c.Client(t)
	ip, err := utilnet.ChooseHostInterface() // endpoints may not be on the loopback interface
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "far.example.com/v1", "resources": []}`))
	}))
	s.Listener.Close()
	if s.Listener, err = net.Listen("tcp", net.JoinHostPort(ip.String(), "0")); err != nil {
		t.Fatal(err)
	}
	s.StartTLS()
	defer s.Close()

	if _, err := client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "far"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "https", Port: 443}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	family := discoveryv1.AddressTypeIPv4
	if ip.To4() == nil {
		family = discoveryv1.AddressTypeIPv6
	}
	if _, err := client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "far-1", Labels: map[string]string{discoveryv1.LabelServiceName: "far"}},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(s.Listener.Addr().(*net.TCPAddr).Port))}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := apiregistrationclient.NewForConfigOrDie(c.Config).APIServices().Create(t.Context(), &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1.far.example.com"},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: "far.example.com", Version: "v1", GroupPriorityMinimum: 1000, VersionPriority: 10, InsecureSkipTLSVerify: true,
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "far", Port: ptr.To[int32](443)},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the aggregated API to be reached", func(context.Context) bool {
		list, err := client.Discovery().ServerResourcesForGroupVersion("far.example.com/v1")
		return err == nil && list.GroupVersion == "far.example.com/v1"
	})
}
