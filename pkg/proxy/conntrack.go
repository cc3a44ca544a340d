package proxy

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/leme-k8s/leme/pkg/proxy/nft"
)

// datagramTargets are the endpoints that each UDP frontend has. A UDP "connection" lives
// in the kernel's tracking table for as long as packets come: without help a client
// would go on talking to an endpoint that is gone, or to nobody, if it had begun before
// there were any.
type datagramTargets map[netip.AddrPort]map[netip.AddrPort]bool

func (d datagramTargets) add(f *nft.Frontend) {
	if f.Protocol != "udp" {
		return
	}
	at := netip.AddrPortFrom(f.Addr, f.Port)
	targets := map[netip.AddrPort]bool{}
	for _, e := range f.Endpoints {
		targets[e] = true
	}
	if f.Local != nil {
		for _, e := range *f.Local {
			targets[e] = true
		}
	}
	d[at] = targets
}

// stale reports whether a tracked flow to a frontend leads where it should not.
func (d datagramTargets) stale(to, answeredBy netip.AddrPort) bool {
	targets, ours := d[to]
	return ours && !targets[answeredBy]
}

// MatchConntrackFlow is stale, as the netlink library asks it.
func (d datagramTargets) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	if !ok {
		return false
	}
	by, ok := netip.AddrFromSlice(flow.Reverse.SrcIP)
	if !ok {
		return false
	}
	return d.stale(netip.AddrPortFrom(to.Unmap(), flow.Forward.DstPort), netip.AddrPortFrom(by.Unmap(), flow.Reverse.SrcPort))
}

// forgetStaleFlows deletes the flows of a family that are stale.
func forgetStaleFlows(family nft.Family, d datagramTargets) error {
	if len(d) == 0 {
		return nil
	}
	inet := netlink.InetFamily(unix.AF_INET)
	if family == nft.IPv6 {
		inet = unix.AF_INET6
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, inet, d); err != nil {
		return fmt.Errorf("deleting stale UDP flows: %w", err)
	}
	return nil
}
