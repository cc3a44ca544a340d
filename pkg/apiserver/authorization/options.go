// Package authorization decides whether a user may do what a request asks for:
// by RBAC, by what a node's own pods need, by a webhook, or by a policy file, in
// the order of --authorization-mode or of a configuration file.
//
// To wire it into a server, before its informers start:
//
//	authz, err := o.New(authorization.Dependencies{Informers: informers, …})
//	config.Authorization.Authorizer = authz.Authorizer
//	config.RuleResolver = authz.Rules
//	…
//	guard := rbac.NewGuard(authz.Authorizer, authz.RBAC)   // for the stores of rbac.authorization.k8s.io:
//	guard.Protect(roleStore)                               // roles, clusterroles, rolebindings, clusterrolebindings
//	server.AddPostStartHook(bootstrap.HookName, bootstrap.Hook)
//	// the REST of authorization.k8s.io: package authorization/review
package authorization

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/load"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
)

// The modes of --authorization-mode.
const (
	ModeAlwaysAllow = "AlwaysAllow"
	ModeAlwaysDeny  = "AlwaysDeny"
	ModeABAC        = "ABAC"
	ModeWebhook     = "Webhook"
	ModeRBAC        = "RBAC"
	ModeNode        = "Node"
)

var modes = []string{ModeAlwaysAllow, ModeAlwaysDeny, ModeABAC, ModeWebhook, ModeRBAC, ModeNode}

// Options are the flags of authorization.
type Options struct {
	// Modes are asked in this order.
	Modes []string
	// PolicyFile holds the policies of ModeABAC.
	PolicyFile string
	// Webhook describes the one webhook of ModeWebhook.
	Webhook WebhookOptions
	// ConfigFile is an AuthorizationConfiguration of apiserver.config.k8s.io,
	// instead of all the other flags.
	ConfigFile string

	flags *pflag.FlagSet
}

// WebhookOptions say whom to ask, and how long its answers are kept.
type WebhookOptions struct {
	ConfigFile                     string
	Version                        string
	AuthorizedTTL, UnauthorizedTTL time.Duration
}

// NewOptions returns the original's defaults.
func NewOptions() *Options {
	return &Options{Webhook: WebhookOptions{Version: "v1beta1", AuthorizedTTL: 5 * time.Minute, UnauthorizedTTL: 30 * time.Second}}
}

// AddFlags adds the original's flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.flags = fs
	fs.StringSliceVar(&o.Modes, "authorization-mode", o.Modes, "Ordered list of authorizers: "+strings.Join(modes, ", ")+". AlwaysAllow by default, if --authorization-config is not used")
	fs.StringVar(&o.PolicyFile, "authorization-policy-file", o.PolicyFile, "File with a policy in JSON on each line, for ABAC")
	fs.StringVar(&o.ConfigFile, "authorization-config", o.ConfigFile, "AuthorizationConfiguration file, instead of --authorization-mode and --authorization-webhook-*")
	w := &o.Webhook
	fs.StringVar(&w.ConfigFile, "authorization-webhook-config-file", w.ConfigFile, "kubeconfig of a webhook that authorizes requests, for Webhook")
	fs.StringVar(&w.Version, "authorization-webhook-version", w.Version, "Version of the SubjectAccessReview that the webhook understands: v1 or v1beta1")
	fs.DurationVar(&w.AuthorizedTTL, "authorization-webhook-cache-authorized-ttl", w.AuthorizedTTL, "How long the webhook's consent is kept")
	fs.DurationVar(&w.UnauthorizedTTL, "authorization-webhook-cache-unauthorized-ttl", w.UnauthorizedTTL, "How long the webhook's refusal is kept")
}

// Validate reports every flag that is wrong.
func (o *Options) Validate() error {
	var errs []error
	if o.ConfigFile != "" {
		for _, name := range []string{"authorization-mode", "authorization-webhook-config-file", "authorization-webhook-version", "authorization-webhook-cache-authorized-ttl", "authorization-webhook-cache-unauthorized-ttl"} {
			if o.flags != nil && o.flags.Changed(name) {
				errs = append(errs, fmt.Errorf("--authorization-config and --%s exclude each other", name))
			}
		}
		return errors.Join(errs...)
	}
	for i, mode := range o.Modes {
		if !slices.Contains(modes, mode) {
			errs = append(errs, fmt.Errorf("--authorization-mode: %q is none of %s", mode, strings.Join(modes, ", ")))
		}
		if slices.Contains(o.Modes[:i], mode) {
			errs = append(errs, fmt.Errorf("--authorization-mode: %q is given twice", mode))
		}
	}
	need := func(mode, flag, file string) {
		if used := slices.Contains(o.Modes, mode); used && file == "" {
			errs = append(errs, fmt.Errorf("--authorization-mode=%s needs --%s", mode, flag))
		} else if !used && file != "" {
			errs = append(errs, fmt.Errorf("--%s needs --authorization-mode=%s", flag, mode))
		}
	}
	need(ModeABAC, "authorization-policy-file", o.PolicyFile)
	need(ModeWebhook, "authorization-webhook-config-file", o.Webhook.ConfigFile)
	return errors.Join(errs...)
}

// configuration is what the file says, or the flags in the file's terms.
func (o *Options) configuration(file []byte, compiler authorizationcel.Compiler) (*apiserverapi.AuthorizationConfiguration, error) {
	if o.ConfigFile != "" {
		c, err := decodeConfiguration(file, compiler)
		if err != nil {
			return nil, fmt.Errorf("--authorization-config: %q: %w", o.ConfigFile, err)
		}
		return c, nil
	}
	order := o.Modes
	if len(order) == 0 {
		order = []string{ModeAlwaysAllow}
	}
	c := &apiserverapi.AuthorizationConfiguration{}
	for _, mode := range order {
		a := apiserverapi.AuthorizerConfiguration{Type: apiserverapi.AuthorizerType(mode), Name: strings.ToLower(mode)}
		if mode == ModeWebhook {
			a.Name = "default"
			a.Webhook = &apiserverapi.WebhookConfiguration{
				AuthorizedTTL:              metav1.Duration{Duration: o.Webhook.AuthorizedTTL},
				CacheAuthorizedRequests:    true,
				UnauthorizedTTL:            metav1.Duration{Duration: o.Webhook.UnauthorizedTTL},
				CacheUnauthorizedRequests:  true,
				Timeout:                    metav1.Duration{Duration: 30 * time.Second},
				SubjectAccessReviewVersion: o.Webhook.Version,
				FailurePolicy:              apiserverapi.FailurePolicyNoOpinion,
				ConnectionInfo: apiserverapi.WebhookConnectionInfo{
					Type: apiserverapi.AuthorizationWebhookConnectionInfoTypeKubeConfigFile, KubeConfigFile: &o.Webhook.ConfigFile,
				},
			}
		}
		c.Authorizers = append(c.Authorizers, a)
	}
	return c, nil
}

// read returns the content of the file of --authorization-config; nil without one.
func (o *Options) read() ([]byte, error) {
	if o.ConfigFile == "" {
		return nil, nil
	}
	data, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("--authorization-config: %w", err)
	}
	return data, nil
}

func decodeConfiguration(data []byte, compiler authorizationcel.Compiler) (*apiserverapi.AuthorizationConfiguration, error) {
	c, err := load.LoadFromData(data)
	if err != nil {
		return nil, err
	}
	return c, validation.ValidateAuthorizationConfiguration(compiler, nil, c, sets.New(modes...), sets.New(ModeWebhook)).ToAggregate()
}
