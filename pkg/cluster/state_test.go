package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

func TestNewState(t *testing.T) {
	free := func(used ...int) func(int) bool { return func(p int) bool { return !slices.Contains(used, p) } }
	prefixes := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	second := defaultPorts
	second.APIServer, second.Etcd, second.Kubelet = 6543, 2479, 10350
	asked := defaultPorts
	asked.APIServer = 7000
	for _, c := range []struct {
		name     string
		net      v1alpha1.Networking
		machine  host
		pods     string
		services string
		ports    Ports
		table    string
		err      string
	}{
		{
			name: "an empty machine", machine: host{portFree: free()},
			pods: "10.244.0.0/16", services: "10.96.0.0/16", ports: defaultPorts, table: "kube-proxy",
		}, {
			name:    "beside another cluster",
			machine: host{portFree: free(6443, 2379, 10250), inUse: prefixes("0.0.0.0/0", "10.244.0.0/24", "192.0.2.0/24"), tables: []string{"filter", "kube-proxy"}},
			pods:    "10.245.0.0/16", services: "10.97.0.0/16", ports: second, table: "leme-391972-proxy",
		}, {
			name: "ranges and port asked for", machine: host{portFree: free()},
			net:  v1alpha1.Networking{PodCIDR: "172.20.0.0/16", ServiceCIDR: "172.21.0.0/16", APIServerPort: 7000},
			pods: "172.20.0.0/16", services: "172.21.0.0/16", ports: asked, table: "kube-proxy",
		}, {
			name: "the port asked for is in use", machine: host{portFree: free(7000)},
			net: v1alpha1.Networking{APIServerPort: 7000}, err: "port 7000 for the API server (networking.apiServerPort) is in use",
		}, {
			name: "the range asked for is in use", machine: host{portFree: free(), inUse: prefixes("10.0.0.0/8")},
			net: v1alpha1.Networking{PodCIDR: "10.1.0.0/16"}, err: "networking.podCIDR: 10.1.0.0/16 overlaps with 10.0.0.0/8",
		}, {
			name: "no range is free", machine: host{portFree: free(), inUse: prefixes("10.0.0.0/8")},
			err: "networking.podCIDR: no range from 10.244.0.0/16 on is free",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := newState(v1alpha1.Cluster{DataDir: "/var/tmp/lc1", Networking: c.net}, c.machine)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.PodCIDR != c.pods || s.ServiceCIDR != c.services || s.ProxyTable != c.table {
				t.Errorf("got pods %s, services %s, table %s; want %s, %s, %s", s.PodCIDR, s.ServiceCIDR, s.ProxyTable, c.pods, c.services, c.table)
			}
			if diff := cmp.Diff(c.ports, s.Ports); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStateUpdate(t *testing.T) {
	s := testState(t, "/var/lib/leme")
	c := s.Config
	c.Node.Labels = map[string]string{"a": "b"}
	if err := s.update(c); err != nil || s.Config.Node.Labels["a"] != "b" {
		t.Errorf("a label: %v, %v", s.Config.Node.Labels, err)
	}
	c.Networking.PodCIDR = "172.16.0.0/16"
	if err := s.update(c); err == nil || !strings.Contains(err.Error(), "networking.podCIDR") {
		t.Errorf("another range: %v", err)
	}
}

func TestFilterResolvConf(t *testing.T) {
	for _, c := range []struct {
		in, out  string
		upstream bool
	}{
		{"", "", false},
		{"# by hand\nnameserver 192.0.2.1\nsearch  example.org\n", "nameserver 192.0.2.1\nsearch example.org\n", true},
		{"nameserver 127.0.0.53\noptions edns0\n", "options edns0\n", false},
		{"nameserver ::1\nnameserver 2001:db8::1\n", "nameserver 2001:db8::1\n", true},
	} {
		if out, upstream := filterResolvConf(c.in); out != c.out || upstream != c.upstream {
			t.Errorf("filterResolvConf(%q) = %q, %v; want %q, %v", c.in, out, upstream, c.out, c.upstream)
		}
	}
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"a\nb\nc\n", 0, "a\nb\nc\n"}, {"a\nb\nc\n", 1, "c\n"}, {"a\nb\nc", 2, "b\nc"}, {"a\nb\n", 5, "a\nb\n"}, {"", 3, ""},
	} {
		if got := lastLines(c.text, c.n); got != c.want {
			t.Errorf("lastLines(%q, %d) = %q, want %q", c.text, c.n, got, c.want)
		}
	}
}
