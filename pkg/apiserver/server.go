package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/apiserver/pkg/server/mux"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	metricsfeatures "k8s.io/component-base/metrics/features"

	"github.com/leme-k8s/leme/pkg/api/scheme"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/inprocess"
	"github.com/leme-k8s/leme/pkg/apiserver/kubelet"
	"github.com/leme-k8s/leme/pkg/apiserver/registry"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/service"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/component"
)

// Server is an assembled API server, by the first of the chain.
type Server struct {
	generic *server.GenericAPIServer
	stores  *stores
	self    *inprocess.Transport // of its own clients
	// watches put changes of configuration files to use.
	watches []func(context.Context)
}

// New implements component.Options.
func (o *Options) New(ctx context.Context) (_ component.Runner, err error) {
	defer func() { // whoever tries again in this process needs the port
		if err != nil && o.Serving.Listener != nil {
			_ = o.Serving.Listener.Close()
		}
	}()
	if err := o.globals.Set(); err != nil {
		return nil, fmt.Errorf("--feature-gates, --emulated-version: %w", err)
	}
	native := utilfeature.DefaultFeatureGate.Enabled(metricsfeatures.NativeHistograms)
	component.CountNatively(native)
	utilfeature.DefaultMutableFeatureGate.AddMetrics()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c, err := o.newConfig(ctx)
	if err != nil {
		return nil, err
	}
	notFound := server.NewEmptyDelegateWithCustomHandler(notfoundhandler.New(c.Serializer, filters.NoMuxAndDiscoveryIncompleteKey))
	c.SkipOpenAPIInstallation = true // see installOpenAPI
	last, err := o.derive(c, extensionsLibrary)
	if err != nil {
		return nil, err
	}
	first, err := o.derive(c, aggregatorLibrary)
	if err != nil {
		return nil, err
	}
	// A request goes from one server to the next until one knows what it is for:
	// aggregated APIs, built-in kinds, custom resources.
	crds, err := newExtensions(c, last, notFound)
	if err != nil {
		return nil, err
	}
	completed := c.Complete(c.informers)
	s, err := completed.New("kube-apiserver", crds.GenericAPIServer)
	if err != nil {
		return nil, err
	}
	if err := o.install(c, s); err != nil {
		return nil, err
	}
	if o.LogsHandler {
		installLogs(s.Handler.GoRestfulContainer, logDirectory)
	}
	if d := c.authn.Discovery(ctx, c.ExternalAddress); d != nil {
		d.Install(s.Handler.GoRestfulContainer)
	}
	s.Handler.GoRestfulContainer.Router(newRouter(s.Handler.GoRestfulContainer.RegisteredWebServices()))
	if err := o.addHooks(c, s); err != nil {
		return nil, err
	}
	front, err := o.newAggregator(c, first, crds, s)
	if err != nil {
		return nil, err
	}
	if !native {
		o.showClassic(front.GenericAPIServer.Handler.NonGoRestfulMux)
	}
	if err := o.installOpenAPI(completed, c.services, crds, s, front); err != nil {
		return nil, err
	}
	return &Server{generic: front.GenericAPIServer, stores: c.stores, self: c.self, watches: []func(context.Context){c.authn.Watch, c.authz.Watch}}, nil
}

// showClassic replaces the library's metrics, where others in the process may have native histograms.
func (o *Options) showClassic(paths *mux.PathRecorderMux) {
	h := component.MetricsHandler(false)
	if o.Features.EnableProfiling {
		h = component.WithReset(h)
	}
	paths.Unregister("/metrics")
	paths.Handle("/metrics", h)
}

// Run implements component.Runner.
func (s *Server) Run(ctx context.Context) error {
	for _, watch := range s.watches {
		go watch(ctx)
	}
	prepared := s.generic.PrepareRun()
	go func() {
		s.stores.clients.awaitCaches(ctx) // which would refuse the informers
		s.self.Serve(s.generic.Handler)
	}()
	defer s.self.End()
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		s.awaitHooks()
		stop()
	})()
	return prepared.RunWithContext(run)
}

// startPatience is how long a server that is told to stop goes on starting.
const startPatience = 10 * time.Second

// awaitHooks waits until the server can be stopped: the library's hook that waits for the
// definitions of custom resources ends the process if it is stopped while it waits.
func (s *Server) awaitHooks() {
	const check = "/livez/poststarthook/crd-informer-synced"
	for deadline := time.Now().Add(startPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		answer := httptest.NewRecorder()
		s.generic.Handler.NonGoRestfulMux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, check, nil))
		if answer.Code == http.StatusOK {
			return
		}
	}
}

// install gives the server every resource that --runtime-config leaves enabled.
func (o *Options) install(c *config, s *server.GenericAPIServer) error {
	options := generic.Options{Scheme: c.scheme, RESTOptions: c.RESTOptionsGetter, AllowPrivileged: o.AllowPrivileged, Features: o.features}
	rc, err := o.registryConfig(c, options)
	if err != nil {
		return err
	}
	codecs, parameters := scheme.NewCodecs(c.scheme), runtime.NewParameterCodec(c.scheme)
	infos := map[string]*server.APIGroupInfo{}
	var named []*server.APIGroupInfo
	for _, g := range registry.Groups(rc) {
		if !servesAny(c.MergedResourceConfig, g.GroupVersion) {
			continue // not even a watch of etcd
		}
		storage, err := g.Storage(options)
		if err != nil {
			return err
		}
		maps.DeleteFunc(storage, func(path string, _ rest.Storage) bool {
			return !c.MergedResourceConfig.ResourceEnabled(g.WithResource(path))
		})
		if pods, ok := storage["pods"].(*generic.Store[*corev1.Pod]); ok {
			c.ownPods.store = pods
		}
		if len(storage) == 0 {
			continue
		}
		info := infos[g.Group]
		if info == nil {
			i := server.NewDefaultAPIGroupInfo(g.Group, c.scheme, parameters, codecs)
			info = &i
			infos[g.Group] = info
			if g.Group != "" {
				named = append(named, info)
			}
		}
		info.VersionedResourcesStorageMap[g.Version] = storage
	}
	if core := infos[""]; core != nil {
		if err := s.InstallLegacyAPIGroup(server.DefaultLegacyAPIPrefix, core); err != nil {
			return fmt.Errorf("installing core/v1: %w", err)
		}
	}
	if err := s.InstallAPIGroups(named...); err != nil {
		return fmt.Errorf("installing API groups: %w", err)
	}
	return nil
}

// servesAny tells whether the version, or a resource in it, is enabled.
func servesAny(c *serverstorage.ResourceConfig, gv schema.GroupVersion) bool {
	for r, on := range c.ResourceConfigs {
		if on && r.GroupVersion() == gv {
			return true
		}
	}
	return c.GroupVersionConfigs[gv]
}

// registryConfig is what single resources need.
func (o *Options) registryConfig(c *config, storage generic.Options) (registry.Config, error) {
	var dial utilnet.DialFunc
	if c.EgressSelector != nil {
		var err error
		if dial, err = c.EgressSelector.Lookup(egressselector.Cluster.AsNetworkContext()); err != nil {
			return registry.Config{}, fmt.Errorf("--egress-selector-config-file: %w", err)
		}
	}
	var types []corev1.NodeAddressType
	for _, t := range o.Kubelet.PreferredAddressTypes {
		types = append(types, corev1.NodeAddressType(t))
	}
	ranges, err := o.serviceRanges()
	if err != nil {
		return registry.Config{}, err
	}
	if c.nodePorts, err = service.NewNodePorts(storage, o.ServiceNodePortRange); err != nil {
		return registry.Config{}, err
	}
	return registry.Config{
		Informers:      c.informers,
		ServiceRanges:  ranges,
		NodePorts:      c.nodePorts,
		Authenticator:  c.Config.Authentication.Authenticator,
		Authentication: c.authn,
		Authorization:  c.authz,
		Client:         c.client,
		EventTTL:       o.EventTTL,
		StoreChecks:    c.stores.checks,
		Kubelet: kubelet.Config{
			AddressTypes: types,
			Port:         int(o.Kubelet.Port),
			CertFile:     o.Kubelet.CertFile,
			KeyFile:      o.Kubelet.KeyFile,
			CAFile:       o.Kubelet.CAFile,
			Dial:         dial,
		},
		// What is proxied to is named by the client, who has no way to vouch for it.
		Proxy: utilnet.SetTransportDefaults(&http.Transport{
			DialContext:     dial,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}),
		MaxBytesPerSec: o.MaxConnectionBytesPerSec,
	}, nil
}
