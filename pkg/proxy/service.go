package proxy

import (
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/leme-k8s/leme/pkg/proxy/nft"
)

// labelServiceProxyName hands a Service to another proxy.
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// ignored reports whether no rules are to be made for a Service: it has no address, or
// it is somebody else's.
func ignored(svc *v1.Service) bool {
	if _, ok := svc.Labels[labelServiceProxyName]; ok {
		return true
	}
	return svc.Spec.ClusterIP == v1.ClusterIPNone || svc.Spec.ClusterIP == "" || svc.Spec.Type == v1.ServiceTypeExternalName
}

// frontends says what is to happen at each address and port of a Service, in one
// address family.
func frontends(svc *v1.Service, slicesOfService []*discoveryv1.EndpointSlice, n node, family nft.Family) []nft.Frontend {
	if ignored(svc) {
		return nil
	}
	var out []nft.Frontend
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		c := choose(endpointsOf(slicesOfService, p.Name, p.Protocol, addressType(family)), n)
		out = append(out, portFrontends(svc, p, c, n, family)...)
	}
	return out
}

func addressType(f nft.Family) discoveryv1.AddressType {
	if f == nft.IPv6 {
		return discoveryv1.AddressTypeIPv6
	}
	return discoveryv1.AddressTypeIPv4
}

func portFrontends(svc *v1.Service, p *v1.ServicePort, c choice, n node, family nft.Family) []nft.Frontend {
	var out []nft.Frontend
	add := func(ip string, f nft.Frontend) {
		addr, err := netip.ParseAddr(ip)
		if err != nil || !family.Has(addr) {
			return
		}
		f.Addr, f.Protocol = addr, protocol(p.Protocol)
		if f.Port == 0 {
			f.Port = uint16(p.Port)
		}
		f.Affinity = affinity(svc)
		out = append(out, f)
	}

	// From inside, at the cluster IP.
	inside := nft.Frontend{Endpoints: c.cluster, ClusterIP: true, Closed: nft.Reject}
	if svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == v1.ServiceInternalTrafficPolicyLocal {
		inside.Endpoints = c.local
		if len(c.cluster) > 0 {
			inside.Closed = nft.Drop
		}
	}
	for _, ip := range clusterIPs(svc) {
		add(ip, inside)
	}

	// From outside, at the addresses that others route here.
	outside := nft.Frontend{Endpoints: c.cluster, External: true, Closed: nft.Reject}
	if localTraffic(svc) {
		outside.Local = &c.local
	}
	for _, ip := range svc.Spec.ExternalIPs {
		add(ip, outside)
	}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if ingress.IPMode != nil && *ingress.IPMode == v1.LoadBalancerIPModeProxy {
			continue // its traffic arrives at the node port
		}
		balanced := outside
		balanced.Sources = sourceRanges(svc, family)
		balanced.Restricted = len(svc.Spec.LoadBalancerSourceRanges) > 0
		add(ingress.IP, balanced)
	}
	if p.NodePort != 0 {
		for _, ip := range n.nodePortIPs {
			at := outside
			at.Port = uint16(p.NodePort)
			add(ip.String(), at)
		}
	}
	return out
}

func clusterIPs(svc *v1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	return []string{svc.Spec.ClusterIP}
}

func protocol(p v1.Protocol) string {
	switch p {
	case v1.ProtocolUDP:
		return "udp"
	case v1.ProtocolSCTP:
		return "sctp"
	}
	return "tcp"
}

// localTraffic reports whether traffic from outside stays on the node that it reached.
func localTraffic(svc *v1.Service) bool {
	return svc.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal
}

// affinity is how long a client stays with its endpoint; 0 for not at all.
func affinity(svc *v1.Service) time.Duration {
	if svc.Spec.SessionAffinity != v1.ServiceAffinityClientIP {
		return 0
	}
	seconds := v1.DefaultClientIPServiceAffinitySeconds
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}

func sourceRanges(svc *v1.Service, family nft.Family) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range svc.Spec.LoadBalancerSourceRanges {
		if prefix, err := netip.ParsePrefix(r); err == nil && family.Has(prefix.Addr()) {
			out = append(out, prefix.Masked())
		}
	}
	return out
}
