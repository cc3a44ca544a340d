package registry

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/leme-k8s/leme/pkg/apiserver/authentication"
	"github.com/leme-k8s/leme/pkg/apiserver/authentication/serviceaccount"
	"github.com/leme-k8s/leme/pkg/apiserver/authorization"
	"github.com/leme-k8s/leme/pkg/apiserver/kubelet"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/node"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/pod"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/secret"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/service"
	serviceaccounts "github.com/leme-k8s/leme/pkg/apiserver/registry/core/serviceaccount"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
)

// Config is what single resources need beside the options that all share.
type Config struct {
	// Authenticator is the server's whole one: Authentication's, and its own loopback token's.
	Authenticator  authenticator.Request
	Authentication *authentication.Authentication
	Authorization  *authorization.Authorization
	// Client is the server's own.
	Client kubernetes.Interface
	// Informers are the server's own, which have not started.
	Informers informers.SharedInformerFactory
	// ServiceRanges are where cluster IPs are taken from; NodePorts, node ports.
	ServiceRanges []netip.Prefix
	NodePorts     *service.NodePorts
	// EventTTL is how long events are kept.
	EventTTL time.Duration
	// StoreChecks ask each etcd how it is.
	StoreChecks []func(*http.Request) error
	// Kubelet says how kubelets are reached.
	Kubelet kubelet.Config
	// Proxy is the way to the addresses of nodes, pods and services.
	Proxy http.RoundTripper
	// MaxBytesPerSec throttles each proxied connection; 0 does not.
	MaxBytesPerSec int64
}

// podsAndOthers are the resources that know of each other: pods reach into kubelets,
// services lead to pods, and tokens of service accounts are bound to pods, nodes and
// secrets.
func (c Config) podsAndOthers(o generic.Options) (generic.Storage, error) {
	nodes, err := node.New(o)
	if err != nil {
		return nil, err
	}
	kubelets, err := kubelet.New(c.Kubelet, func(ctx context.Context, name string) (*corev1.Node, error) {
		obj, err := nodes.Get(ctx, name, &metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return obj.(*corev1.Node), nil
	})
	if err != nil {
		return nil, err
	}
	pods, err := pod.New(o)
	if err != nil {
		return nil, err
	}
	secrets, err := secret.New(o)
	if err != nil {
		return nil, err
	}
	accounts, err := serviceaccounts.New(o)
	if err != nil {
		return nil, err
	}
	services, err := service.New(o, c.allocator())
	if err != nil {
		return nil, err
	}
	storage := pod.Subresources(pods, pod.Dependencies{
		Kubelets:       kubelets,
		Authorizer:     c.Authorization.Authorizer,
		Budgets:        c.Client.PolicyV1(),
		Proxy:          c.Proxy,
		MaxBytesPerSec: c.MaxBytesPerSec,
	})
	storage["pods"] = pods
	storage["nodes"] = nodes
	storage["nodes/status"] = node.Status(nodes)
	storage["nodes/proxy"] = node.Proxy(nodes, kubelets, c.Proxy, c.MaxBytesPerSec)
	storage["secrets"] = secrets
	maps.Copy(storage, services.Paths())
	storage["services/proxy"] = service.Proxy(services, pods, c.Client.DiscoveryV1(), c.families(), c.Proxy, c.MaxBytesPerSec)
	storage["serviceaccounts"] = accounts
	if c.Authentication.Issuer != nil {
		storage["serviceaccounts/token"] = serviceaccount.NewTokenREST(c.Authentication.Issuer, c.Authentication.Audiences, c.Authentication.TokenOptions,
			serviceaccount.Storage{ServiceAccounts: accounts, Pods: pods, Secrets: secrets, Nodes: nodes})
	}
	return storage, nil
}

// allocator gives Services their addresses and ports.
func (c Config) allocator() *service.Allocator {
	networking := c.Informers.Networking().V1()
	return &service.Allocator{
		Families: c.families(),
		Addresses: &service.ClusterIPs{
			Ranges: c.ServiceRanges,
			Client: c.Client.NetworkingV1(),
			Known:  networking.IPAddresses().Lister(),
			CIDRs:  networking.ServiceCIDRs().Lister(),
		},
		Ports: c.NodePorts,
	}
}

// families are the IP families of the cluster, the preferred one first.
func (c Config) families() []corev1.IPFamily {
	var all []corev1.IPFamily
	for _, r := range c.ServiceRanges {
		if r.Addr().Is4() {
			all = append(all, corev1.IPv4Protocol)
		} else {
			all = append(all, corev1.IPv6Protocol)
		}
	}
	return all
}
