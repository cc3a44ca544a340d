package proxy

import (
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// node is what the rules depend on of the node that the proxy runs on.
type node struct {
	name string
	zone string
	// nodePortIPs are the addresses of the node at which node ports answer.
	nodePortIPs []netip.Addr
}

// endpoint is one address and port behind a port of a Service.
type endpoint struct {
	addr        netip.AddrPort
	node        string
	ready       bool
	serving     bool
	terminating bool
	zones       []string // for consumers in these zones (KEP-2433), any if empty
	nodes       []string // for consumers on these nodes (KEP-4444), any if empty
}

// choice is what a service port's traffic is spread over.
type choice struct {
	cluster []netip.AddrPort // from anywhere in the cluster
	local   []netip.AddrPort // on this node
}

// endpointsOf reads the endpoints of a named port out of the slices of one address family.
// An endpoint that stands in two slices, as while it moves, counts once.
func endpointsOf(slicesOfService []*discoveryv1.EndpointSlice, port string, proto v1.Protocol, family discoveryv1.AddressType) []endpoint {
	byAddr := map[netip.AddrPort]endpoint{}
	for _, s := range slicesOfService {
		if s.AddressType != family {
			continue
		}
		for _, p := range s.Ports {
			if p.Port == nil || deref(p.Name) != port || p.Protocol != nil && *p.Protocol != proto {
				continue
			}
			for i := range s.Endpoints {
				if e, ok := endpointOf(&s.Endpoints[i], uint16(*p.Port)); ok {
					if old, seen := byAddr[e.addr]; !seen || !old.ready && e.ready {
						byAddr[e.addr] = e
					}
				}
			}
		}
	}
	out := make([]endpoint, 0, len(byAddr))
	for _, e := range byAddr {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return a.addr.Compare(b.addr) })
	return out
}

func endpointOf(e *discoveryv1.Endpoint, port uint16) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	addr, err := netip.ParseAddr(e.Addresses[0]) // the API says that only the first counts
	if err != nil {
		return endpoint{}, false
	}
	out := endpoint{
		addr:        netip.AddrPortFrom(addr, port),
		node:        deref(e.NodeName),
		ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
		terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
	}
	out.serving = out.ready
	if e.Conditions.Serving != nil {
		out.serving = *e.Conditions.Serving
	}
	if e.Hints != nil {
		for _, z := range e.Hints.ForZones {
			out.zones = append(out.zones, z.Name)
		}
		for _, n := range e.Hints.ForNodes {
			out.nodes = append(out.nodes, n.Name)
		}
	}
	return out, true
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// choose picks the endpoints that traffic on this node goes to.
func choose(all []endpoint, n node) choice {
	var c choice
	for _, e := range byHints(usable(all), n) {
		c.cluster = append(c.cluster, e.addr)
	}
	here := slices.DeleteFunc(slices.Clone(all), func(e endpoint) bool { return e.node != n.name || e.node == "" })
	for _, e := range usable(here) {
		c.local = append(c.local, e.addr)
	}
	return c
}

// readyHere is how many endpoints on this node a load balancer may send new traffic to. Those that serve while they
// terminate are not among them (KEP-1669).
func readyHere(all []endpoint, n node) int {
	count := 0
	for _, e := range all {
		if e.ready && e.node == n.name && e.node != "" {
			count++
		}
	}
	return count
}

// usable are the endpoints that are ready or, where none is, those that still serve
// while they terminate, so that a rollout drops nothing (KEP-1669).
func usable(all []endpoint) []endpoint {
	var ready, last []endpoint
	for _, e := range all {
		if e.ready {
			ready = append(ready, e)
		} else if e.serving && e.terminating {
			last = append(last, e)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return last
}

// byHints narrows endpoints down to those meant for this node, or else for its zone.
// Hints are followed only when every endpoint carries some and one fits: a zone must not
// lose its service because the hints lag behind.
func byHints(all []endpoint, n node) []endpoint {
	if len(all) == 0 {
		return all
	}
	if here, ok := hinted(all, n.name, func(e endpoint) []string { return e.nodes }); ok {
		return here
	}
	if here, ok := hinted(all, n.zone, func(e endpoint) []string { return e.zones }); ok {
		return here
	}
	return all
}

func hinted(all []endpoint, me string, hints func(endpoint) []string) ([]endpoint, bool) {
	var mine []endpoint
	for _, e := range all {
		h := hints(e)
		if len(h) == 0 || me == "" {
			return nil, false
		}
		if slices.Contains(h, me) {
			mine = append(mine, e)
		}
	}
	return mine, len(mine) > 0
}
