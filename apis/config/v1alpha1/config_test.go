package v1alpha1

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	head := "apiVersion: config.leme.dev/v1alpha1\nkind: Cluster\n"
	for _, c := range []struct{ name, in, err string }{
		{"whole", head + `
name: two
dataDir: /var/lib/two
networking: {podCIDR: 10.10.0.0/16, serviceCIDR: 10.11.0.0/16, dnsDomain: example.org, apiServerPort: 7443, nodeIP: 192.0.2.1}
etcd: {servers: ["https://192.0.2.2:2379"], caFile: /a, certFile: /b, keyFile: /c}
components:
  kube-apiserver: {extraArgs: [{name: v, value: "4"}]}
  kube-scheduler: {binary: /usr/bin/kube-scheduler}
nodes: 3
node: {name: me, labels: {a: b}, taints: [{key: a, value: b, effect: NoSchedule}]}
`, ""},
		{"nothing but its kind", head, ""},
		{"another version", "apiVersion: config.leme.dev/v2\nkind: Cluster\n", "want apiVersion"},
		{"unknown field", head + "replicas: 3\n", `unknown field "replicas"`},
		{"unknown field in a list", head + "components: {kubelet: {extraArgs: [{flag: v}]}}\n", `unknown field "components.kubelet.extraArgs[0].flag"`},
		{"a field twice", head + "name: a\nname: b\n", "name"},
		{"wrong type", head + "name: [a]\n", "name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parsed, err := Parse([]byte(c.in))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got error %v, want %q", err, c.err)
				}
				return
			}
			if err == nil {
				err = parsed.Default()
			}
			if err == nil {
				err = parsed.Validate()
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		field  string
		change func(*Cluster)
	}{
		{"name", func(c *Cluster) { c.Name = "A b" }},
		{"dataDir", func(c *Cluster) { c.DataDir = "/" + strings.Repeat("x", 40) }},
		{"dataDir", func(c *Cluster) { c.DataDir = "/a b" }},
		{"dataDir", func(c *Cluster) { c.DataDir = "/" }},
		{"networking.podCIDR", func(c *Cluster) { c.Networking.PodCIDR = "fd00::/64" }},
		{"networking.podCIDR", func(c *Cluster) { c.Networking.PodCIDR = "10.0.0.0/25" }},
		{"networking.serviceCIDR", func(c *Cluster) { c.Networking.ServiceCIDR = "10.0.0.0" }},
		{"networking.serviceCIDR", func(c *Cluster) { c.Networking.PodCIDR, c.Networking.ServiceCIDR = "10.0.0.0/8", "10.96.0.0/16" }},
		{"networking.apiServerPort", func(c *Cluster) { c.Networking.APIServerPort = 70000 }},
		{"networking.nodeIP", func(c *Cluster) { c.Networking.NodeIP = "127.0.0.1" }},
		{"networking.dnsDomain", func(c *Cluster) { c.Networking.DNSDomain = "a..b" }},
		{"etcd.servers[0]", func(c *Cluster) { c.Etcd.Servers = []string{"192.0.2.1:2379"} }},
		{"etcd.servers", func(c *Cluster) { c.Etcd.CAFile = "/ca" }},
		{"etcd.keyFile", func(c *Cluster) { c.Etcd = Etcd{Servers: []string{"https://a:1"}, CertFile: "/c"} }},
		{"components[kube-dns]", func(c *Cluster) { c.Components = map[string]Component{"kube-dns": {}} }},
		{"components[kubelet].extraArgs[0].name", func(c *Cluster) {
			c.Components = map[string]Component{"kubelet": {ExtraArgs: []Arg{{Name: "--v"}}}}
		}},
		{"networking.nodeCIDR", func(c *Cluster) { c.Networking.NodeCIDR = "10.64.0.0/29" }},
		{"networking.nodeCIDR", func(c *Cluster) {
			c.Networking.PodCIDR, c.Networking.NodeCIDR = "10.64.0.0/16", "10.64.0.0/24"
		}},
		{"nodes", func(c *Cluster) { c.Nodes = -1 }},
		{"nodes", func(c *Cluster) { c.Nodes = 1000 }},
		{"node.name", func(c *Cluster) { c.Node.Name = "A_b" }},
		{"node.labels", func(c *Cluster) { c.Node.Labels = map[string]string{"-": ""} }},
	} {
		cluster := &Cluster{}
		if err := cluster.Default(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Validate(); err != nil {
			t.Fatalf("the defaults: %v", err)
		}
		c.change(cluster)
		if err := cluster.Validate(); err == nil || !strings.Contains(err.Error(), c.field+":") {
			t.Errorf("got %v, want an error of %s", err, c.field)
		}
	}
}
