package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"sigs.k8s.io/knftables"
)

// A node is what this machine is to the cluster.
type node struct {
	dir     dataDir
	id      string // the cluster's, for names that the machine's clusters share
	ip      string
	podCIDR string
}

// prepare makes the machine a node: forwarding, the way for packets of pods in and
// out, the CNI configuration and a cgroup subtree. It may be done again at any time.
func (n *node) prepare(ctx context.Context) error {
	if err := n.writeCNI(); err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	if err := writeSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("switching on net.ipv4.ip_forward: %w", err)
	}
	// The rest is worth having and not always allowed.
	for name, value := range map[string]string{"fs/inotify/max_user_instances": "8192", "fs/inotify/max_user_watches": "524288"} {
		if err := raiseSysctl(name, value); err != nil {
			klog.FromContext(ctx).V(2).Info("Sysctl left as it is", "name", name, "err", err)
		}
	}
	if err := n.prepareRoute(); err != nil {
		return fmt.Errorf("route of the pod range %s: %w", n.podCIDR, err)
	}
	if err := n.masquerade(ctx); err != nil {
		return fmt.Errorf("nftables rules of the pod network: %w", err)
	}
	if err := n.acceptForwarding(ctx); err != nil {
		return fmt.Errorf("iptables rules of the pod network: %w", err)
	}
	if err := createCgroups(n.id); err != nil {
		return fmt.Errorf("cgroup %s: %w", n.id, err)
	}
	return nil
}

// writeCNI joins each pod to the machine by a link of its own, without a bridge:
// what other software on the machine does to bridged frames cannot touch it.
func (n *node) writeCNI() error {
	type object = map[string]any
	conf := object{
		"cniVersion": "1.0.0",
		"name":       n.id,
		"plugins": []object{
			{
				"type": "ptp",
				"ipam": object{
					"type":    "host-local",
					"dataDir": n.dir.path("cni", "addresses"),
					"ranges":  [][]object{{{"subnet": n.podCIDR}}},
					"routes":  []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "backend": "nftables", "capabilities": object{"portMappings": true}},
		},
	}
	data, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(n.dir.path("cni", "net.d", "10-leme.conflist"), data, 0o644)
}

// prepareRoute makes addresses that no pod has unreachable, instead of sending
// their packets out to the world. It also shows other clusters that the range is taken.
func (n *node) prepareRoute() error {
	_, dst, err := net.ParseCIDR(n.podCIDR)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE, Priority: 1 << 20})
}

func (n *node) removeRoute() error {
	_, dst, err := net.ParseCIDR(n.podCIDR)
	if err != nil {
		return err
	}
	err = netlink.RouteDel(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE, Priority: 1 << 20})
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// masquerade gives what leaves the pod network the machine's address.
func (n *node) masquerade(ctx context.Context) error {
	nft, err := knftables.New(knftables.IPv4Family, n.id)
	if err != nil {
		return err
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("pod network of the Leme cluster in " + string(n.dir))})
	chain := &knftables.Chain{
		Name: "postrouting",
		Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
	}
	tx.Add(chain)
	tx.Flush(chain)
	tx.Add(&knftables.Rule{Chain: chain.Name, Rule: knftables.Concat("ip saddr", n.podCIDR, "ip daddr !=", n.podCIDR, "ip daddr != 224.0.0.0/4", "masquerade")})
	return nft.Run(ctx, tx)
}

func (n *node) removeMasquerade(ctx context.Context) error {
	return deleteTable(ctx, knftables.IPv4Family, n.id)
}

func deleteTable(ctx context.Context, family knftables.Family, name string) error {
	nft, err := knftables.New(family, name)
	if err != nil {
		return err
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{}) // so that there is one to delete
	tx.Delete(&knftables.Table{})
	return nft.Run(ctx, tx)
}

// acceptForwarding lets the pods' packets through where other software, Docker
// above all, has iptables drop what is forwarded. No iptables, no such rules.
func (n *node) acceptForwarding(ctx context.Context) error {
	return n.eachForwardRule(ctx, func(rule []string) error {
		if iptables(ctx, append([]string{"-C", "FORWARD"}, rule...)...) == nil {
			return nil
		}
		return iptables(ctx, append([]string{"-I", "FORWARD"}, rule...)...)
	})
}

func (n *node) removeForwarding(ctx context.Context) error {
	return n.eachForwardRule(ctx, func(rule []string) error {
		if iptables(ctx, append([]string{"-C", "FORWARD"}, rule...)...) != nil {
			return nil
		}
		return iptables(ctx, append([]string{"-D", "FORWARD"}, rule...)...)
	})
}

func (n *node) eachForwardRule(ctx context.Context, do func(rule []string) error) error {
	if _, err := exec.LookPath("iptables"); err != nil {
		return nil
	}
	for _, direction := range []string{"-s", "-d"} {
		if err := do([]string{direction, n.podCIDR, "-m", "comment", "--comment", n.id, "-j", "ACCEPT"}); err != nil {
			return err
		}
	}
	return nil
}

func iptables(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "iptables", append([]string{"-w", "5"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("iptables %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func writeSysctl(name, value string) error {
	path := filepath.Join("/proc/sys", name)
	if have, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o644)
}

func raiseSysctl(name, value string) error {
	have, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return err
	}
	if h := strings.TrimSpace(string(have)); len(h) > len(value) || (len(h) == len(value) && h >= value) {
		return nil
	}
	return writeSysctl(name, value)
}

// usedRanges are the addresses and routes of this machine.
func usedRanges() ([]netip.Prefix, error) {
	var out []netip.Prefix
	add := func(n *net.IPNet) {
		if n == nil {
			return
		}
		if a, ok := netip.AddrFromSlice(n.IP); ok {
			bits, _ := n.Mask.Size()
			out = append(out, netip.PrefixFrom(a.Unmap(), bits).Masked())
		}
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addresses {
		add(a.IPNet)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		add(r.Dst)
	}
	return out, nil
}

// usedTables are the names of this machine's nftables tables.
func usedTables(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "nft", "list", "tables").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("listing nftables tables: %w: %s", err, bytes.TrimSpace(out))
	}
	var names []string
	for line := range strings.Lines(string(out)) { // table FAMILY NAME
		if f := strings.Fields(line); len(f) == 3 {
			names = append(names, f[2])
		}
	}
	return names, nil
}

// cgroupHierarchies are the mount points of the v1 hierarchies and of the v2 one.
func cgroupHierarchies() ([]string, error) {
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range mounts {
		if m.fsType == "cgroup" || m.fsType == "cgroup2" {
			out = append(out, m.path)
		}
	}
	return out, nil
}

// createCgroups makes the cgroup that all pods of the cluster are below, in every hierarchy.
func createCgroups(name string) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		dir := filepath.Join(h, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := inheritCpuset(h, dir); err != nil {
			return err
		}
		if err := delegateControllers(h, dir); err != nil {
			return err
		}
	}
	return nil
}

// inheritCpuset fills what a v1 cpuset leaves empty, and no process could enter.
func inheritCpuset(parent, dir string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, f))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not the cpuset hierarchy
		}
		if err != nil {
			return err
		}
		if _, v2 := os.Stat(filepath.Join(dir, "cgroup.controllers")); v2 == nil || strings.TrimSpace(string(have)) != "" {
			continue
		}
		value, err := os.ReadFile(filepath.Join(parent, f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// delegateControllers hands all controllers of a v2 hierarchy down to the cgroup's children.
func delegateControllers(parent, dir string) error {
	for _, d := range []string{parent, dir} {
		controllers, err := os.ReadFile(filepath.Join(d, "cgroup.controllers"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // v1
		}
		if err != nil {
			return err
		}
		for _, c := range strings.Fields(string(controllers)) {
			if err := os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
				return fmt.Errorf("controller %s: %w", c, err)
			}
		}
	}
	return nil
}
