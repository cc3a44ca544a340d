// Package authentication decides who sends a request to the API server: by its
// client certificate, by its bearer token (of a file, a ServiceAccount, a joining
// machine, an OpenID Connect provider or a webhook), by the headers of a trusted
// front proxy, or as nobody in particular.
//
// To wire it into a server, once the loopback client exists:
//
//	authn, err := o.New(ctx, authentication.Dependencies{Client: client, Informers: informers, …})
//	authn.ApplyTo(&config.Config)                     // authenticator, audiences, client CAs of the listener
//	…
//	if authn.Issuer != nil {                          // serviceaccounts/token
//	  storage["serviceaccounts/token"] = serviceaccount.NewTokenREST(authn.Issuer, authn.Audiences, authn.TokenOptions, serviceaccount.Storage{…})
//	}
//	if d := authn.Discovery(ctx, config.ExternalAddress); d != nil {
//	  d.Install(server.Handler.GoRestfulContainer)    // OpenID documents
//	}
//	// the REST of authentication.k8s.io: package authentication/review
package authentication

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"k8s.io/apimachinery/pkg/util/sets"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	cliflag "k8s.io/component-base/cli/flag"
)

// Options are the flags of authentication.
type Options struct {
	ClientCert     genericoptions.ClientCertAuthenticationOptions
	RequestHeader  genericoptions.RequestHeaderAuthenticationOptions
	ServiceAccount ServiceAccountOptions
	OIDC           OIDCOptions
	Webhook        WebhookOptions

	// APIAudiences are the names by which tokens may mean this server. By default
	// the first issuer of ServiceAccount tokens.
	APIAudiences []string
	// Anonymous lets requests without credentials pass as system:anonymous.
	Anonymous bool
	// BootstrapToken accepts the tokens of joining machines.
	BootstrapToken bool
	// TokenFile is a CSV file of static tokens.
	TokenFile string
	// ConfigFile is an AuthenticationConfiguration of apiserver.config.k8s.io.
	ConfigFile string

	flags *pflag.FlagSet
}

// ServiceAccountOptions are about the tokens of ServiceAccounts.
type ServiceAccountOptions struct {
	// Issuers are accepted; the first one is written into new tokens.
	Issuers []string
	// KeyFiles hold the keys that tokens are checked with.
	KeyFiles []string
	// SigningKeyFile holds the key that new tokens are signed with.
	SigningKeyFile string
	// SigningEndpoint is the Unix socket of a process that signs new tokens, and knows the keys that tokens are checked
	// with, in place of SigningKeyFile and KeyFiles.
	SigningEndpoint string
	// KeySetURI is where the discovery document says that the public keys are.
	KeySetURI string
	// Lookup demands that the Secret of a legacy token still exists.
	Lookup bool
	// MaxExpiration caps the life of new tokens; 0 does not.
	MaxExpiration time.Duration
	// ExtendExpiration lets the tokens of injected volumes live a year.
	ExtendExpiration bool
}

// OIDCOptions describe one OpenID Connect provider by flags.
type OIDCOptions struct {
	IssuerURL, ClientID, CAFile   string
	UsernameClaim, UsernamePrefix string
	GroupsClaim, GroupsPrefix     string
	SigningAlgorithms             []string
	RequiredClaims                map[string]string
}

// WebhookOptions say whom to ask about tokens that nobody else knows.
type WebhookOptions struct {
	ConfigFile string
	Version    string
	CacheTTL   time.Duration
}

// NewOptions returns the original's defaults.
func NewOptions() *Options {
	return &Options{
		Anonymous:      true,
		ServiceAccount: ServiceAccountOptions{Lookup: true, ExtendExpiration: true},
		OIDC:           OIDCOptions{UsernameClaim: "sub", SigningAlgorithms: []string{"RS256"}},
		Webhook:        WebhookOptions{Version: "v1beta1", CacheTTL: 2 * time.Minute},
	}
}

// AddFlags adds the original's flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.flags = fs
	o.ClientCert.AddFlags(fs)
	o.RequestHeader.AddFlags(fs)
	fs.StringSliceVar(&o.APIAudiences, "api-audiences", o.APIAudiences, "Identifiers of the API, one of which a token must name. By default the first --service-account-issuer")
	fs.BoolVar(&o.Anonymous, "anonymous-auth", o.Anonymous, "Treat requests without credentials as those of system:anonymous in the group system:unauthenticated")
	fs.BoolVar(&o.BootstrapToken, "enable-bootstrap-token-auth", o.BootstrapToken, "Accept the bootstrap tokens in Secrets of kube-system")
	fs.StringVar(&o.TokenFile, "token-auth-file", o.TokenFile, "CSV file of static bearer tokens: token, user, UID and, quoted, groups")
	fs.StringVar(&o.ConfigFile, "authentication-config", o.ConfigFile, "AuthenticationConfiguration file for JWT authenticators and anonymous requests")

	sa := &o.ServiceAccount
	fs.StringArrayVar(&sa.Issuers, "service-account-issuer", sa.Issuers, "Issuer of ServiceAccount tokens. If given several times, all are accepted and the first is written into new tokens")
	fs.StringArrayVar(&sa.KeyFiles, "service-account-key-file", sa.KeyFiles, "PEM file of RSA or ECDSA keys that ServiceAccount tokens are checked with; may be given several times")
	fs.StringVar(&sa.SigningKeyFile, "service-account-signing-key-file", sa.SigningKeyFile, "PEM file of the private key that ServiceAccount tokens are signed with")
	fs.StringVar(&sa.SigningEndpoint, "service-account-signing-endpoint", sa.SigningEndpoint, "Unix socket of a process that signs ServiceAccount tokens and knows the keys that they are checked with, in place of --service-account-signing-key-file and --service-account-key-file")
	fs.StringVar(&sa.KeySetURI, "service-account-jwks-uri", sa.KeySetURI, "Where the OpenID discovery document says that the key set is. By default on this server")
	fs.BoolVar(&sa.Lookup, "service-account-lookup", sa.Lookup, "Accept a ServiceAccount token in a Secret only while the Secret exists")
	fs.DurationVar(&sa.MaxExpiration, "service-account-max-token-expiration", sa.MaxExpiration, "Longest life of a new ServiceAccount token")
	fs.BoolVar(&sa.ExtendExpiration, "service-account-extend-token-expiration", sa.ExtendExpiration, "Let the tokens in injected volumes live for a year, for clients that do not read them again")

	oc := &o.OIDC
	fs.StringVar(&oc.IssuerURL, "oidc-issuer-url", oc.IssuerURL, "https URL of an OpenID Connect issuer")
	fs.StringVar(&oc.ClientID, "oidc-client-id", oc.ClientID, "Client ID that the issuer's tokens must be for")
	fs.StringVar(&oc.CAFile, "oidc-ca-file", oc.CAFile, "CA bundle of the OpenID Connect issuer. By default the host's")
	fs.StringVar(&oc.UsernameClaim, "oidc-username-claim", oc.UsernameClaim, "Claim that is the user's name")
	fs.StringVar(&oc.UsernamePrefix, "oidc-username-prefix", oc.UsernamePrefix, "Prefix of user names; '-' for none. By default the issuer's URL, unless the claim is email")
	fs.StringVar(&oc.GroupsClaim, "oidc-groups-claim", oc.GroupsClaim, "Claim that holds the user's groups")
	fs.StringVar(&oc.GroupsPrefix, "oidc-groups-prefix", oc.GroupsPrefix, "Prefix of group names")
	fs.StringSliceVar(&oc.SigningAlgorithms, "oidc-signing-algs", oc.SigningAlgorithms, "Accepted signing algorithms: "+strings.Join(oidc.AllValidSigningAlgorithms(), ", "))
	fs.Var(cliflag.NewMapStringStringNoSplit(&oc.RequiredClaims), "oidc-required-claim", "A claim=value that tokens must have; may be given several times")

	w := &o.Webhook
	fs.StringVar(&w.ConfigFile, "authentication-token-webhook-config-file", w.ConfigFile, "kubeconfig of a webhook that authenticates tokens")
	fs.StringVar(&w.Version, "authentication-token-webhook-version", w.Version, "Version of the TokenReview that the webhook understands: v1 or v1beta1")
	fs.DurationVar(&w.CacheTTL, "authentication-token-webhook-cache-ttl", w.CacheTTL, "How long the webhook's answers are kept")
}

// Validate reports every flag that is wrong.
func (o *Options) Validate() error {
	errs := o.RequestHeader.Validate()
	sa := o.ServiceAccount
	if len(sa.Issuers) == 0 {
		errs = append(errs, errors.New("--service-account-issuer is required"))
	}
	seen := sets.New[string]()
	for _, issuer := range sa.Issuers {
		switch {
		case issuer == "":
			errs = append(errs, errors.New("--service-account-issuer must not be empty"))
		case seen.Has(issuer):
			errs = append(errs, fmt.Errorf("--service-account-issuer: %q is given twice", issuer))
		case strings.Contains(issuer, ":"):
			if _, err := url.Parse(issuer); err != nil {
				errs = append(errs, fmt.Errorf("--service-account-issuer: %q contains a ':' and is not a URL: %w", issuer, err))
			}
		}
		seen.Insert(issuer)
	}
	switch external := sa.SigningEndpoint != ""; {
	case external && sa.SigningKeyFile != "":
		errs = append(errs, errors.New("--service-account-signing-endpoint and --service-account-signing-key-file exclude each other"))
	case external && len(sa.KeyFiles) > 0:
		errs = append(errs, errors.New("--service-account-signing-endpoint and --service-account-key-file exclude each other"))
	case !external && sa.SigningKeyFile == "":
		errs = append(errs, errors.New("--service-account-signing-key-file is required"))
	}
	if sa.SigningEndpoint == "" && len(sa.KeyFiles) == 0 {
		errs = append(errs, errors.New("--service-account-key-file is required"))
	}
	if sa.MaxExpiration != 0 {
		if low, high := time.Hour, time.Duration(1<<32)*time.Second; sa.MaxExpiration < low || sa.MaxExpiration > high {
			errs = append(errs, fmt.Errorf("--service-account-max-token-expiration: %v is not between 1 hour and 2^32 seconds", sa.MaxExpiration))
		}
	}
	if sa.KeySetURI != "" {
		if u, err := url.Parse(sa.KeySetURI); err != nil || u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("--service-account-jwks-uri: %q is not an https URL", sa.KeySetURI))
		}
	}
	if o.OIDC.IssuerURL != "" && o.OIDC.ClientID == "" {
		errs = append(errs, errors.New("--oidc-client-id is required with --oidc-issuer-url"))
	} else if o.OIDC.IssuerURL == "" && o.OIDC.ClientID != "" {
		errs = append(errs, errors.New("--oidc-issuer-url is required with --oidc-client-id"))
	}
	if o.Webhook.ConfigFile != "" && o.Webhook.Version != "v1" && o.Webhook.Version != "v1beta1" {
		errs = append(errs, fmt.Errorf("--authentication-token-webhook-version: %q is neither v1 nor v1beta1", o.Webhook.Version))
	}
	return errors.Join(errs...)
}

// audiences are this server's names.
func (o *Options) audiences() []string {
	if len(o.APIAudiences) == 0 && len(o.ServiceAccount.Issuers) > 0 {
		return o.ServiceAccount.Issuers[:1]
	}
	return o.APIAudiences
}
