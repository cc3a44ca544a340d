package nft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// TestMain gives the tests a network of their own to change, also when somebody runs
// them who is not root.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "these tests need root, or user namespaces:", err)
	os.Exit(1)
}

// A lab is a node with pods and a client outside, each in a network namespace:
//
//	client 192.0.2.2 ─── 192.0.2.1 node ┬─ pod 10.244.0.2
//	                                    ├─ pod 10.244.0.3
//	                                    └─ …
type lab struct {
	t     *testing.T
	node  *host
	hosts map[string]*host
	table *Table
	state *State
}

// host runs functions inside of its network namespace, on a thread kept for that.
type host struct {
	ip   string
	work chan func()
	ns   netns.NsHandle
}

const (
	nodeIP   = "192.0.2.1"
	clientIP = "192.0.2.2"
)

func newLab(t *testing.T, pods int) *lab {
	t.Helper()
	l := &lab{t: t, hosts: map[string]*host{}, state: NewState()}
	l.node = newHost(t, nodeIP)
	l.hosts["node"] = l.node
	l.node.do(func() {
		for path, v := range map[string]string{
			"/proc/sys/net/ipv4/ip_forward":             "1",
			"/proc/sys/net/ipv4/conf/all/rp_filter":     "0",
			"/proc/sys/net/ipv4/conf/default/rp_filter": "0",
		} {
			must(t, os.WriteFile(path, []byte(v), 0o644))
		}
		up(t, "lo")
	})
	l.connect("client", clientIP, nodeIP)
	l.node.do(func() { must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(clientIP)})) }) // by default
	for i := range pods {
		l.connect(fmt.Sprintf("pod%d", i+1), fmt.Sprintf("10.244.0.%d", i+2), "10.244.0.1")
	}
	l.node.do(func() {
		table, err := NewTable(IPv4, "kube-proxy-test", Rules{Local: "ip saddr 10.244.0.0/16", Mark: 1 << 14})
		must(t, err)
		l.table = table
	})
	return l
}

// connect makes a host and a wire between it and the node.
func (l *lab) connect(name, ip, gateway string) {
	l.t.Helper()
	h := newHost(l.t, ip)
	l.hosts[name] = h
	l.node.do(func() {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "to-" + name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}
		must(l.t, netlink.LinkAdd(veth))
		link := up(l.t, "to-"+name)
		address(l.t, link, gateway+"/32")
		must(l.t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: netlink.NewIPNet(net.ParseIP(ip)), Scope: netlink.SCOPE_LINK}))
	})
	h.do(func() {
		up(l.t, "lo")
		link := up(l.t, "eth0")
		address(l.t, link, ip+"/32")
		gw := net.ParseIP(gateway)
		must(l.t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: netlink.NewIPNet(gw), Scope: netlink.SCOPE_LINK}))
		must(l.t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw}))
	})
}

func up(t *testing.T, name string) netlink.Link {
	link, err := netlink.LinkByName(name)
	must(t, err)
	must(t, netlink.LinkSetUp(link))
	return link
}

func address(t *testing.T, link netlink.Link, cidr string) {
	a, err := netlink.ParseAddr(cidr)
	must(t, err)
	must(t, netlink.AddrAdd(link, a))
}

func must(t *testing.T, err error) {
	if err != nil {
		t.Helper()
		t.Error(err)
		runtime.Goexit() // also right on a host's goroutine
	}
}

func newHost(t *testing.T, ip string) *host {
	t.Helper()
	h := &host{ip: ip, work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- err
			return
		}
		ns, err := netns.Get()
		h.ns = ns
		ready <- err
		for f := range h.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	t.Cleanup(func() {
		close(h.work)
		h.ns.Close()
	})
	return h
}

func (h *host) do(f func()) {
	done := make(chan struct{})
	h.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// apply puts frontends in place as those of a Service.
func (l *lab) apply(service string, list ...Frontend) {
	l.t.Helper()
	wanted := Elements{}
	for i := range list {
		list[i].Elements(wanted)
	}
	l.state.Set(service, wanted)
	l.sync()
}

func (l *lab) sync() {
	l.t.Helper()
	l.node.do(func() {
		if err := l.table.Apply(context.Background(), l.state); err != nil {
			l.t.Error(err)
		}
	})
}

// serve answers connections on a host with the name of the host and the client's address.
func (l *lab) serve(name string, port int) netip.AddrPort {
	l.t.Helper()
	h := l.hosts[name]
	h.do(func() {
		listener, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		must(l.t, err)
		l.t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				from := c.RemoteAddr().(*net.TCPAddr).IP
				fmt.Fprintf(c, "%s %s", name, from)
				c.Close()
			}
		}()
	})
	return netip.AddrPortFrom(netip.MustParseAddr(h.ip), uint16(port))
}

// ask connects from a host and returns which host answered, and what it took the
// client's address to be. Refused and timed-out connections are answers as well.
func (l *lab) ask(from, to string) (who, seenAs string) {
	l.t.Helper()
	l.hosts[from].do(func() {
		c, err := net.DialTimeout("tcp4", to, 300*time.Millisecond)
		if err != nil {
			who = "refused"
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				who = "timeout"
			}
			return
		}
		defer c.Close()
		must(l.t, c.SetDeadline(time.Now().Add(5*time.Second)))
		answer, err := io.ReadAll(c)
		must(l.t, err)
		_, err = fmt.Sscanf(string(answer), "%s %s", &who, &seenAs)
		must(l.t, err)
	})
	return who, seenAs
}
