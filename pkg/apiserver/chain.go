package apiserver

import (
	"fmt"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	crdoptions "k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	apiextensionsopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	aggregatoropenapi "k8s.io/kube-aggregator/pkg/generated/openapi"
	"k8s.io/kube-openapi/pkg/common"

	"github.com/leme-k8s/leme/pkg/apiserver/aggregation"
)

// A library serves one API group, whose types it brings along.
type library struct {
	scheme      *runtime.Scheme
	codecs      serializer.CodecFactory
	stored      []schema.GroupVersion // as the first of them
	enabled     *serverstorage.ResourceConfig
	definitions common.GetOpenAPIDefinitions
}

// extensionsLibrary serves CustomResourceDefinitions and what they define. They are stored
// in the version whose text is shorter, so that a large one fits.
var extensionsLibrary = library{
	scheme:      apiextensions.Scheme,
	codecs:      apiextensions.Codecs,
	stored:      []schema.GroupVersion{apiextensionsv1beta1.SchemeGroupVersion, apiextensionsv1.SchemeGroupVersion},
	enabled:     apiextensions.DefaultAPIResourceConfigSource(),
	definitions: apiextensionsopenapi.GetOpenAPIDefinitions,
}

// aggregatorLibrary serves APIServices and passes requests on to who they name.
var aggregatorLibrary = library{
	scheme:      aggregatorscheme.Scheme,
	codecs:      aggregatorscheme.Codecs,
	stored:      []schema.GroupVersion{apiregistrationv1.SchemeGroupVersion},
	enabled:     aggregator.DefaultAPIResourceConfigSource(),
	definitions: aggregatoropenapi.GetOpenAPIDefinitions,
}

// derive returns the configuration of a server of l, which shares with that of the
// built-in kinds who may do what, connections, informers and health checks. It must be
// called before c is completed.
func (o *Options) derive(c *config, l library) (*server.RecommendedConfig, error) {
	d := &server.RecommendedConfig{Config: *c.Config, SharedInformerFactory: c.informers}
	d.PostStartHooks = map[string]server.PostStartHookConfigEntry{} // they run once, with those of c
	d.HealthzChecks, d.LivezChecks, d.ReadyzChecks = slices.Clone(c.HealthzChecks), slices.Clone(c.LivezChecks), slices.Clone(c.ReadyzChecks)
	d.RESTOptionsGetter = c.stores.in(l.codecs, c.ResourceTransformers, l.stored...)
	if err := o.APIs.ApplyTo(&d.Config, l.enabled, l.scheme); err != nil {
		return nil, fmt.Errorf("--runtime-config: %w", err)
	}
	// These describe the group to server-side apply; documentation is written for all
	// servers at once.
	d.OpenAPIConfig = nil
	d.OpenAPIV3Config = server.DefaultOpenAPIV3Config(l.definitions, openapinamer.NewDefinitionNamer(l.scheme))
	d.SkipOpenAPIInstallation = true
	return d, nil
}

// newExtensions returns the last server of the chain.
func newExtensions(c *config, generic *server.RecommendedConfig, next server.DelegationTarget) (*apiextensions.CustomResourceDefinitions, error) {
	s, err := (&apiextensions.Config{
		GenericConfig: generic,
		ExtraConfig: apiextensions.ExtraConfig{
			CRDRESTOptionsGetter: c.stores.shareReady(crdoptions.NewCRDRESTOptionsGetter(c.stores.options, c.ResourceTransformers, c.StorageObjectCountTracker)),
			MasterCount:          1,
			ServiceResolver:      c.services,
			AuthResolverWrapper:  c.identity,
		},
	}).Complete().New(next)
	if err != nil {
		return nil, fmt.Errorf("custom resources: %w", err)
	}
	if err := s.Informers.Apiextensions().V1().CustomResourceDefinitions().Informer().SetTransform(trim); err != nil {
		return nil, fmt.Errorf("custom resources: %w", err)
	}
	return s, nil
}

// newAggregator returns the first server of the chain.
func (o *Options) newAggregator(c *config, generic *server.RecommendedConfig, crds *apiextensions.CustomResourceDefinitions, next *server.GenericAPIServer) (*aggregator.APIAggregator, error) {
	c.peers.wrap(generic)
	s, err := (&aggregator.Config{
		GenericConfig: generic,
		ExtraConfig: aggregator.ExtraConfig{
			ProxyClientCertFile:       o.ProxyClientCertFile,
			ProxyClientKeyFile:        o.ProxyClientKeyFile,
			ServiceResolver:           c.services,
			RejectForwardingRedirects: o.AggregatorRejectsRedirects,
			PeerAdvertiseAddress:      o.Peers.Advertise,
			PeerProxy:                 c.peers.proxy,
		},
	}).Complete().NewWithDelegate(next)
	if err != nil {
		return nil, fmt.Errorf("API aggregation: %w", err)
	}
	services := s.APIRegistrationInformers.Apiregistration().V1().APIServices()
	if err := services.Informer().SetTransform(trim); err != nil {
		return nil, fmt.Errorf("API aggregation: %w", err)
	}
	definitions := crds.Informers.Apiextensions().V1().CustomResourceDefinitions()
	if err := c.peers.exclude(definitions.Informer(), services.Informer()); err != nil {
		return nil, err
	}
	r, err := aggregation.NewRegistration(c.LoopbackClientConfig, services, definitions)
	if err != nil {
		return nil, fmt.Errorf("API aggregation: %w", err)
	}
	r.Local(next.ListedPaths(), c.AggregatedDiscoveryGroupManager)
	if err := s.GenericAPIServer.AddHealthChecks(r.Check()); err != nil {
		return nil, err
	}
	return s, s.GenericAPIServer.AddPostStartHook(aggregation.HookName, r.Hook)
}
