package networking

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/leme-k8s/leme/pkg/api/apitest"
)

func TestIngress(t *testing.T) {
	for _, file := range []string{"ingress", "ingress_class"} {
		t.Run(file, func(t *testing.T) {
			apitest.Run(t, "testdata/"+file+".txtar", apitest.Kind[networkingv1.Ingress, *networkingv1.Ingress]{
				Path:        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
				AddDefaults: AddDefaults,
				Create:      ValidateIngress,
				Update:      ValidateIngressUpdate,
				Status:      ValidateIngressStatusUpdate,
			})
		})
	}
}

func TestIngressClass(t *testing.T) {
	apitest.Run(t, "testdata/ingressclass.txtar", apitest.Kind[networkingv1.IngressClass, *networkingv1.IngressClass]{
		Path:        "/apis/networking.k8s.io/v1/ingressclasses",
		AddDefaults: AddDefaults,
		Create:      ValidateIngressClass,
		Update:      ValidateIngressClassUpdate,
	})
}

func TestNetworkPolicy(t *testing.T) {
	apitest.Run(t, "testdata/networkpolicy.txtar", apitest.Kind[networkingv1.NetworkPolicy, *networkingv1.NetworkPolicy]{
		Path:        "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
		AddDefaults: AddDefaults,
		Create:      ValidateNetworkPolicy,
		Update:      ValidateNetworkPolicyUpdate,
	})
}

func TestServiceCIDR(t *testing.T) {
	for _, file := range []string{"servicecidr", "servicecidr_dual"} {
		t.Run(file, func(t *testing.T) {
			apitest.Run(t, "testdata/"+file+".txtar", apitest.Kind[networkingv1.ServiceCIDR, *networkingv1.ServiceCIDR]{
				Path:        "/apis/networking.k8s.io/v1/servicecidrs",
				AddDefaults: AddDefaults,
				Create:      ValidateServiceCIDR,
				Update:      ValidateServiceCIDRUpdate,
				Status:      ValidateServiceCIDRStatusUpdate,
			})
		})
	}
}

func TestIPAddress(t *testing.T) {
	apitest.Run(t, "testdata/ipaddress.txtar", apitest.Kind[networkingv1.IPAddress, *networkingv1.IPAddress]{
		Path:        "/apis/networking.k8s.io/v1/ipaddresses",
		AddDefaults: AddDefaults,
		Create:      ValidateIPAddress,
		Update:      ValidateIPAddressUpdate,
	})
}
