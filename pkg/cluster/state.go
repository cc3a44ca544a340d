package cluster

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/leme-k8s/leme/apis/config/v1alpha1"
)

// State is what a cluster keeps in cluster.yaml: its configuration, and what was
// chosen for it when it first started.
type State struct {
	Config      v1alpha1.Cluster `json:"config"`
	PodCIDR     string           `json:"podCIDR"`
	ServiceCIDR string           `json:"serviceCIDR"`
	Ports       Ports            `json:"ports"`
	// ProxyTable is the name of the proxy's nftables tables.
	ProxyTable string `json:"proxyTable"`
	// NodeCIDR is the range of the addresses of further nodes. Its first address is
	// this machine's, the others' gateway.
	NodeCIDR string `json:"nodeCIDR,omitempty"`
	// Nodes are the further nodes.
	Nodes []FurtherNode `json:"nodes,omitempty"`
	// Binaries are programs that components run from on a single node: by node and
	// component. They go before Config.Components; InLeme stands for no program.
	Binaries map[string]map[string]string `json:"binaries,omitempty"`
}

// A FurtherNode is a node of the cluster that is not this machine itself.
type FurtherNode struct {
	Name string `json:"name"`
	// Number tells the cluster's nodes apart in addresses and names of interfaces. The
	// first node is number one.
	Number int `json:"number"`
	// Stopped is whether it is switched off.
	Stopped bool `json:"stopped,omitempty"`
}

// InLeme is what the user writes for a component that runs inside leme.
const InLeme = "leme"

// defaultProxyTable is where every kube-proxy keeps its rules. A second cluster
// of the machine uses another name.
const defaultProxyTable = "kube-proxy"

// Ports are the ports of a cluster on its machine.
type Ports struct {
	APIServer         int `json:"apiServer"`
	Etcd              int `json:"etcd"`
	Registry          int `json:"registry"`
	Kubelet           int `json:"kubelet"`
	KubeletHealth     int `json:"kubeletHealth"`
	ProxyMetrics      int `json:"proxyMetrics"`
	ProxyHealth       int `json:"proxyHealth"`
	ControllerManager int `json:"controllerManager"`
	Scheduler         int `json:"scheduler"`
}

// defaultPorts are those of every Kubernetes, and one for the registry of images.
var defaultPorts = Ports{
	APIServer: 6443, Etcd: 2379, Registry: 6442,
	Kubelet: 10250, KubeletHealth: 10248, ProxyMetrics: 10249, ProxyHealth: 10256,
	ControllerManager: 10257, Scheduler: 10259,
}

// A port with the name of what listens on it.
type port struct {
	number *int
	use    string
}

func (p *Ports) all() []port {
	return []port{
		{&p.APIServer, "the API server"}, {&p.Etcd, "etcd"}, {&p.Registry, "the registry of images"},
		{&p.Kubelet, "the kubelet"}, {&p.KubeletHealth, "the kubelet's health check"},
		{&p.ProxyMetrics, "the proxy's metrics"}, {&p.ProxyHealth, "the proxy's health check"},
		{&p.ControllerManager, "the controller manager"}, {&p.Scheduler, "the scheduler"},
	}
}

// loadState returns fs.ErrNotExist for a directory that holds no cluster.
func loadState(d dataDir) (*State, error) {
	data, err := os.ReadFile(d.stateFile())
	if err != nil {
		return nil, err
	}
	var s State
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", d.stateFile(), err)
	}
	s.Config.DataDir = string(d) // the directory may have been moved
	return &s, nil
}

func (s *State) save() error {
	d := dataDir(s.Config.DataDir)
	data, err := yaml.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	return writeFile(d.stateFile(), data, 0o600)
}

// clone is a copy to change: others go on reading what they have.
func (s *State) clone() *State {
	out := *s
	out.Config = *s.Config.DeepCopy()
	out.Nodes = slices.Clone(s.Nodes)
	out.Binaries = map[string]map[string]string{}
	for node, binaries := range s.Binaries {
		out.Binaries[node] = maps.Clone(binaries)
	}
	return &out
}

func (s *State) server() string { return fmt.Sprintf("https://127.0.0.1:%d", s.Ports.APIServer) }

// id tells clusters of one machine apart where names are the machine's: it is short,
// and the same for the same data directory.
func (s *State) id() string {
	h := fnv.New32a()
	h.Write([]byte(s.Config.DataDir))
	return fmt.Sprintf("leme-%06x", h.Sum32()&0xffffff)
}

// dnsIP is the address of the cluster's DNS: the tenth of the Services.
func (s *State) dnsIP() string {
	ip, _ := nthAddress(s.ServiceCIDR, 10)
	return ip
}

// nodePodCIDR is the range of the first node's pods, the one that the controller
// manager gives it too.
func (s *State) nodePodCIDR() string {
	p, err := netip.ParsePrefix(s.PodCIDR)
	if err != nil || p.Bits() >= 24 {
		return s.PodCIDR
	}
	return netip.PrefixFrom(p.Addr(), 24).String()
}

func nthAddress(cidr string, n int) (string, error) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return "", err
	}
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a.String(), nil
}

// host is what of this machine decides what a new cluster may take.
type host struct {
	portFree func(int) bool
	inUse    []netip.Prefix // addresses and routes
	tables   []string       // of nftables
}

// newState chooses ports and ranges for a cluster that starts for the first time.
// What the configuration asks for is taken as it is, and is an error if it is in use.
func newState(c v1alpha1.Cluster, m host) (*State, error) {
	s := &State{Config: c, Ports: defaultPorts, ProxyTable: defaultProxyTable}
	if slices.Contains(m.tables, defaultProxyTable) {
		s.ProxyTable = s.id() + "-proxy"
	}
	if asked := c.Networking.APIServerPort; asked != 0 {
		s.Ports.APIServer = asked
		if !m.portFree(asked) {
			return nil, fmt.Errorf("port %d for the API server (networking.apiServerPort) is in use; choose another one", asked)
		}
	}
	taken := map[int]bool{}
	for _, p := range s.Ports.all() {
		for taken[*p.number] || (!m.portFree(*p.number) && *p.number != c.Networking.APIServerPort) {
			if *p.number += 100; *p.number > 32000 {
				return nil, fmt.Errorf("no port is free for %s", p.use)
			}
		}
		taken[*p.number] = true
	}
	var err error
	if s.PodCIDR, err = chooseRange("networking.podCIDR", c.Networking.PodCIDR, 244, m.inUse); err != nil {
		return nil, err
	}
	// Services have no route that would show their range to the next cluster: the
	// choice for pods makes both distinct.
	first := 96
	if pods := netip.MustParsePrefix(s.PodCIDR); c.Networking.PodCIDR == "" {
		first += int(pods.Addr().As4()[1]) - 244
	}
	if s.ServiceCIDR, err = chooseRange("networking.serviceCIDR", c.Networking.ServiceCIDR, first, m.inUse); err != nil {
		return nil, err
	}
	if err := s.chooseNodeCIDR(c.Networking.NodeCIDR, m.inUse); err != nil {
		return nil, err
	}
	return s, s.setNodes(c.Nodes)
}

// chooseNodeCIDR chooses the range of further nodes, which has no route as long as
// there are none, in step with that of the Services.
func (s *State) chooseNodeCIDR(asked string, inUse []netip.Prefix) error {
	first := 64
	services := netip.MustParsePrefix(s.ServiceCIDR)
	if a := services.Addr().As4(); a[0] == 10 && a[1] >= 96 {
		first = int(a[1]) - 32
	}
	nodes, err := chooseRange("networking.nodeCIDR", asked, first, append(slices.Clone(inUse), netip.MustParsePrefix(s.PodCIDR), services))
	if err != nil {
		return err
	}
	p := netip.MustParsePrefix(nodes)
	s.NodeCIDR = netip.PrefixFrom(p.Addr(), max(24, p.Bits())).String() // no machine has more nodes
	return nil
}

// chooseRange returns asked, or the first 10.x.0.0/16 with x from first on that is free.
func chooseRange(field, asked string, first int, inUse []netip.Prefix) (string, error) {
	overlaps := func(p netip.Prefix) (netip.Prefix, bool) {
		for _, used := range inUse {
			if used.Bits() > 0 && used.Overlaps(p) {
				return used, true
			}
		}
		return netip.Prefix{}, false
	}
	if asked != "" {
		p, err := netip.ParsePrefix(asked)
		if err != nil {
			return "", fmt.Errorf("%s: %w", field, err)
		}
		if used, ok := overlaps(p); ok {
			return "", fmt.Errorf("%s: %s overlaps with %s, which this machine has a route or an address for", field, asked, used)
		}
		return asked, nil
	}
	for x := first; x < first+11 && x < 256; x++ {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(x)}), 16)
		if _, ok := overlaps(p); !ok {
			return p.String(), nil
		}
	}
	return "", fmt.Errorf("%s: no range from 10.%d.0.0/16 on is free; choose one", field, first)
}

// update takes over a changed configuration. Ranges cannot change under a cluster
// that has handed out addresses of them.
func (s *State) update(c v1alpha1.Cluster) error {
	for _, f := range []struct{ field, have, want string }{
		{"networking.podCIDR", s.PodCIDR, c.Networking.PodCIDR},
		{"networking.serviceCIDR", s.ServiceCIDR, c.Networking.ServiceCIDR},
		{"networking.nodeCIDR", s.NodeCIDR, c.Networking.NodeCIDR},
		{"node.name", s.Config.Node.Name, c.Node.Name},
		{"name", s.Config.Name, c.Name},
	} {
		if f.want != "" && f.want != f.have {
			return fmt.Errorf("%s: the cluster in %s has %s, and it cannot change to %s; `leme down` removes the cluster", f.field, s.Config.DataDir, f.have, f.want)
		}
	}
	if err := s.setNodes(c.Nodes); err != nil {
		return err
	}
	s.Ports.APIServer = cmp.Or(c.Networking.APIServerPort, s.Ports.APIServer)
	s.Config = c
	return nil
}

// portFree tries to listen.
func portFree(number int) bool {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(number))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// hostIP is the address of this machine that the cluster uses.
func (s *State) hostIP() (string, error) {
	if ip := s.Config.Networking.NodeIP; ip != "" {
		return ip, nil
	}
	return nodeAddress()
}

// nodeAddress is the address that leads to the default route, or else the first
// global one.
func nodeAddress() (string, error) {
	// Connecting a datagram socket sends nothing; it asks the routing table.
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer c.Close()
		if ip := c.LocalAddr().(*net.UDPAddr).IP; ip.IsGlobalUnicast() {
			return ip.String(), nil
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String(), nil
		}
	}
	return "", errors.New("this machine has no IPv4 address but that of its loopback; connect it, or give it an address and name that in networking.nodeIP")
}

// resolvers writes the host's resolv.conf without the name servers on its loopback,
// which a pod cannot reach, to path; and reports whether any is left.
func writeResolvConf(path string) (upstream bool, err error) {
	var data []byte
	for _, source := range []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"} {
		if data, err = os.ReadFile(source); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	content, upstream := filterResolvConf(string(data))
	return upstream, writeFile(path, []byte(content), 0o644)
}

func filterResolvConf(in string) (out string, upstream bool) {
	var b strings.Builder
	lines := bufio.NewScanner(strings.NewReader(in))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		if fields[0] == "nameserver" && len(fields) > 1 {
			if ip, err := netip.ParseAddr(fields[1]); err != nil || ip.IsLoopback() {
				continue
			}
			upstream = true
		}
		b.WriteString(strings.Join(fields, " ") + "\n")
	}
	return b.String(), upstream
}
