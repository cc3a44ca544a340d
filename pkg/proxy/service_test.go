package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/proxy/nft"
)

// slice makes an EndpointSlice for port http/8080 out of lines such as
// "10.0.0.1 node1 zone=a terminating".
func slice(lines ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080), Protocol: ptr.To(v1.ProtocolTCP)}},
	}
	for _, line := range lines {
		words := strings.Fields(line)
		e := discoveryv1.Endpoint{Addresses: words[:1], NodeName: &words[1], Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}
		for _, w := range words[2:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "zone":
				e.Hints = hints(e.Hints)
				e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: value})
			case "node":
				e.Hints = hints(e.Hints)
				e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: value})
			case "terminating":
				e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
			case "unready":
				e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(false)}
			default:
				panic(w)
			}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func hints(h *discoveryv1.EndpointHints) *discoveryv1.EndpointHints {
	if h == nil {
		return &discoveryv1.EndpointHints{}
	}
	return h
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		name           string
		endpoints      []string
		cluster, local string
		healthy        int
	}{
		{"none", nil, "", "", 0},
		{"all ready", []string{"10.0.0.1 here", "10.0.0.2 there"}, "1 2", "1", 1},
		{"unready are left out", []string{"10.0.0.1 here unready", "10.0.0.2 there"}, "2", "", 0},
		{"terminating are left out while one is ready", []string{"10.0.0.1 here terminating", "10.0.0.2 there"}, "2", "1", 0},
		{"terminating serve when none is ready", []string{"10.0.0.1 here terminating", "10.0.0.2 there unready"}, "1", "1", 0},
		{"hints for this zone", []string{"10.0.0.1 here zone=a", "10.0.0.2 there zone=b"}, "1", "1", 1},
		{"hints for other zones only", []string{"10.0.0.1 here zone=c", "10.0.0.2 there zone=b"}, "1 2", "1", 1},
		{"an endpoint without hints", []string{"10.0.0.1 here zone=a", "10.0.0.2 there"}, "1 2", "1", 1},
		{"hints for this node before those for its zone", []string{"10.0.0.1 here zone=a node=here", "10.0.0.2 there zone=a node=there"}, "1", "1", 1},
		{"twice the same", []string{"10.0.0.1 here unready", "10.0.0.1 here"}, "1", "1", 1},
	} {
		all, here := endpointsOf([]*discoveryv1.EndpointSlice{slice(tc.endpoints...)}, "http", v1.ProtocolTCP, discoveryv1.AddressTypeIPv4), node{name: "here", zone: "a"}
		got := choose(all, here)
		if cluster, local := last(got.cluster), last(got.local); cluster != tc.cluster || local != tc.local {
			t.Errorf("%s: cluster %q, local %q; want %q, %q", tc.name, cluster, local, tc.cluster, tc.local)
		}
		if healthy := readyHere(all, here); healthy != tc.healthy {
			t.Errorf("%s: %d are healthy here, want %d", tc.name, healthy, tc.healthy)
		}
	}
}

// last writes addresses as their last byte each.
func last(list []netip.AddrPort) string {
	var out []string
	for _, a := range list {
		out = append(out, fmt.Sprint(a.Addr().As4()[3]))
	}
	return strings.Join(out, " ")
}

func TestFrontends(t *testing.T) {
	endpoints := []string{"10.0.0.1 here", "10.0.0.2 there"}
	web := func(change func(*v1.Service)) *v1.Service {
		s := &v1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: v1.ServiceSpec{
				Type: v1.ServiceTypeClusterIP, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
				Ports: []v1.ServicePort{{Name: "http", Port: 80, Protocol: v1.ProtocolTCP}},
			},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	for _, tc := range []struct {
		name      string
		svc       *v1.Service
		endpoints []string
		want      []string // the plan, without the hairpin and cluster IP elements
	}{
		{"cluster IP", web(nil), endpoints, []string{
			"+ ep-2 { 10.96.0.10 . tcp . 80 . 0 : 10.0.0.1 . 8080 }",
			"+ ep-2 { 10.96.0.10 . tcp . 80 . 1 : 10.0.0.2 . 8080 }",
			"+ services { 10.96.0.10 . tcp . 80 : goto pick-2 }",
		}},
		{"no endpoints", web(nil), nil, []string{"+ closed { 10.96.0.10 . tcp . 80 : goto reject-it }"}},
		{"headless", web(func(s *v1.Service) { s.Spec.ClusterIP = v1.ClusterIPNone }), endpoints, nil},
		{"external name", web(func(s *v1.Service) { s.Spec.Type, s.Spec.ClusterIP = v1.ServiceTypeExternalName, "" }), endpoints, nil},
		{"another proxy's", web(func(s *v1.Service) { s.Labels = map[string]string{labelServiceProxyName: "mesh"} }), endpoints, nil},
		{"affinity", web(func(s *v1.Service) { s.Spec.SessionAffinity = v1.ServiceAffinityClientIP }), endpoints[:1], []string{
			"+ affine-10800 { 10.96.0.10 . tcp . 80 }",
			"+ ep-1 { 10.96.0.10 . tcp . 80 . 0 : 10.0.0.1 . 8080 }",
			"+ services { 10.96.0.10 . tcp . 80 : goto affine-pick-1 }",
		}},
		{"internal traffic stays on the node", web(func(s *v1.Service) {
			s.Spec.InternalTrafficPolicy = ptr.To(v1.ServiceInternalTrafficPolicyLocal)
		}), endpoints[1:], []string{"+ closed { 10.96.0.10 . tcp . 80 : goto drop-it }"}},
		{"node port", web(func(s *v1.Service) {
			s.Spec.Type = v1.ServiceTypeNodePort
			s.Spec.Ports[0].NodePort = 30080
		}), endpoints[:1], []string{
			"+ ep-1 { 10.96.0.10 . tcp . 80 . 0 : 10.0.0.1 . 8080 }",
			"+ ep-1 { 192.0.2.1 . tcp . 30080 . 0 : 10.0.0.1 . 8080 }",
			"+ services { 10.96.0.10 . tcp . 80 : goto pick-1 }",
			"+ services { 192.0.2.1 . tcp . 30080 : goto masq-pick-1 }",
		}},
		{"load balancer, traffic from outside stays on the node", web(func(s *v1.Service) {
			s.Spec.Type = v1.ServiceTypeLoadBalancer
			s.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
			s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.7/24"}
			s.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{
				{IP: "203.0.113.1"}, {IP: "203.0.113.2", IPMode: ptr.To(v1.LoadBalancerIPModeProxy)}, {Hostname: "lb.example"},
			}
		}), endpoints, []string{
			"+ allowed { 203.0.113.1 . tcp . 80 . 198.51.100.0/24 }",
			"+ ep-2 { 10.96.0.10 . tcp . 80 . 0 : 10.0.0.1 . 8080 }",
			"+ ep-2 { 10.96.0.10 . tcp . 80 . 1 : 10.0.0.2 . 8080 }",
			"+ ep-2 { 203.0.113.1 . tcp . 80 . 0 : 10.0.0.1 . 8080 }",
			"+ ep-2 { 203.0.113.1 . tcp . 80 . 1 : 10.0.0.2 . 8080 }",
			"+ inside { 203.0.113.1 . tcp . 80 : goto pick-2 }",
			"+ local-ep-1 { 203.0.113.1 . tcp . 80 . 0 : 10.0.0.1 . 8080 }",
			"+ outside { 203.0.113.1 . tcp . 80 : goto local-pick-1 }",
			"+ restricted { 203.0.113.1 . tcp . 80 }",
			"+ services { 10.96.0.10 . tcp . 80 : goto pick-2 }",
			"+ services { 203.0.113.1 . tcp . 80 : goto local-traffic }",
		}},
	} {
		n := node{name: "here", nodePortIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
		list := frontends(tc.svc, []*discoveryv1.EndpointSlice{slice(tc.endpoints...)}, n, nft.IPv4)
		wanted := nft.Elements{}
		for i := range list {
			list[i].Elements(wanted)
		}
		s := nft.NewState()
		s.Set("default/web", wanted)
		got := slices.DeleteFunc(strings.Split(strings.TrimSpace(s.Plan().String()), "\n"), func(line string) bool {
			return line == "" || strings.HasPrefix(line, "+ hairpin") || strings.HasPrefix(line, "+ cluster-ips")
		})
		if len(got) == 0 {
			got = nil
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tc.name, diff)
		}
	}
}

func TestStaleFlows(t *testing.T) {
	ap := netip.MustParseAddrPort
	d := datagramTargets{}
	d.add(&nft.Frontend{Addr: netip.MustParseAddr("10.96.0.10"), Port: 53, Protocol: "udp", Endpoints: []netip.AddrPort{ap("10.0.0.1:53")}})
	d.add(&nft.Frontend{Addr: netip.MustParseAddr("10.96.0.10"), Port: 53, Protocol: "tcp"})
	for _, tc := range []struct {
		to, by string
		want   bool
	}{
		{"10.96.0.10:53", "10.0.0.1:53", false},
		{"10.96.0.10:53", "10.0.0.2:53", true},   // an endpoint that is gone
		{"10.96.0.10:53", "10.96.0.10:53", true}, // never translated: there were no endpoints
		{"192.0.2.9:53", "192.0.2.9:53", false},  // not ours
	} {
		if got := d.stale(ap(tc.to), ap(tc.by)); got != tc.want {
			t.Errorf("flow to %s answered by %s: stale %v, want %v", tc.to, tc.by, got, tc.want)
		}
	}
}
