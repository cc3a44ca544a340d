// Package proxy is kube-proxy: it makes the addresses of Services lead to their
// endpoints, by programming nftables.
//
//	Services, EndpointSlices ──▶ frontends (what happens at each address and port)
//	                                  │ pure, a Service at a time
//	                                  ▼
//	                             nft.State ──▶ nft.Plan ──▶ one transaction
//
// Only Services that changed are computed again, and only the elements of maps that
// differ are written. Package nft says what the rules look like.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/proxy/nft"
)

// Config is what a proxy is made from.
type Config struct {
	// KubeConfig says how to reach the API server, and as whom.
	KubeConfig *rest.Config
	// NodeName is the node that the proxy runs on.
	NodeName string
	// Table is the name of the nftables tables, one for each address family.
	Table string
	// Rules are those that depend on how the cluster is set up.
	Rules map[nft.Family]nft.Rules
	// NodePorts are the networks in which the node's addresses answer at node ports;
	// if empty, only the node's primary addresses do.
	NodePorts []netip.Prefix
	// MinSyncPeriod is the least time between two writes.
	MinSyncPeriod time.Duration
	// HealthAddress and MetricsAddress are where HTTP is served; empty for nowhere.
	HealthAddress, MetricsAddress string
	// HardFail ends the proxy when one of these addresses cannot be listened on.
	HardFail bool
	// Profiling serves /debug/pprof at MetricsAddress.
	Profiling bool
	// NativeHistograms shows exponential buckets there too.
	NativeHistograms bool
}

// Proxy is an assembled kube-proxy.
type Proxy struct {
	Config
	health  *health
	checks  *nodePortHealth
	sources *sources

	// The rest belongs to the goroutine that writes.
	families []*family
	node     node
}

// family is one address family at work.
type family struct {
	nft.Family
	table *nft.Table
	state *nft.State
	// frontends are those of each Service, as they were last computed.
	frontends map[types.NamespacedName][]nft.Frontend
	used      bool
	udp       bool // a UDP frontend changed
	affine    bool // a frontend with affinity changed
}

// New assembles a proxy. It fails where nftables cannot be used.
func New(c Config) (*Proxy, error) {
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(c.KubeConfig, "kube-proxy"))
	if err != nil {
		return nil, err
	}
	p := &Proxy{Config: c, health: newHealth(time.Now)}
	p.checks = newNodePortHealth(p.health)
	p.sources = newSources(client, c.NodeName, p.health.changed)
	for _, f := range []nft.Family{nft.IPv4, nft.IPv6} {
		table, err := nft.NewTable(f, c.Table, c.Rules[f])
		if err != nil {
			return nil, err
		}
		p.families = append(p.families, &family{
			Family: f, table: table, state: nft.NewState(), frontends: map[types.NamespacedName][]nft.Frontend{},
		})
	}
	return p, nil
}

// Run keeps the rules right until ctx is cancelled. It leaves them in place when it
// ends, so that Services go on working while the proxy is replaced.
func (p *Proxy) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer p.checks.close()
	for what, at := range map[string]string{"healthz-bind-address": p.HealthAddress, "metrics-bind-address": p.MetricsAddress} {
		handler := metricsHandler(p.Profiling, p.NativeHistograms)
		if what == "healthz-bind-address" {
			handler = p.health
		}
		serving.Go(func() {
			if err := serve(ctx, at, handler); err != nil {
				err = fmt.Errorf("--%s: %w", what, err)
				if p.HardFail {
					stop(err)
					return
				}
				klog.FromContext(ctx).Error(err, "Going on without")
			}
		})
	}
	if err := p.sources.start(ctx); err != nil {
		return ended(ctx, err)
	}
	p.loop(ctx)
	return ended(ctx, nil)
}

func ended(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(c, context.Canceled) {
		return c
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// retry is how long to wait after a write failed.
const retry = time.Second

// loop waits for changes, takes in all that there are, and writes them together.
func (p *Proxy) loop(ctx context.Context) {
	for first := true; ; first = false {
		changed, ok := p.sources.next(ctx, first)
		if !ok {
			return
		}
		err := p.sync(ctx, changed)
		wait := p.MinSyncPeriod
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Writing rules failed, trying again", "after", retry)
			p.sources.again(changed)
			wait = max(wait, retry)
		}
		if wait > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// sync computes what changed and writes it.
func (p *Proxy) sync(ctx context.Context, changed changes) error {
	if changed.node {
		p.node = p.nodeNow()
		p.health.setEligible(p.sources.eligible())
	}
	if changed.cidrs {
		networks := p.sources.serviceCIDRs()
		for _, f := range p.families {
			f.state.Set("ServiceCIDRs", nft.ServiceCIDRs(f.Family, networks))
		}
	}
	for name := range changed.services {
		svc, slicesOfService, err := p.sources.service(name)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		p.compute(ctx, name, svc, slicesOfService)
	}
	var errs []error
	for _, f := range p.families {
		errs = append(errs, f.write(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.health.written()
	return nil
}

// nodeNow reads what the rules depend on of the node.
func (p *Proxy) nodeNow() node {
	n := node{name: p.NodeName}
	obj := p.sources.node()
	if obj == nil {
		return n
	}
	n.zone = obj.Labels[v1.LabelTopologyZone]
	if len(p.NodePorts) > 0 {
		n.nodePortIPs = localAddresses(p.NodePorts)
		return n
	}
	seen := map[bool]bool{}
	for _, a := range obj.Status.Addresses { // the first of each family is the primary one
		addr, err := netip.ParseAddr(a.Address)
		if a.Type == v1.NodeInternalIP && err == nil && !seen[addr.Is4()] {
			seen[addr.Is4()] = true
			n.nodePortIPs = append(n.nodePortIPs, addr)
		}
	}
	return n
}

// compute takes a Service over into the state of both families; svc is nil if it is gone.
func (p *Proxy) compute(ctx context.Context, name types.NamespacedName, svc *v1.Service, slicesOfService []*discoveryv1.EndpointSlice) {
	for _, f := range p.families {
		var now []nft.Frontend
		if svc != nil {
			now = frontends(svc, slicesOfService, p.node, f.Family)
		}
		f.set(name, now)
	}
	if svc == nil {
		p.checks.set(ctx, name, 0, 0)
		return
	}
	local := 0
	if port := healthCheckPort(svc); port != 0 && len(svc.Spec.Ports) > 0 {
		first := &svc.Spec.Ports[0]
		for _, f := range p.families {
			local += readyHere(endpointsOf(slicesOfService, first.Name, first.Protocol, addressType(f.Family)), p.node)
		}
	}
	p.checks.set(ctx, name, healthCheckPort(svc), local)
}

func (f *family) set(name types.NamespacedName, now []nft.Frontend) {
	for _, list := range [][]nft.Frontend{f.frontends[name], now} {
		for i := range list {
			f.udp = f.udp || list[i].Protocol == "udp"
			f.affine = f.affine || list[i].Affinity > 0
		}
	}
	wanted := nft.Elements{}
	for i := range now {
		now[i].Elements(wanted)
	}
	f.state.Set(name.String(), wanted)
	if len(now) == 0 {
		delete(f.frontends, name)
		return
	}
	f.frontends[name] = now
	f.used = true
}

// write brings the kernel up to date. A family that no Service uses gets no table.
func (f *family) write(ctx context.Context) error {
	if !f.used {
		return nil
	}
	if err := f.table.Apply(ctx, f.state); err != nil {
		return err
	}
	if f.udp {
		targets := datagramTargets{}
		for _, list := range f.frontends {
			for i := range list {
				targets.add(&list[i])
			}
		}
		if err := forgetStaleFlows(f.Family, targets); err != nil {
			// Rules are right; what is left runs out by itself.
			klog.FromContext(ctx).Error(err, "Some clients may be led astray until their flows time out")
		}
		f.udp = false
	}
	if f.affine {
		if err := f.table.ForgetAffinity(ctx, f.serves()); err != nil {
			return err
		}
		f.affine = false
	}
	return nil
}

// serves returns whether a frontend leads to an endpoint.
func (f *family) serves() func(frontend nft.Element, endpoint string) bool {
	endpoints := map[nft.Element][]netip.AddrPort{}
	for _, list := range f.frontends {
		for i := range list {
			if list[i].Affinity == 0 {
				continue
			}
			all := list[i].Endpoints
			if list[i].Local != nil {
				all = slices.Concat(all, *list[i].Local)
			}
			endpoints[list[i].Element()] = all
		}
	}
	return func(frontend nft.Element, endpoint string) bool {
		return slices.ContainsFunc(endpoints[frontend], func(e netip.AddrPort) bool {
			return endpoint == nft.EndpointKey(e)
		})
	}
}
