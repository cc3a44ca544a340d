package authorization

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	// Features says of feature gates that are off by default whether they are on.
	Features map[string]bool
	// Egress finds the way out to webhooks; may be nil.
	Egress egressselector.Lookup
	// APIServerID tells apart the metrics of several servers.
	APIServerID string
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
	// Watch puts changes of the file of --authorization-config to use until its context ends.
	Watch func(context.Context)

	features map[string]bool
	settled  func() // the authorizers know the bootstrap policy
}

// New assembles the chain.
func (o *Options) New(d Dependencies) (*Authorization, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	file, err := o.read()
	if err != nil {
		return nil, err
	}
	b := &builder{options: o, egress: d.Egress}
	if o.ConfigFile != "" {
		b.compiler = authorizationcel.NewDefaultCompiler()
	}
	config, err := o.configuration(file, b.compiler)
	if err != nil {
		return nil, err
	}
	a := &Authorization{Watch: func(context.Context) {}, features: d.Features}
	b.settled, a.settled = newSettled()
	if a.RBAC, err = rbac.NewResolver(d.Informers); err != nil {
		return nil, err
	}
	b.rbac = a.RBAC
	if slices.ContainsFunc(config.Authorizers, func(c apiserverapi.AuthorizerConfiguration) bool { return c.Type == ModeNode }) {
		rules, err := bootstrap.NodeRules()
		if err != nil {
			return nil, err
		}
		if b.node, err = node.New(d.Informers, d.Serves, rules); err != nil {
			return nil, err
		}
	}
	metrics.RegisterMetrics()
	chain, err := b.chain(config)
	if err != nil {
		return nil, err
	}
	current := &exchangeable{}
	current.chain.Store(chain)
	a.Authorizer, a.Rules = current, current
	if o.ConfigFile != "" {
		a.Watch = o.watch(current, b, file, d.APIServerID)
	}
	return a, nil
}

// chain asks in order.
type chain struct {
	authorizer.Authorizer
	authorizer.RuleResolver
}

// builder makes chains. What reads objects is made once, before informers start.
type builder struct {
	options  *Options
	rbac     *rbac.Resolver
	node     authorizer.Authorizer // nil if the first chain had none
	settled  <-chan struct{}
	compiler authorizationcel.Compiler
	egress   egressselector.Lookup
}

func (b *builder) chain(config *apiserverapi.AuthorizationConfiguration) (*chain, error) {
	all := []union.NamedAuthorizer{{
		AuthorizerName: "kubernetes.io/system-masters", Authorizer: authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup),
	}}
	var rules []authorizer.RuleResolver
	for i, c := range config.Authorizers {
		one, resolver, err := b.authorizer(c)
		if err != nil {
			if b.options.ConfigFile != "" {
				return nil, fmt.Errorf("--authorization-config: authorizers[%d]: %w", i, err)
			}
			return nil, fmt.Errorf("--authorization-mode: %s: %w", c.Type, err)
		}
		if t := string(c.Type); t == ModeRBAC || t == ModeNode {
			one = patient(one, b.settled)
		}
		all = append(all, union.NamedAuthorizer{AuthorizerName: c.Name, Authorizer: metrics.InstrumentedAuthorizer(string(c.Type), c.Name, one)})
		if resolver != nil {
			rules = append(rules, resolver)
		}
	}
	a, err := union.New(all...)
	if err != nil {
		return nil, err
	}
	return &chain{a, union.NewRuleResolvers(rules...)}, nil
}

func (b *builder) authorizer(c apiserverapi.AuthorizerConfiguration) (authorizer.Authorizer, authorizer.RuleResolver, error) {
	switch string(c.Type) {
	case ModeAlwaysAllow:
		a := authorizerfactory.NewAlwaysAllowAuthorizer()
		return a, a, nil
	case ModeAlwaysDeny:
		a := authorizerfactory.NewAlwaysDenyAuthorizer()
		return a, a, nil
	case ModeABAC:
		a, err := abac.Load(b.options.PolicyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("--authorization-policy-file: %w", err)
		}
		return a, a, nil
	case ModeRBAC:
		return rbac.NewAuthorizer(b.rbac), b.rbac, nil
	case ModeNode:
		if b.node == nil {
			return nil, nil, errors.New("the Node authorizer cannot be added while the server runs")
		}
		return b.node, nil, nil
	case ModeWebhook:
		a, err := newWebhook(c, b.compiler, b.egress)
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
