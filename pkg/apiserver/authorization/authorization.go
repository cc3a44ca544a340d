package authorization

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/authorization/metrics"
	"k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/apiserver/pkg/server/egressselector"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/client-go/informers"

	"github.com/leme-k8s/leme/pkg/apiserver/authorization/abac"
	"github.com/leme-k8s/leme/pkg/apiserver/authorization/bootstrap"
	"github.com/leme-k8s/leme/pkg/apiserver/authorization/node"
	"github.com/leme-k8s/leme/pkg/apiserver/authorization/rbac"
)

// Dependencies are what authorizers read.
type Dependencies struct {
	// Informers are this server's own, which have not started.
	Informers informers.SharedInformerFactory
	// Serves says which resources this server has, so that nobody waits for the
	// others; nil means all.
	Serves func(schema.GroupVersionResource) bool
	// Egress finds the way out to webhooks; may be nil.
	Egress egressselector.Lookup
}

// Authorization is the assembled chain and what goes with it.
type Authorization struct {
	// Authorizer asks all authorizers in order until one has an opinion. The group
	// system:masters may do everything.
	Authorizer authorizer.Authorizer
	// Rules tells what a user may do, as far as authorizers know.
	Rules authorizer.RuleResolver
	// RBAC resolves roles and bindings. It is there in every mode: they are objects
	// that have to be guarded, even while nobody asks them.
	RBAC *rbac.Resolver

	settled func() // the authorizers know the bootstrap policy
}

// New assembles the chain.
func (o *Options) New(d Dependencies) (*Authorization, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var compiler authorizationcel.Compiler
	if o.ConfigFile != "" {
		compiler = authorizationcel.NewDefaultCompiler()
	}
	config, err := o.configuration(compiler)
	if err != nil {
		return nil, err
	}
	a := &Authorization{}
	var settled <-chan struct{}
	settled, a.settled = newSettled()
	if a.RBAC, err = rbac.NewResolver(d.Informers); err != nil {
		return nil, err
	}
	metrics.RegisterMetrics()
	all := []union.NamedAuthorizer{{
		AuthorizerName: "kubernetes.io/system-masters", Authorizer: authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup),
	}}
	var rules []authorizer.RuleResolver
	for i, c := range config.Authorizers {
		one, resolver, err := o.authorizer(c, a.RBAC, compiler, d)
		if err != nil {
			if o.ConfigFile != "" {
				return nil, fmt.Errorf("--authorization-config: authorizers[%d]: %w", i, err)
			}
			return nil, fmt.Errorf("--authorization-mode: %s: %w", c.Type, err)
		}
		if t := string(c.Type); t == ModeRBAC || t == ModeNode {
			one = patient(one, settled)
		}
		all = append(all, union.NamedAuthorizer{AuthorizerName: c.Name, Authorizer: metrics.InstrumentedAuthorizer(string(c.Type), c.Name, one)})
		if resolver != nil {
			rules = append(rules, resolver)
		}
	}
	if a.Authorizer, err = union.New(all...); err != nil {
		return nil, err
	}
	a.Rules = union.NewRuleResolvers(rules...)
	return a, nil
}

func (o *Options) authorizer(c apiserverapi.AuthorizerConfiguration, r *rbac.Resolver, compiler authorizationcel.Compiler, d Dependencies) (authorizer.Authorizer, authorizer.RuleResolver, error) {
	switch string(c.Type) {
	case ModeAlwaysAllow:
		a := authorizerfactory.NewAlwaysAllowAuthorizer()
		return a, a, nil
	case ModeAlwaysDeny:
		a := authorizerfactory.NewAlwaysDenyAuthorizer()
		return a, a, nil
	case ModeABAC:
		a, err := abac.Load(o.PolicyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("--authorization-policy-file: %w", err)
		}
		return a, a, nil
	case ModeRBAC:
		return rbac.NewAuthorizer(r), r, nil
	case ModeNode:
		rules, err := bootstrap.NodeRules()
		if err != nil {
			return nil, nil, err
		}
		a, err := node.New(d.Informers, d.Serves, rules)
		return a, nil, err
	case ModeWebhook:
		a, err := newWebhook(c, compiler, d.Egress)
		if err != nil {
			return nil, nil, err
		}
		return a, a, nil
	}
	return nil, nil, fmt.Errorf("unknown authorizer type %q", c.Type)
}

func newWebhook(c apiserverapi.AuthorizerConfiguration, compiler authorizationcel.Compiler, egress egressselector.Lookup) (*webhook.WebhookAuthorizer, error) {
	w := c.Webhook
	var dial utilnet.DialFunc
	if egress != nil {
		var err error
		if dial, err = egress(egressselector.ControlPlane.AsNetworkContext()); err != nil {
			return nil, fmt.Errorf("--egress-selector-config-file: %w", err)
		}
	}
	config, err := webhookutil.LoadKubeconfig(*w.ConnectionInfo.KubeConfigFile, dial)
	if err != nil {
		return nil, fmt.Errorf("webhook kubeconfig %q: %w", *w.ConnectionInfo.KubeConfigFile, err)
	}
	config.Timeout = w.Timeout.Duration
	ttl := func(d time.Duration, on bool) time.Duration {
		if !on {
			return 0
		}
		return d
	}
	onError := authorizer.DecisionNoOpinion
	if w.FailurePolicy == apiserverapi.FailurePolicyDeny {
		onError = authorizer.DecisionDeny
	}
	if compiler == nil {
		compiler = authorizationcel.NewDefaultCompiler()
	}
	return webhook.New(config, w.SubjectAccessReviewVersion,
		ttl(w.AuthorizedTTL.Duration, w.CacheAuthorizedRequests), ttl(w.UnauthorizedTTL.Duration, w.CacheUnauthorizedRequests),
		*genericoptions.DefaultAuthWebhookRetryBackoff(), onError, w.MatchConditions, c.Name, newHookMetrics(), compiler)
}
