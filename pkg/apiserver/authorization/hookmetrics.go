package authorization

import (
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	webhookmetrics "k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
)

// hookMetrics counts what webhooks and their match conditions do; the number of
// requests is counted by the client that sends them.
type hookMetrics struct {
	webhookmetrics.NoopRequestMetrics
	webhookmetrics.WebhookMetrics
	authorizationcel.MatcherMetrics
}

func newHookMetrics() hookMetrics {
	webhookmetrics.RegisterWebhookMetrics()
	authorizationcel.RegisterMetrics()
	return hookMetrics{WebhookMetrics: webhookmetrics.NewWebhookMetrics(), MatcherMetrics: authorizationcel.NewMatcherMetrics()}
}
