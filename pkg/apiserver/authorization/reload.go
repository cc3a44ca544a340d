package authorization

import (
	"context"
	"sync/atomic"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server/options/authorizationconfig/metrics"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/configfile"
)

// exchangeable is a chain that another one can take the place of.
type exchangeable struct{ chain atomic.Pointer[chain] }

var (
	_ authorizer.Authorizer   = &exchangeable{}
	_ authorizer.RuleResolver = &exchangeable{}
)

// Authorize implements authorizer.Authorizer.
func (e *exchangeable) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	return e.chain.Load().Authorize(ctx, a)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (e *exchangeable) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return e.chain.Load().ConditionsAwareAuthorize(ctx, a)
}

// EvaluateConditions implements authorizer.Authorizer.
func (e *exchangeable) EvaluateConditions(ctx context.Context, d authorizer.ConditionsAwareDecision, data authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return e.chain.Load().EvaluateConditions(ctx, d, data)
}

// RulesFor implements authorizer.RuleResolver.
func (e *exchangeable) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return e.chain.Load().RulesFor(ctx, u, namespace)
}

// watch returns what exchanges the chain when the file changes.
func (o *Options) watch(current *exchangeable, b *builder, data []byte, serverID string) func(context.Context) {
	metrics.RegisterMetrics()
	metrics.RecordAuthorizationConfigLastConfigInfo(serverID, string(data))
	return func(ctx context.Context) {
		m := configfile.Metrics{Success: metrics.RecordAuthorizationConfigAutomaticReloadSuccess, Failure: metrics.RecordAuthorizationConfigAutomaticReloadFailure}
		configfile.Watch(ctx, o.ConfigFile, data, serverID, m, func(_ context.Context, data []byte) error {
			config, err := decodeConfiguration(data, b.compiler)
			if err != nil {
				return err
			}
			next, err := b.chain(config)
			if err != nil {
				return err
			}
			current.chain.Store(next)
			return nil
		})
	}
}
