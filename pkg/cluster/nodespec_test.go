package cluster

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

func TestAddNode(t *testing.T) {
	s := testState(t, "/var/lib/leme")
	for _, step := range []struct {
		remove, add string
		name, ip    string
		err         string
	}{
		{add: "", name: "node-2", ip: "10.64.0.2"},
		{add: "edge", name: "edge", ip: "10.64.0.3"},
		{add: "edge", err: "there is a node edge already"},
		{add: "node", err: "there is a node node already"},
		{add: "", name: "node-4", ip: "10.64.0.4"},
		{remove: "node-2", add: "", name: "node-2", ip: "10.64.0.2"},
	} {
		s.removeNode(step.remove)
		f, err := s.addNode(step.add)
		if step.err != "" {
			if err == nil || err.Error() != step.err {
				t.Errorf("adding %q: %v, want %q", step.add, err, step.err)
			}
			continue
		}
		if err != nil || f.Name != step.name || s.nodeIP(f).String() != step.ip {
			t.Errorf("adding %q: %s at %s, %v; want %s at %s", step.add, f.Name, s.nodeIP(f), err, step.name, step.ip)
		}
	}
}

func TestSetNodes(t *testing.T) {
	for _, c := range []struct {
		name    string
		podCIDR string
		first   int
		then    int
		want    int
		err     string
	}{
		{name: "one is there anyway", first: 0, want: 1},
		{name: "three", first: 3, want: 3},
		{name: "more", first: 2, then: 4, want: 4},
		{name: "not said", first: 2, then: 0, want: 2},
		{name: "fewer", first: 3, then: 2, err: "the cluster has 3 nodes, not 2"},
		{name: "no room", podCIDR: "10.244.0.0/23", first: 3, err: "the cluster can have 2 nodes at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testState(t, "/var/lib/leme")
			if c.podCIDR != "" {
				s.PodCIDR = c.podCIDR
			}
			err := s.setNodes(c.first)
			if err == nil {
				err = s.setNodes(c.then)
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if have := 1 + len(s.Nodes); err != nil || have != c.want {
				t.Errorf("got %d nodes, %v; want %d", have, err, c.want)
			}
		})
	}
}

// What was chosen for this time goes before what was chosen for a node, and that before
// what was chosen for the cluster.
func TestBinary(t *testing.T) {
	s := testState(t, "/var/lib/leme")
	want := func(first, second string, with map[string]string) {
		t.Helper()
		if a, b := s.binary("node", "kubelet", with), s.binary("node-2", "kubelet", with); a != first || b != second {
			t.Errorf("got %q and %q, want %q and %q", a, b, first, second)
		}
	}
	want("", "", nil)
	s.setBinary("", "kubelet", "/a")
	want("/a", "/a", nil)
	s.setBinary("node-2", "kubelet", "/b")
	want("/a", "/b", nil)
	want("/c", "/c", map[string]string{"kubelet": "/c"})
	want("", "", map[string]string{"kubelet": InLeme})
	s.setBinary("node-2", "kubelet", InLeme)
	want("/a", "", nil)
	s.setBinary("", "kubelet", InLeme)
	want("", "", nil)
	if len(s.Binaries)+len(s.Config.Components) > 0 {
		t.Errorf("nothing is chosen, but %v and %v are kept", s.Binaries, s.Config.Components)
	}
}

func TestFurtherNode(t *testing.T) {
	s := testState(t, "/srv/cluster")
	s.Ports.Kubelet, s.ProxyTable = 10350, "leme-1-proxy"
	s.Config.Components = map[string]v1alpha1.Component{"kubelet": {Binary: "/usr/bin/kubelet", ExtraArgs: []v1alpha1.Arg{{Name: "v", Value: "4"}}}}
	f, err := s.addNode("")
	if err != nil {
		t.Fatal(err)
	}
	n := furtherNode(s, f, nil)
	all := nodeArgs(machineDir, n)
	for component, want := range map[string][]string{
		"kubelet": {
			"--config=/var/lib/leme/config/kubelet.yaml", "--hostname-override=node-2", "--node-ip=10.64.0.2",
			"--root-dir=/var/lib/leme/kubelet", "--v=4",
		},
		"kube-proxy": {"--config=/var/lib/leme/config/kube-proxy.yaml", "--hostname-override=node-2"},
	} {
		for _, arg := range want {
			if !slices.Contains(all[component], arg) {
				t.Errorf("%s lacks %s: %v", component, arg, all[component])
			}
		}
	}
	for _, args := range all {
		for _, arg := range args {
			if strings.Contains(arg, "/srv/cluster") || strings.HasPrefix(arg, "--nftables-table") {
				t.Errorf("%s is about the machine and not the node", arg)
			}
		}
	}
	if c := kubeletConfig(machineDir, n); c.Port != 10250 || c.CgroupRoot != "/" {
		t.Errorf("the kubelet has port %d and cgroup %s", c.Port, c.CgroupRoot)
	}
	if got := n.Components["kubelet"].Binary; got != "/var/lib/leme/bin/kubelet" {
		t.Errorf("the kubelet runs from %s", got)
	}
	if s.nodeServer() != "https://10.64.0.1:6443" {
		t.Errorf("the API server is at %s", s.nodeServer())
	}
}

// A node has keys of its own, and of the authority the certificate alone.
func TestNodePKI(t *testing.T) {
	s, cluster, node := testState(t, "/var/lib/leme"), t.TempDir(), t.TempDir()
	if err := ensurePKI(cluster, leaves(s, "192.0.2.7"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := ensureNodePKI(cluster, node, nodeLeaves("node-2", "10.64.0.2"), time.Now()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(node)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Name()] = true
	}
	want := map[string]bool{"ca.crt": true}
	for _, name := range []string{"kubelet", "kubelet-client", "kube-proxy", "registry-client"} {
		want[name+".crt"], want[name+".key"] = true, true
	}
	if !maps.Equal(have, want) {
		t.Errorf("the node has %v, want %v", have, want)
	}
	p, err := readPair(filepath.Join(node, "kubelet-client"))
	if err != nil {
		t.Fatal(err)
	}
	if cn := p.cert.Subject.CommonName; cn != "system:node:node-2" {
		t.Errorf("the kubelet is %s", cn)
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "bin", "to")
	for _, content := range []string{"one", "another"} {
		if err := os.WriteFile(from, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := install(from, to); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(to); err != nil || string(got) != content {
			t.Errorf("got %q, %v; want %q", got, err, content)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(to)); len(entries) != 1 {
		t.Errorf("left beside it: %v", entries)
	}
}
