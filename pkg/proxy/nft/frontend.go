// Package nft programs the kernel's packet filter so that Services work.
//
// The number of rules is constant. All that Services and endpoints add is elements of
// maps and sets: a Service that changes costs as many elements as it has, however many
// others there are.
//
//	packet to 10.96.0.10:80 ─▶ map services: what is here? ─▶ chain pick-3
//	chain pick-3 ─▶ map ep-3: (10.96.0.10, tcp, 80, random 0…2) ─▶ 10.244.1.7:8080
//
// There is one chain and one map for each number of endpoints ("class"), made when
// first needed and kept. Above 16 endpoints a class is a number of buckets that endpoints
// share out. See table.go for all the rules.
package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/knftables"
)

// Family is an address family: each has a table of its own.
type Family knftables.Family

// The two address families.
const (
	IPv4 = Family(knftables.IPv4Family)
	IPv6 = Family(knftables.IPv6Family)
)

// Has reports whether addr belongs to the family.
func (f Family) Has(addr netip.Addr) bool { return addr.Is4() == (f == IPv4) }

// Closed says what becomes of traffic to a frontend without endpoints.
type Closed string

// What can become of such traffic.
const (
	Reject Closed = "reject-it" // the client is told at once
	Drop   Closed = "drop-it"   // other nodes may have endpoints: the client tries again
)

// A Frontend is an address and port at which a Service answers.
type Frontend struct {
	Addr     netip.Addr
	Protocol string // tcp, udp or sctp
	Port     uint16

	// Endpoints take the traffic, in equal parts.
	Endpoints []netip.AddrPort
	// Closed is what happens when there are none.
	Closed Closed
	// ClusterIP says that the address is a Service's cluster IP.
	ClusterIP bool
	// External says that the address is reached from outside the cluster; the answer
	// must then come back through this node, so the traffic is masqueraded.
	External bool
	// Local, if not nil, takes the traffic from outside, which keeps its source address
	// (externalTrafficPolicy: Local). Endpoints then takes only that from inside.
	Local *[]netip.AddrPort
	// Affinity is how long a client stays with its endpoint; 0 for not at all.
	Affinity time.Duration
	// Restricted lets only clients in Sources through.
	Restricted bool
	Sources    []netip.Prefix
}

// key is the frontend as the first parts of an element's key.
func (f *Frontend) key(more ...string) []string {
	return append([]string{f.Addr.String(), f.Protocol, strconv.Itoa(int(f.Port))}, more...)
}

// exactClasses is the number of endpoints up to which each number has its own class.
const exactClasses = 16

// classOf returns the size of the class for n endpoints. Buckets are so many that
// shares differ by less than a tenth.
func classOf(n int) int {
	if n <= exactClasses {
		return n
	}
	size := 256
	for size < 16*n && size < 1<<16 {
		size *= 4
	}
	return size
}

// Elements adds what a frontend is made of to out.
func (f *Frontend) Elements(out Elements) {
	if f.ClusterIP {
		out.add("cluster-ips", nil, f.Addr.String())
	}
	if f.Restricted {
		out.add("restricted", nil, f.key()...)
		for _, p := range f.Sources {
			out.add("allowed", nil, f.key(p.String())...)
		}
	}
	if len(f.Endpoints) == 0 && (f.Local == nil || len(*f.Local) == 0) {
		out.add("closed", []string{"goto " + string(f.Closed)}, f.key()...)
		return
	}
	if f.Affinity > 0 {
		out.add(affineSet(f.Affinity), nil, f.key()...)
	}
	inside := pick(f.External && f.Local == nil, f.Affinity > 0, len(f.Endpoints))
	if f.Local == nil {
		out.add("services", []string{inside}, f.key()...)
	} else {
		out.add("services", []string{"goto local-traffic"}, f.key()...)
		if len(f.Endpoints) > 0 {
			out.add("inside", []string{inside}, f.key()...)
		}
		outside := "drop"
		if n := len(*f.Local); n > 0 {
			outside = pickLocal(f.Affinity > 0, n)
			f.spread("local-ep", *f.Local, out)
		}
		out.add("outside", []string{outside}, f.key()...)
	}
	f.spread("ep", f.Endpoints, out)
}

// spread deals the endpoints out over the slots of their class.
func (f *Frontend) spread(prefix string, endpoints []netip.AddrPort, out Elements) {
	size := classOf(len(endpoints))
	name := fmt.Sprintf("%s-%d", prefix, size)
	for i := range size {
		e := endpoints[i%len(endpoints)]
		out.add(name, []string{e.Addr().String(), strconv.Itoa(int(e.Port()))}, f.key(strconv.Itoa(i))...)
	}
	for _, e := range endpoints {
		out.add("hairpin", nil, e.Addr().String(), e.Addr().String())
	}
}

// pick names the chain that spreads traffic over n endpoints.
func pick(masquerade, affine bool, n int) string {
	name := fmt.Sprintf("pick-%d", classOf(n))
	if affine {
		name = "affine-" + name
	}
	if masquerade {
		name = "masq-" + name
	}
	return "goto " + name
}

func pickLocal(affine bool, n int) string {
	name := fmt.Sprintf("local-pick-%d", classOf(n))
	if affine {
		name = "affine-" + name
	}
	return "goto " + name
}

func affineSet(d time.Duration) string { return fmt.Sprintf("affine-%d", int(d.Seconds())) }

// Element identifies the frontend in the map of services.
func (f *Frontend) Element() Element { return Element{"services", strings.Join(f.key(), sep)} }

// EndpointKey is an endpoint as the value of an element.
func EndpointKey(e netip.AddrPort) string {
	return e.Addr().String() + sep + strconv.Itoa(int(e.Port()))
}

// ServiceCIDRs are the elements that say from where cluster IPs of a family come. Networks within others add nothing: the
// kernel refuses what overlaps.
func ServiceCIDRs(family Family, networks []netip.Prefix) Elements {
	out := Elements{}
	for _, n := range networks {
		within := func(o netip.Prefix) bool { return o.Bits() < n.Bits() && o.Overlaps(n) }
		if family.Has(n.Addr()) && !slices.ContainsFunc(networks, within) {
			out.add("service-cidrs", nil, n.Masked().String())
		}
	}
	return out
}
