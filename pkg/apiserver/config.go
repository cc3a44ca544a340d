package apiserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	apiversion "k8s.io/apimachinery/pkg/version"
	genericadmission "k8s.io/apiserver/pkg/admission"
	webhookinitializer "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/flagz"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/tracing"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/leme-k8s/leme/pkg/api/openapi"
	"github.com/leme-k8s/leme/pkg/api/scheduling"
	"github.com/leme-k8s/leme/pkg/api/scheme"
	"github.com/leme-k8s/leme/pkg/apiserver/admission"
	"github.com/leme-k8s/leme/pkg/apiserver/authentication"
	"github.com/leme-k8s/leme/pkg/apiserver/authorization"
	"github.com/leme-k8s/leme/pkg/apiserver/coordinatedelection"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/inprocess"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/serviceresolver"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/coordination/lease"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/core/service"
)

// informerResync is how often informers hand out again what they already handed out. Nothing here relies on it.
const informerResync = 0 * time.Second

// config is the library's configuration and what the assembly needs beside it.
type config struct {
	*server.Config
	scheme    *runtime.Scheme
	client    kubernetes.Interface
	dynamic   dynamic.Interface
	informers informers.SharedInformerFactory
	authn     *authentication.Authentication
	authz     *authorization.Authorization
	nodePorts *service.NodePorts
	stores    *stores
	peers     *peers
	elections *coordinatedelection.Controller // nil without the feature
	ownPods   *ownPods
	// services are where Services are that the server itself calls, identity is what it
	// shows to webhooks.
	services webhook.ServiceResolver
	identity webhook.AuthenticationInfoResolverWrapper
	// self takes what the server's own clients ask to the server. A webhook that is a path
	// of this server is asked over the network, by loopback.
	self     *inprocess.Transport
	loopback *rest.Config
}

// newConfig turns the flags into a configuration, but for who may do what.
func (o *Options) newConfig(ctx context.Context) (*config, error) {
	s, err := scheme.New()
	if err != nil {
		return nil, err
	}
	if o.features[scheduling.PreemptionPolicyFeature] {
		scheduling.AddPreemptionDefaults(s)
	}
	o.Metrics.Apply()
	codecs := scheme.NewCodecs(s)
	c := &config{Config: server.NewConfig(codecs), scheme: s}

	if err := o.Server.ApplyTo(c.Config); err != nil {
		return nil, err
	}
	c.EffectiveVersion = o.version
	flags := cliflag.NamedFlagSets{}
	flags.FlagSet("kube-apiserver").AddFlagSet(o.flags)
	c.Flagz = flagz.NamedFlagSetsReader{FlagSets: flags}
	c.LongRunningFunc = filters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))
	c.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	if err := o.applyServing(c); err != nil {
		return nil, err
	}
	if err := c.newClients(); err != nil {
		return nil, err
	}
	if err := o.Features.ApplyTo(c.Config, c.client, c.informers); err != nil {
		return nil, err
	}
	if err := errors.Join(o.APIs.Validate(s, extensionsLibrary.scheme, aggregatorLibrary.scheme)...); err != nil {
		return nil, fmt.Errorf("--runtime-config: %w", err)
	}
	if err := o.APIs.ApplyTo(c.Config, defaultAPIs(s), s); err != nil {
		return nil, fmt.Errorf("--runtime-config: %w", err)
	}
	if err := o.Egress.ApplyTo(c.Config); err != nil {
		return nil, fmt.Errorf("--egress-selector-config-file: %w", err)
	}
	if err := o.Traces.ApplyTo(c.EgressSelector, c.Config); err != nil {
		return nil, fmt.Errorf("--tracing-config-file: %w", err)
	}
	if err := c.applyOpenAPI(); err != nil {
		return nil, err
	}
	if c.stores, err = o.applyStorage(c.Config, s, codecs); err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	if c.peers, err = o.newPeers(c); err != nil {
		return nil, err
	}
	if o.features[lease.CoordinatedElection] {
		if r := coordinationv1beta1.SchemeGroupVersion.WithResource("leasecandidates"); !c.MergedResourceConfig.ResourceEnabled(r) {
			return nil, fmt.Errorf("--feature-gates: %s needs %s of %s, which --runtime-config must switch on", lease.CoordinatedElection, r.Resource, r.GroupVersion())
		}
		c.elections = coordinatedelection.New(c.client, c.informers, o.Elections)
	}
	if err := o.applyAuth(ctx, c); err != nil {
		return nil, err
	}
	if err := o.Audit.ApplyTo(c.Config); err != nil {
		return nil, fmt.Errorf("--audit-policy-file: %w", err)
	}
	return c, nil
}

// applyAuth lets the server know who its clients are and what they may do.
func (o *Options) applyAuth(ctx context.Context, c *config) error {
	var egress egressselector.Lookup
	if c.EgressSelector != nil {
		egress = c.EgressSelector.Lookup
	}
	var err error
	c.authn, err = o.Authentication.New(ctx, authentication.Dependencies{
		Client: c.client, Informers: c.informers, Egress: egress, APIServerID: c.APIServerID,
	})
	if err != nil {
		return err
	}
	if err := c.authn.ApplyTo(c.Config); err != nil {
		return err
	}
	c.authz, err = o.Authorization.New(authorization.Dependencies{
		Informers: c.informers, Serves: c.MergedResourceConfig.ResourceEnabled, Features: o.features, Egress: egress, APIServerID: c.APIServerID,
	})
	if err != nil {
		return err
	}
	c.Authorization.Authorizer, c.RuleResolver = c.authz.Authorizer, c.authz.Rules
	if c.services, err = serviceresolver.New(c.informers, o.AggregatorRouting, c.LoopbackClientConfig.Host); err != nil {
		return err
	}
	c.loopback.Wrap(tracing.WrapperFor(c.TracerProvider))
	c.identity = webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, c.EgressSelector, c.loopback, c.TracerProvider)
	return o.Admission.ApplyTo(c.Config, admission.Dependencies{
		Client: c.client, Dynamic: c.dynamic, Informers: c.informers, Scheme: c.scheme, Serves: c.MergedResourceConfig.ResourceEnabled, Features: o.features,
		Initializers: []genericadmission.PluginInitializer{webhookinitializer.NewPluginInitializer(c.identity, c.services)},
	})
}

// applyServing opens the port.
func (o *Options) applyServing(c *config) error {
	if err := o.Server.DefaultAdvertiseAddress(o.Serving); err != nil {
		return fmt.Errorf("--advertise-address: %w", err)
	}
	c.PublicAddress = o.Server.AdvertiseAddress
	if err := o.Serving.MaybeDefaultWithSelfSignedCerts(o.Server.AdvertiseAddress.String(), nil, nil); err != nil {
		return fmt.Errorf("--cert-dir: making a self-signed certificate: %w", err)
	}
	if err := o.Serving.ApplyTo(&c.SecureServing); err != nil {
		return fmt.Errorf("--bind-address, --secure-port: %w", err)
	}
	var err error
	if c.loopback, err = newLoopback(c.SecureServing); err != nil {
		return err
	}
	c.self = inprocess.NewTransport()
	c.LoopbackClientConfig = withoutConnection(c.loopback, c.self)
	return nil
}

// newClients makes the server's own clients.
func (c *config) newClients() error {
	var err error
	if c.client, err = kubernetes.NewForConfig(c.LoopbackClientConfig); err != nil {
		return fmt.Errorf("loopback client: %w", err)
	}
	if c.dynamic, err = dynamic.NewForConfig(c.LoopbackClientConfig); err != nil {
		return fmt.Errorf("loopback client: %w", err)
	}
	c.informers = informers.NewSharedInformerFactoryWithOptions(c.client, informerResync, informers.WithTransform(trim))
	c.ownPods = &ownPods{self: c.self}
	c.informers.InformerFor(&corev1.Pod{}, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer { return c.ownPods.informer() })
	return nil
}

// applyOpenAPI names definitions after the types as clients see them.
func (c *config) applyOpenAPI() error {
	external, err := scheme.NewExternal()
	if err != nil {
		return err
	}
	namer := openapinamer.NewDefinitionNamer(external, extensionsLibrary.scheme, aggregatorLibrary.scheme)
	c.OpenAPIConfig = server.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	c.OpenAPIConfig.Info.Title = "Kubernetes"
	c.OpenAPIV3Config = server.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	c.OpenAPIV3Config.Info.Title = "Kubernetes"
	// A security scheme tells generated clients how they may authenticate.
	token := spec.SecuritySchemeProps{Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}
	c.OpenAPIConfig.SecurityDefinitions = &spec.SecurityDefinitions{"BearerToken": &spec.SecurityScheme{SecuritySchemeProps: token}}
	c.OpenAPIV3Config.SecuritySchemes = spec3.SecuritySchemes{"BearerToken": &spec3.SecurityScheme{
		SecuritySchemeProps: spec3.SecuritySchemeProps{Type: token.Type, Name: token.Name, In: token.In, Description: token.Description},
	}}
	return nil
}

// defaultAPIs are what --runtime-config starts from: stable versions are on, the others off.
func defaultAPIs(s *runtime.Scheme) *serverstorage.ResourceConfig {
	c := serverstorage.NewResourceConfig()
	for _, gv := range s.PrioritizedVersionsAllGroups() {
		if apiversion.CompareKubeAwareVersionStrings(gv.Version, "v1") >= 0 {
			c.EnableVersions(gv)
		} else {
			c.DisableVersions(gv)
		}
	}
	return c
}
