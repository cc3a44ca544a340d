// Package serviceresolver finds the addresses of Services that the API server
// itself calls: webhooks, and API servers that are aggregated.
package serviceresolver

import (
	"fmt"
	"net/url"

	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// resolver leads to a Service's endpoints, or, when it knows none, to its cluster IP.
type resolver struct {
	services  corelisters.ServiceLister
	endpoints proxy.EndpointSliceGetter
	// self is where this server listens.
	self *url.URL
}

// New returns a resolver to cluster IPs, or, when endpoints is set, to a random ready
// endpoint, which needs no proxy on this machine. The default/kubernetes Service is
// this very server, at the URL host. The informers must not have started.
func New(all informers.SharedInformerFactory, endpoints bool, host string) (webhook.ServiceResolver, error) {
	self, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("address of this server: %w", err)
	}
	r := &resolver{services: all.Core().V1().Services().Lister(), self: self}
	if endpoints {
		if r.endpoints, err = proxy.NewEndpointSliceIndexerGetter(all.Discovery().V1().EndpointSlices()); err != nil {
			return nil, fmt.Errorf("indexing endpoint slices: %w", err)
		}
	}
	return r, nil
}

// ResolveEndpoint implements webhook.ServiceResolver.
func (r *resolver) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	switch {
	case namespace == "default" && name == "kubernetes" && port == 443:
		return r.self, nil
	case r.endpoints != nil:
		return proxy.ResolveEndpoint(r.services, r.endpoints, namespace, name, port)
	}
	return proxy.ResolveCluster(r.services, namespace, name, port)
}
