package machine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Link joins a machine's network to the host's: a cable with an address at each
// end, and no bridge. The host is the router of its machines, so that only the host
// has to know where which pods are.
type Link struct {
	// Name is the interface on the host. The one in the machine is eth0.
	Name string
	// Address is the machine's.
	Address netip.Addr
	// Gateway is the host's address, the same at the end of each of its links.
	Gateway netip.Addr
	// Host is the address by which the host is known. What it sends its machines comes from there.
	Host netip.Addr
}

// connect makes the link. netns is the machine's.
func (l Link) connect(netns int) error {
	if err := RemoveLink(l.Name); err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: l.Name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(netns)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("making the interface %s: %w", l.Name, err)
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer host.Close()
	inside, err := netlink.NewHandleAt(netnsHandle(netns), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := setUp(host, l.Name, l.Gateway); err != nil {
		return err
	}
	if err := setUp(inside, "lo", netip.Addr{}); err != nil {
		return err
	}
	if err := setUp(inside, "eth0", l.Address); err != nil {
		return err
	}
	if err := l.Route(netip.PrefixFrom(l.Address, 32)); err != nil {
		return err
	}
	eth0, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, r := range []*netlink.Route{
		{LinkIndex: eth0.Attrs().Index, Dst: ipNet(netip.PrefixFrom(l.Gateway, 32)), Scope: netlink.SCOPE_LINK},
		{LinkIndex: eth0.Attrs().Index, Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), Gw: l.Gateway.AsSlice()},
	} {
		if err := inside.RouteReplace(r); err != nil {
			return fmt.Errorf("route to %s: %w", r.Dst, err)
		}
	}
	return nil
}

// setUp gives an interface its address, and switches it on.
func setUp(h *netlink.Handle, name string, address netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if address.IsValid() {
		if err := h.AddrReplace(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(address, 32))}); err != nil {
			return fmt.Errorf("address %s of interface %s: %w", address, name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("switching on interface %s: %w", name, err)
	}
	return nil
}

// Route leads a range of addresses to the machine, and no other range but that one
// and the machine's address.
func (l Link) Route(to netip.Prefix) error {
	link, err := netlink.LinkByName(l.Name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", l.Name, err)
	}
	self := netip.PrefixFrom(l.Address, 32)
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to), Src: l.Host.AsSlice()}
	if to == self {
		r.Scope = netlink.SCOPE_LINK
	} else {
		r.Gw = l.Address.AsSlice()
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("route to %s by %s: %w", to, l.Name, err)
	}
	if to == self {
		return nil
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if d := r.Dst.String(); d != to.String() && d != self.String() {
			if err := netlink.RouteDel(&r); err != nil {
				return fmt.Errorf("removing the route to %s: %w", d, err)
			}
		}
	}
	return nil
}

// RemoveLink removes the host's end of a link, if it is there.
func RemoveLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var gone netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &gone) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing the interface %s: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
