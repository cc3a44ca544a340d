package cluster

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

// nodeComponents are the components that every node runs.
var nodeComponents = []string{"kubelet", "kube-proxy"}

// A nodeSpec is what a node has to know of itself and of its cluster. The first node's
// is part of the cluster's state; a further one reads its own from a file.
type nodeSpec struct {
	Name string `json:"name"`
	IP   string `json:"ip"`
	// Network is the name of the pod network.
	Network string `json:"network"`
	// PodCIDR is the range of the node's pods, if it is known before the cluster says so.
	PodCIDR string `json:"podCIDR,omitempty"`

	ClusterCIDR string `json:"clusterCIDR"` // of all pods
	DNSIP       string `json:"dnsIP"`
	DNSDomain   string `json:"dnsDomain"`

	Ports      Ports             `json:"ports"`
	ProxyTable string            `json:"proxyTable"`
	CgroupRoot string            `json:"cgroupRoot"`
	Labels     map[string]string `json:"labels,omitempty"`
	Taints     []corev1.Taint    `json:"taints,omitempty"`
	RuntimeDir string            `json:"runtimeDir"`
	// Components are the node's alone.
	Components map[string]v1alpha1.Component `json:"components,omitempty"`
	// Environment marks every process of the node that is not in a container, for
	// finding what a crash left behind.
	Environment []string `json:"environment"`
}

// firstNode is this machine as a node.
func firstNode(s *State, ip string, with map[string]string) *nodeSpec {
	n := s.nodeSpec(s.Config.Node.Name, ip, with)
	n.PodCIDR = s.nodePodCIDR()
	n.Ports, n.ProxyTable, n.CgroupRoot = s.Ports, s.ProxyTable, "/"+s.id()
	n.Labels, n.Taints, n.RuntimeDir = s.Config.Node.Labels, s.Config.Node.Taints, s.Config.RuntimeDir
	n.Environment = []string{dataDir(s.Config.DataDir).environment()}
	return n
}

// furtherNode is a node within this machine, as it sees itself: what it need not share
// is where it is on every machine.
func furtherNode(s *State, f FurtherNode, with map[string]string) *nodeSpec {
	n := s.nodeSpec(f.Name, s.nodeIP(f).String(), with)
	n.Ports, n.ProxyTable, n.CgroupRoot = defaultPorts, defaultProxyTable, "/"
	n.RuntimeDir = machineRuntime
	n.Environment = []string{dataDir(s.Config.DataDir).environment(), nodeVariable + "=" + f.Name}
	for name, c := range n.Components {
		if c.Binary != "" {
			c.Binary = machineDir.binary(name)
			n.Components[name] = c
		}
	}
	return n
}

// nodeSpec is what all nodes have in common.
func (s *State) nodeSpec(name, ip string, with map[string]string) *nodeSpec {
	n := &nodeSpec{
		Name: name, IP: ip, Network: s.id(),
		ClusterCIDR: s.PodCIDR, DNSIP: s.dnsIP(), DNSDomain: s.Config.Networking.DNSDomain,
		Components: map[string]v1alpha1.Component{},
	}
	for _, c := range nodeComponents {
		component := s.Config.Components[c]
		component.Binary = s.binary(name, c, with)
		n.Components[c] = component
	}
	return n
}

// binary is the program that a component runs from on a node, or "" for leme: what was
// asked for this time, for this node, for the cluster.
func (s *State) binary(node, component string, with map[string]string) string {
	for _, b := range []string{with[component], s.Binaries[node][component], s.Config.Components[component].Binary} {
		if b == InLeme {
			return ""
		}
		if b != "" {
			return b
		}
	}
	return ""
}

// setBinary chooses a component's program, on one node or, if node is "", on all.
func (s *State) setBinary(node, component, binary string) {
	if node != "" {
		if s.Binaries == nil {
			s.Binaries = map[string]map[string]string{}
		}
		if s.Binaries[node] == nil {
			s.Binaries[node] = map[string]string{}
		}
		s.Binaries[node][component] = binary
		return
	}
	for node := range s.Binaries {
		if delete(s.Binaries[node], component); len(s.Binaries[node]) == 0 {
			delete(s.Binaries, node)
		}
	}
	if binary == InLeme {
		binary = ""
	}
	if s.Config.Components == nil {
		s.Config.Components = map[string]v1alpha1.Component{}
	}
	c := s.Config.Components[component]
	c.Binary = binary
	if s.Config.Components[component] = c; binary == "" && len(c.ExtraArgs) == 0 {
		delete(s.Config.Components, component)
	}
}

// gateway is this machine's address on the links to further nodes.
func (s *State) gateway() netip.Addr { return s.nodeAddress(1) }

func (s *State) nodeIP(f FurtherNode) netip.Addr { return s.nodeAddress(f.Number) }

func (s *State) nodeAddress(number int) netip.Addr {
	a := netip.MustParsePrefix(s.NodeCIDR).Addr()
	for range number {
		a = a.Next()
	}
	return a
}

// nodeServer is the API server as further nodes reach it.
func (s *State) nodeServer() string {
	return fmt.Sprintf("https://%s:%d", s.gateway(), s.Ports.APIServer)
}

// setNodes gives a cluster the number of nodes that its user asks for. Zero asks for none.
func (s *State) setNodes(count int) error {
	have := 1 + len(s.Nodes)
	if count != 0 && count < have {
		return fmt.Errorf("nodes: the cluster has %d nodes, not %d: `leme node remove` removes one", have, count)
	}
	for range count - have {
		if _, err := s.addNode(""); err != nil {
			return err
		}
	}
	return nil
}

// addNode adds a further node. Without a name it is called after the first node and
// its own number.
func (s *State) addNode(name string) (FurtherNode, error) {
	f := FurtherNode{Name: name, Number: 2}
	slices.SortFunc(s.Nodes, func(a, b FurtherNode) int { return a.Number - b.Number })
	for _, other := range s.Nodes {
		if other.Number == f.Number {
			f.Number++
		}
	}
	if name == "" {
		f.Name = fmt.Sprintf("%s-%d", s.Config.Node.Name, f.Number)
	}
	if _, ok := s.node(f.Name); ok || f.Name == s.Config.Node.Name {
		return f, fmt.Errorf("there is a node %s already", f.Name)
	}
	if most := min(v1alpha1.MaxNodes, podRanges(s.PodCIDR), addresses(s.NodeCIDR)-2); f.Number > most {
		return f, fmt.Errorf("the cluster can have %d nodes at most: its pods have addresses of %s, its nodes of %s", most, s.PodCIDR, s.NodeCIDR)
	}
	s.Nodes = append(s.Nodes, f)
	return f, nil
}

// node returns the further node of this name.
func (s *State) node(name string) (*FurtherNode, bool) {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i], true
		}
	}
	return nil, false
}

func (s *State) nodeNames() []string {
	var out []string
	for _, f := range s.Nodes {
		out = append(out, f.Name)
	}
	return out
}

func (s *State) removeNode(name string) {
	s.Nodes = slices.DeleteFunc(s.Nodes, func(f FurtherNode) bool { return f.Name == name })
	delete(s.Binaries, name)
}

// podRanges is how many nodes' worth of addresses a range of pods has: a node gets 256.
func podRanges(cidr string) int { return addresses(cidr) / 256 }

func addresses(cidr string) int { return 1 << (32 - netip.MustParsePrefix(cidr).Bits()) }

func loadNodeSpec(path string) (*nodeSpec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var n nodeSpec
	if err := yaml.UnmarshalStrict(data, &n); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &n, nil
}

func (n *nodeSpec) save(path string) error {
	data, err := yaml.Marshal(n)
	if err != nil {
		return err
	}
	return writeFile(path, data, 0o600)
}
