package apiserver

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericfeatures "k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/reconcilers"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/egressselector"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/peerproxy"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/leme-k8s/leme/pkg/apiserver/bootstrap"
)

const (
	peerLeaseRenewal = 10 * time.Second
	// peerServerName is in the certificate of every API server.
	peerServerName = "kubernetes.default.svc"
)

// PeerOptions are about other servers of the cluster, of another version, which serve what this one does not.
type PeerOptions struct {
	// CAFile verifies their certificates. Empty: requests are not passed on to them.
	CAFile string
	// Advertise is where they reach this server. Empty: where everybody does.
	Advertise reconcilers.PeerAdvertiseAddress
}

// validate reports every flag that is wrong.
func (o PeerOptions) validate(clientCertFile, clientKeyFile string) []error {
	var errs []error
	if !utilfeature.DefaultFeatureGate.Enabled(genericfeatures.UnknownVersionInteroperabilityProxy) {
		for _, f := range []struct{ name, value string }{
			{"peer-ca-file", o.CAFile}, {"peer-advertise-ip", o.Advertise.PeerAdvertiseIP}, {"peer-advertise-port", o.Advertise.PeerAdvertisePort},
		} {
			if f.value != "" {
				errs = append(errs, fmt.Errorf("--%s requires UnknownVersionInteroperabilityProxy feature to be turned on", f.name))
			}
		}
	}
	if o.CAFile != "" && (clientCertFile == "" || clientKeyFile == "") {
		errs = append(errs, errors.New("--peer-ca-file needs --proxy-client-cert-file and --proxy-client-key-file, which are shown to other servers"))
	}
	return errs
}

// address is where others reach a server that everybody reaches by ip and port.
func (o PeerOptions) address(ip net.IP, port string) string {
	if a := o.Advertise; a.PeerAdvertiseIP != "" && a.PeerAdvertisePort != "" {
		return net.JoinHostPort(a.PeerAdvertiseIP, a.PeerAdvertisePort)
	}
	return net.JoinHostPort(ip.String(), port)
}

// peers tell other servers where this one is, and pass on to them what it does not serve.
type peers struct {
	// address of this server, for others; empty without the feature.
	address string
	leases  *bootstrap.PeerLeases
	proxy   peerproxy.Interface // nil: nothing is passed on
}

// newPeers must be called before informers start.
func (o *Options) newPeers(c *config) (*peers, error) {
	if !utilfeature.DefaultFeatureGate.Enabled(genericfeatures.UnknownVersionInteroperabilityProxy) {
		return &peers{}, nil
	}
	p := &peers{}
	_, port, err := net.SplitHostPort(c.SecureServing.Listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("where other servers reach this one: %w", err)
	}
	p.address = o.Peers.address(c.PublicAddress, port)
	if p.leases, err = bootstrap.NewPeerLeases(c.RESTOptionsGetter); err != nil {
		return nil, err
	}
	if o.Peers.CAFile == "" {
		return p, nil
	}
	client := &transport.Config{TLS: transport.TLSConfig{
		CertFile: o.ProxyClientCertFile, KeyFile: o.ProxyClientKeyFile, CAFile: o.Peers.CAFile, ServerName: peerServerName,
	}}
	if c.EgressSelector != nil {
		dial, err := c.EgressSelector.Lookup(egressselector.ControlPlane.AsNetworkContext())
		if err != nil {
			return nil, fmt.Errorf("--egress-selector-config-file: %w", err)
		}
		if dial != nil {
			client.DialHolder = &transport.DialHolder{Dial: dial}
		}
	}
	p.proxy, err = peerproxy.NewPeerProxyHandler(c.APIServerID, bootstrap.IdentitySelector, c.informers.Coordination().V1().Leases(),
		p.leases, c.Serializer, c.LoopbackClientConfig, client)
	if err != nil {
		return nil, fmt.Errorf("--peer-ca-file: %w", err)
	}
	return p, nil
}

// wrap passes on what the first server of the chain, of which d is the configuration, would not find.
func (p *peers) wrap(d *server.RecommendedConfig) {
	if p.proxy == nil {
		return
	}
	build := d.BuildHandlerChainFunc
	d.BuildHandlerChainFunc = func(handler http.Handler, c *server.Config) http.Handler {
		return build(p.proxy.WrapHandler(handler), c)
	}
}

// exclude keeps to this server what custom resources and aggregated APIs serve, which is the same on all.
func (p *peers) exclude(crds, services cache.SharedIndexInformer) error {
	if p.proxy == nil {
		return nil
	}
	if err := p.proxy.RegisterCRDInformerHandlers(crds, customVersions); err != nil {
		return fmt.Errorf("--peer-ca-file: %w", err)
	}
	if err := p.proxy.RegisterAPIServiceInformerHandlers(services, aggregatedVersions); err != nil {
		return fmt.Errorf("--peer-ca-file: %w", err)
	}
	return nil
}

// customVersions are those that a CustomResourceDefinition defines.
func customVersions(obj any) []schema.GroupVersion {
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return nil
	}
	var all []schema.GroupVersion
	for _, v := range crd.Spec.Versions {
		all = append(all, schema.GroupVersion{Group: crd.Spec.Group, Version: v.Name})
	}
	return all
}

// aggregatedVersions is the one for which an APIService names another server.
func aggregatedVersions(obj any) []schema.GroupVersion {
	service, ok := obj.(*apiregistrationv1.APIService)
	if !ok || service.Spec.Service == nil {
		return nil
	}
	return []schema.GroupVersion{{Group: service.Spec.Group, Version: service.Spec.Version}}
}

// addHooks keeps this server's address known, and the others' in mind.
func (p *peers) addHooks(c *config, s *server.GenericAPIServer) error {
	if p.leases == nil {
		return nil
	}
	s.RegisterDestroyFunc(p.leases.Destroy)
	controller := reconcilers.New(c.APIServerID, p.address, p.leases, peerLeaseRenewal, c.client)
	hooks := map[string]server.PostStartHookFunc{
		"peer-endpoint-reconciler-controller": func(hc server.PostStartHookContext) error {
			controller.Start(hc.Done())
			return nil
		},
	}
	if p.proxy != nil {
		hooks["mixed-version-proxy-handler"] = func(hc server.PostStartHookContext) error { return unlessStopped(hc, p.proxy.WaitForCacheSync) }
		hooks["local-discovery-cache-sync"] = func(hc server.PostStartHookContext) error {
			return unlessStopped(hc, p.proxy.RunLocalDiscoveryCacheSync)
		}
		hooks["peer-discovery-workers"] = func(hc server.PostStartHookContext) error {
			go p.proxy.RunPeerDiscoveryCacheSync(hc, 1)
			go p.proxy.RunPeerDiscoveryActiveGVTracker(hc)
			go p.proxy.RunPeerDiscoveryRefilter(hc)
			return nil
		}
	}
	for name, hook := range hooks {
		if err := s.AddPostStartHook(name, hook); err != nil {
			return err
		}
	}
	return s.AddPreShutdownHook("peer-endpoint-reconciler-controller", func() error {
		controller.Stop()
		return nil
	})
}

// unlessStopped returns the error of run, but not of a server that stops, which an error of a hook would crash.
func unlessStopped(hc server.PostStartHookContext, run func(<-chan struct{}) error) error {
	if err := run(hc.Done()); hc.Err() == nil {
		return err
	}
	return nil
}
