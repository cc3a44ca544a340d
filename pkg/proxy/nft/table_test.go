package nft

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

const clusterIP = "10.96.0.10"

func at(ip string, port uint16, endpoints ...netip.AddrPort) Frontend {
	return Frontend{Addr: netip.MustParseAddr(ip), Protocol: "tcp", Port: port, Endpoints: endpoints, Closed: Reject, ClusterIP: ip == clusterIP}
}

func (l *lab) want(from, to, who, seenAs string) {
	l.t.Helper()
	gotWho, gotSeen := l.ask(from, to)
	if gotWho != who || gotSeen != seenAs {
		l.t.Errorf("%s asks %s: %q answers, which takes the client for %q; want %q and %q", from, to, gotWho, gotSeen, who, seenAs)
	}
}

func TestClusterIP(t *testing.T) {
	l := newLab(t, 3)
	one, two := l.serve("pod1", 8080), l.serve("pod2", 8080)
	l.apply("default/web", at(clusterIP, 80, one))

	l.want("pod3", clusterIP+":80", "pod1", "10.244.0.4")
	l.want("node", clusterIP+":80", "pod1", "10.244.0.1")   // masqueraded: an answer past the node would be lost
	l.want("client", clusterIP+":80", "pod1", "10.244.0.1") // likewise
	l.want("pod1", clusterIP+":80", "pod1", "10.244.0.1")   // hairpin: not from itself
	l.want("pod3", clusterIP+":81", "refused", "")          // a port that the Service does not have

	l.apply("default/web", at(clusterIP, 80, one, two))
	seen := map[string]int{}
	for range 60 {
		who, _ := l.ask("pod3", clusterIP+":80")
		seen[who]++
	}
	if seen["pod1"] < 10 || seen["pod2"] < 10 || seen["pod1"]+seen["pod2"] != 60 {
		t.Errorf("60 connections went to %v, want about 30 to each of pod1 and pod2", seen)
	}

	l.apply("default/web", at(clusterIP, 80))
	l.want("pod3", clusterIP+":80", "refused", "")
	l.want("node", clusterIP+":80", "refused", "")
	l.apply("default/web", at(clusterIP, 80, two))
	l.want("pod3", clusterIP+":80", "pod2", "10.244.0.4")
}

func TestManyEndpointsShareBuckets(t *testing.T) {
	l := newLab(t, 2)
	real := l.serve("pod1", 8080)
	endpoints := make([]netip.AddrPort, 20)
	for i := range endpoints {
		endpoints[i] = real
	}
	l.apply("default/big", at(clusterIP, 80, endpoints...))
	l.want("pod2", clusterIP+":80", "pod1", "10.244.0.3")
}

func TestExternalTraffic(t *testing.T) {
	l := newLab(t, 2)
	one := l.serve("pod1", 8080)
	f := at(nodeIP, 30080, one)
	f.External = true
	l.apply("default/web", f)
	l.want("client", nodeIP+":30080", "pod1", "10.244.0.1") // masqueraded
	l.want("node", nodeIP+":30080", "pod1", "10.244.0.1")

	f.Local = &[]netip.AddrPort{one}
	l.apply("default/web", f)
	l.want("client", nodeIP+":30080", "pod1", clientIP) // externalTrafficPolicy: Local keeps the source
	l.want("pod2", nodeIP+":30080", "pod1", "10.244.0.3")

	f.Local = &[]netip.AddrPort{}
	l.apply("default/web", f)
	l.want("client", nodeIP+":30080", "timeout", "") // another node will answer
	l.want("pod2", nodeIP+":30080", "pod1", "10.244.0.3")

	f.Local, f.Endpoints = nil, nil
	l.apply("default/web", f)
	l.want("client", nodeIP+":30080", "refused", "")
	l.want("node", nodeIP+":30080", "refused", "")
}

func TestSourceRanges(t *testing.T) {
	l := newLab(t, 1)
	one := l.serve("pod1", 8080)
	f := at("203.0.113.5", 80, one)
	f.External, f.Restricted = true, true
	f.Sources = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	l.apply("default/lb", f)
	l.want("client", "203.0.113.5:80", "timeout", "")
	f.Sources = append(f.Sources, netip.MustParsePrefix("192.0.2.0/24"))
	l.apply("default/lb", f)
	l.want("client", "203.0.113.5:80", "pod1", "10.244.0.1")
}

func TestSessionAffinity(t *testing.T) {
	l := newLab(t, 4)
	one, two, three := l.serve("pod1", 8080), l.serve("pod2", 8080), l.serve("pod3", 8080)
	f := at(clusterIP, 80, one, two, three)
	f.Affinity = time.Hour
	l.apply("default/web", f)

	first, _ := l.ask("pod4", clusterIP+":80")
	for range 20 {
		if who, _ := l.ask("pod4", clusterIP+":80"); who != first {
			t.Fatalf("the client was given %s first and then %s", first, who)
		}
	}
	// Its endpoint goes: the client gets another one and stays with that.
	rest := []netip.AddrPort{}
	for _, e := range []netip.AddrPort{one, two, three} {
		if l.hosts[first].ip != e.Addr().String() {
			rest = append(rest, e)
		}
	}
	f.Endpoints = rest
	l.apply("default/web", f)
	l.node.do(func() {
		err := l.table.ForgetAffinity(context.Background(), func(frontend Element, endpoint string) bool {
			return frontend == f.Element() && (endpoint == EndpointKey(rest[0]) || endpoint == EndpointKey(rest[1]))
		})
		if err != nil {
			t.Error(err)
		}
	})
	second, _ := l.ask("pod4", clusterIP+":80")
	if second == first || second == "refused" || second == "timeout" {
		t.Fatalf("%q answers after %s went", second, first)
	}
	for range 20 {
		if who, _ := l.ask("pod4", clusterIP+":80"); who != second {
			t.Fatalf("the client was given %s and then %s", second, who)
		}
	}
}

// A table that somebody else wrote, or that is left from before, is replaced whole.
func TestApplyStartsOver(t *testing.T) {
	l := newLab(t, 2)
	one := l.serve("pod1", 8080)
	l.apply("default/old", at("10.96.0.11", 80, one))
	l.apply("default/web", at(clusterIP, 80, one))

	fresh := NewState()
	l.state = fresh
	l.node.do(func() {
		table, err := NewTable(IPv4, "kube-proxy-test", Rules{Mark: 1 << 14})
		must(t, err)
		l.table = table
	})
	l.apply("default/web", at(clusterIP, 80, one))
	l.want("pod2", clusterIP+":80", "pod1", "10.244.0.3")
	if who, _ := l.ask("pod2", "10.96.0.11:80"); who == "pod1" {
		t.Error("a Service of the table before still works")
	}

	// Someone deletes the table behind our back: the next change fails, the one after
	// that writes everything.
	l.node.do(func() { must(t, l.table.Remove(context.Background())); l.table.built = true })
	l.state.Set("default/web", nil)
	l.node.do(func() {
		if err := l.table.Apply(context.Background(), l.state); err == nil {
			t.Error("writing into a table that is gone succeeds")
		}
	})
	l.apply("default/web", at(clusterIP, 80, one))
	l.want("pod2", clusterIP+":80", "pod1", "10.244.0.3")
}

// What asks for a cluster IP that no Service has must not leave the cluster, where somebody else may have the address.
func TestNoServiceHasTheAddress(t *testing.T) {
	l := newLab(t, 1)
	web := l.serve("pod1", 8080)
	l.serve("client", 80) // what leaves the node comes to it
	l.hosts["client"].do(func() {
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		address(t, lo, "10.96.0.77/32")
	})
	l.apply("ns/web", at(clusterIP, 80, web))
	l.want("node", "10.96.0.77:80", "client", nodeIP)
	l.want("pod1", "10.96.0.77:80", "client", l.hosts["pod1"].ip)
	networks := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("10.96.0.0/24"), netip.MustParsePrefix("fd00::/112")}
	l.state.Set("ServiceCIDRs", ServiceCIDRs(IPv4, networks))
	l.sync()
	l.want("node", "10.96.0.77:80", "timeout", "")
	l.want("pod1", "10.96.0.77:80", "timeout", "")
	l.want("node", "10.96.0.10:80", "pod1", "10.244.0.1")
}
