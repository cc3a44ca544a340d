package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"
)

// A podNetwork is what leads packets of pods, and of further nodes, in and out of this
// machine.
type podNetwork struct {
	id     string   // the cluster's, for names that the machine's clusters share
	dir    dataDir  // for people who wonder whose it is
	ranges []string // of the cluster's pods and of its further nodes
}

func newPodNetwork(s *State) *podNetwork {
	n := &podNetwork{id: s.id(), dir: dataDir(s.Config.DataDir), ranges: []string{s.PodCIDR}}
	if len(s.Nodes) > 0 {
		n.ranges = append(n.ranges, s.NodeCIDR)
	}
	return n
}

// prepare may be done again at any time.
func (n *podNetwork) prepare(ctx context.Context) error {
	for _, r := range n.ranges {
		if err := makeUnreachable(r); err != nil {
			return fmt.Errorf("route of the range %s: %w", r, err)
		}
	}
	if err := n.masquerade(ctx); err != nil {
		return fmt.Errorf("nftables rules of the pod network: %w", err)
	}
	if err := n.acceptForwarding(ctx); err != nil {
		return fmt.Errorf("iptables rules of the pod network: %w", err)
	}
	return nil
}

func (n *podNetwork) remove(ctx context.Context) error {
	var errs []error
	for _, r := range n.ranges {
		errs = append(errs, removeUnreachable(r))
	}
	return errors.Join(append(errs, deleteTable(ctx, knftables.IPv4Family, n.id), n.removeForwarding(ctx))...)
}

// makeUnreachable makes addresses that nobody has unreachable, instead of sending
// their packets out to the world. It also shows other clusters that the range is taken.
func makeUnreachable(cidr string) error {
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE, Priority: 1 << 20})
}

func removeUnreachable(cidr string) error {
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		return err
	}
	err = netlink.RouteDel(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE, Priority: 1 << 20})
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// masquerade gives what leaves the cluster the machine's address. Within the cluster,
// pods and nodes see each other's own.
func (n *podNetwork) masquerade(ctx context.Context) error {
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
	ours := strings.Join(n.ranges, ", ")
	tx.Add(&knftables.Rule{Chain: chain.Name, Rule: knftables.Concat("ip saddr {", ours, "} ip daddr != {", ours, ", 224.0.0.0/4 } masquerade")})
	return nft.Run(ctx, tx)
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
func (n *podNetwork) acceptForwarding(ctx context.Context) error {
	return n.eachForwardRule(ctx, func(rule []string) error {
		if iptables(ctx, append([]string{"-C", "FORWARD"}, rule...)...) == nil {
			return nil
		}
		return iptables(ctx, append([]string{"-I", "FORWARD"}, rule...)...)
	})
}

func (n *podNetwork) removeForwarding(ctx context.Context) error {
	return n.eachForwardRule(ctx, func(rule []string) error {
		if iptables(ctx, append([]string{"-C", "FORWARD"}, rule...)...) != nil {
			return nil
		}
		return iptables(ctx, append([]string{"-D", "FORWARD"}, rule...)...)
	})
}

func (n *podNetwork) eachForwardRule(ctx context.Context, do func(rule []string) error) error {
	if _, err := exec.LookPath("iptables"); err != nil {
		return nil
	}
	for _, r := range n.ranges {
		for _, direction := range []string{"-s", "-d"} {
			if err := do([]string{direction, r, "-m", "comment", "--comment", n.id, "-j", "ACCEPT"}); err != nil {
				return err
			}
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
