package authentication

import (
	"context"
	"fmt"
	"net/http"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/egressselector"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/webhook"
	tokenwebhook "k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/leme-k8s/leme/pkg/apiserver/authentication/bootstraptoken"
	"github.com/leme-k8s/leme/pkg/apiserver/authentication/serviceaccount"
	"github.com/leme-k8s/leme/pkg/apiserver/internal/stack"
)

// Dependencies are what authenticators ask.
type Dependencies struct {
	// Client is this server's loopback client.
	Client kubernetes.Interface
	// Informers are this server's own. New registers interest in what it reads.
	Informers informers.SharedInformerFactory
	// Egress finds the way out to webhooks and OpenID Connect providers; may be nil.
	Egress egressselector.Lookup
	// APIServerID tells apart the metrics of several servers.
	APIServerID string
}

// Authentication is the assembled chain and what goes with it.
type Authentication struct {
	// Authenticator tells who sends a request.
	Authenticator authenticator.Request
	// Audiences are the names by which tokens may mean this server.
	Audiences authenticator.Audiences
	// ClientCA verifies client certificates; nil without --client-ca-file.
	ClientCA dynamiccertificates.CAContentProvider
	// RequestHeader describes the trusted front proxy; nil without
	// --requestheader-client-ca-file.
	RequestHeader *authenticatorfactory.RequestHeaderConfig
	// Issuer signs ServiceAccount tokens.
	Issuer *serviceaccount.Issuer
	// TokenOptions say how long these tokens live.
	TokenOptions serviceaccount.TokenOptions
	// Watch puts changes of the file of --authentication-config to use until its context ends.
	Watch func(context.Context)

	issuer, keySetURI string
	keys              serviceaccount.KeySource
}

// New assembles the chain. OpenID Connect providers are fetched until ctx ends;
// files of CAs are watched by the server that the chain is applied to.
func (o *Options) New(ctx context.Context, d Dependencies) (*Authentication, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	a := &Authentication{
		Audiences:    o.audiences(),
		TokenOptions: serviceaccount.TokenOptions{MaxExpiration: o.ServiceAccount.MaxExpiration, Extend: o.ServiceAccount.ExtendExpiration},
		issuer:       o.ServiceAccount.Issuers[0],
		keySetURI:    o.ServiceAccount.KeySetURI,
	}
	var err error
	if a.ClientCA, err = o.ClientCert.GetClientCAContentProvider(); err != nil {
		return nil, fmt.Errorf("--client-ca-file: %w", err)
	}
	if a.RequestHeader, err = o.RequestHeader.ToAuthenticationRequestHeaderConfig(); err != nil {
		return nil, fmt.Errorf("--requestheader-client-ca-file: %w", err)
	}
	watchKeys, err := o.ServiceAccount.applyKeys(ctx, a)
	if err != nil {
		return nil, err
	}
	file, err := o.read()
	if err != nil {
		return nil, err
	}
	config, compiler, err := o.configuration(file)
	if err != nil {
		return nil, err
	}
	p := &providers{make: func(ctx context.Context, c *apiserverapi.AuthenticationConfiguration) (*jwtProviders, error) {
		return o.jwtProviders(ctx, c, compiler, d)
	}}
	if err := p.use(ctx, config); err != nil {
		return nil, err
	}
	a.Watch = watchKeys
	if o.ConfigFile != "" && o.OIDC.IssuerURL == "" {
		watchFile := o.watch(p, file, compiler, d.APIServerID)
		a.Watch = func(ctx context.Context) {
			go watchKeys(ctx)
			watchFile(ctx)
		}
	}
	tokens, err := o.tokens(a, p, d)
	if err != nil {
		return nil, err
	}
	a.Authenticator = a.chain(tokens, config.Anonymous)
	return a, nil
}

// applyKeys lets a sign and check tokens of ServiceAccounts. The returned function puts new keys to use until its context ends.
func (o *ServiceAccountOptions) applyKeys(ctx context.Context, a *Authentication) (watch func(context.Context), err error) {
	if o.SigningEndpoint == "" {
		if a.keys, err = serviceaccount.LoadKeys(o.KeyFiles...); err != nil {
			return nil, fmt.Errorf("--service-account-key-file: %w", err)
		}
		if a.Issuer, err = serviceaccount.LoadIssuer(a.issuer, o.SigningKeyFile); err != nil {
			return nil, fmt.Errorf("--service-account-signing-key-file: %w", err)
		}
		return func(context.Context) {}, nil
	}
	external, err := serviceaccount.NewExternal(ctx, o.SigningEndpoint)
	if err != nil {
		return nil, fmt.Errorf("--service-account-signing-endpoint: %w", err)
	}
	switch t := &a.TokenOptions; {
	case t.MaxExpiration == 0:
		t.MaxExpiration = external.MaxExpiration
	case t.MaxExpiration > external.MaxExpiration:
		return nil, fmt.Errorf("--service-account-max-token-expiration: %v is more than the %v for which the tokens of --service-account-signing-endpoint can live", t.MaxExpiration, external.MaxExpiration)
	}
	a.TokenOptions.MaxExtension = external.MaxExpiration
	a.keys, a.Issuer = external, external.Issuer(a.issuer)
	return external.Watch, nil
}

// tokens returns the authenticators of bearer tokens in the order in which they are asked.
func (o *Options) tokens(a *Authentication, p *providers, d Dependencies) (authenticator.Token, error) {
	var all []authenticator.Token
	if o.TokenFile != "" {
		file, err := tokenfile.NewCSV(o.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-auth-file: %w", err)
		}
		all = append(all, authenticator.WrapAudienceAgnosticToken(a.Audiences, file))
	}
	objects := serviceaccount.NewGetter(d.Client, d.Informers)
	all = append(all,
		serviceaccount.NewLegacyAuthenticator(a.keys, a.Audiences, o.ServiceAccount.Lookup, objects, d.Client.CoreV1()),
		serviceaccount.NewAuthenticator(o.ServiceAccount.Issuers, a.keys, a.Audiences, objects),
	)
	if o.BootstrapToken {
		all = append(all, authenticator.WrapAudienceAgnosticToken(a.Audiences, bootstraptoken.New(d.Client.CoreV1())))
	}
	if o.ConfigFile != "" || o.OIDC.IssuerURL != "" {
		all = append(all, authenticator.WrapAudienceAgnosticToken(a.Audiences, p))
	}
	if o.Webhook.ConfigFile != "" {
		hook, err := o.Webhook.authenticator(a.Audiences, d.Egress)
		if err != nil {
			return nil, err
		}
		all = append(all, hook)
	}
	// Checking a signature costs more than everything else that a small request
	// does; a deleted pod's token outlives it by no more than these ten seconds.
	return cache.New(tokenunion.New(all...), true, 10*time.Second, 0), nil
}

func (w WebhookOptions) authenticator(audiences authenticator.Audiences, egress egressselector.Lookup) (authenticator.Token, error) {
	var dial utilnet.DialFunc
	if egress != nil {
		var err error
		if dial, err = egress(egressselector.ControlPlane.AsNetworkContext()); err != nil {
			return nil, fmt.Errorf("--egress-selector-config-file: %w", err)
		}
	}
	config, err := webhook.LoadKubeconfig(w.ConfigFile, dial)
	if err != nil {
		return nil, fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
	}
	hook, err := tokenwebhook.New(config, w.Version, audiences, *genericoptions.DefaultAuthWebhookRetryBackoff())
	if err != nil {
		return nil, fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
	}
	return cache.New(hook, false, w.CacheTTL, w.CacheTTL), nil
}

// chain is what a request passes: the front proxy's word first, because the
// proxy also has a client certificate; then certificates and tokens; then, if
// nobody objected, the anonymous user.
func (a *Authentication) chain(tokens authenticator.Token, anonymousAuth *apiserverapi.AnonymousAuthConfig) authenticator.Request {
	var requests []authenticator.Request
	if h := a.RequestHeader; h != nil {
		requests = append(requests, authenticator.WrapAudienceAgnosticRequest(a.Audiences, headerrequest.NewDynamicVerifyOptionsSecure(
			h.CAContentProvider.VerifyOptions, h.AllowedClientNames, h.UsernameHeaders, h.UIDHeaders, h.GroupHeaders, h.ExtraHeaderPrefixes)))
	}
	if a.ClientCA != nil {
		requests = append(requests, newCertificates(a.ClientCA.VerifyOptions))
	}
	requests = append(requests, bearertoken.New(tokens), websocket.NewProtocolAuthenticator(tokens))

	all := group.NewAuthenticatedGroupAdder(union.New(requests...))
	if anonymousAuth.Enabled {
		// Wrong credentials are an error, not an anonymous request.
		all = union.NewFailOnError(all, anonymous.NewAuthenticator(anonymousAuth.Conditions))
	}
	return all
}

// ApplyTo gives the chain to a server. The server's listener asks for the
// client certificates that the chain understands, and reloads their CAs.
func (a *Authentication) ApplyTo(c *server.Config) error {
	c.Authentication.Authenticator = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		stack.Grow() // this is the first thing that is done in a goroutine which goes deep
		return a.Authenticator.AuthenticateRequest(r)
	})
	c.Authentication.APIAudiences = a.Audiences
	c.Authentication.RequestHeaderConfig = a.RequestHeader
	if err := c.Authentication.ApplyClientCert(a.ClientCA, c.SecureServing); err != nil {
		return fmt.Errorf("--client-ca-file: %w", err)
	}
	if a.RequestHeader != nil {
		if err := c.Authentication.ApplyClientCert(a.RequestHeader.CAContentProvider, c.SecureServing); err != nil {
			return fmt.Errorf("--requestheader-client-ca-file: %w", err)
		}
	}
	return nil
}

// Discovery returns the OpenID documents of the ServiceAccount token issuer, or
// nil if the issuer is no https URL, in which case there can be none.
func (a *Authentication) Discovery(ctx context.Context, externalAddress string) *serviceaccount.Discovery {
	d, err := serviceaccount.NewDiscovery(a.issuer, a.keySetURI, externalAddress, a.keys)
	if err != nil {
		klog.FromContext(ctx).Info("Serving no OpenID discovery document", "reason", err.Error())
		return nil
	}
	return d
}
