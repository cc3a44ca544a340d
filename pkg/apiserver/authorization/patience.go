package authorization

import (
	"context"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server"

	"github.com/leme-k8s/leme/pkg/apiserver/authorization/bootstrap"
)

const (
	// patience is how long a patient authorizer waits before it looks again.
	patience = 10 * time.Millisecond
	// settling is when to stop waiting for a policy that somebody changes meanwhile.
	settling = 10 * time.Second
)

// patient makes an authorizer that learns its rules from the server's own objects
// ask itself again, for as long as the server has not settled, before it fails to
// allow something. A client that is denied backs off for a second and longer; the
// rules of a server that starts are there within milliseconds.
func patient(a authorizer.Authorizer, settled <-chan struct{}) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, attributes authorizer.Attributes) (authorizer.Decision, string, error) {
		for {
			final := false
			select {
			case <-settled:
				final = true
			default:
			}
			decision, reason, err := a.Authorize(ctx, attributes)
			if final || decision == authorizer.DecisionAllow {
				return decision, reason, err
			}
			select {
			case <-settled:
			case <-time.After(patience):
			case <-ctx.Done():
				return decision, reason, err
			}
		}
	})
}

// Hook brings the bootstrap policy up to date, see [bootstrap.Hook]. From when the
// authorizers know it, what they do not allow is denied at once.
func (a *Authorization) Hook(hc server.PostStartHookContext) error {
	policy, err := bootstrap.Hook(hc, a.features)
	if hc.Err() != nil {
		return nil // the server stops, which no error of a hook must turn into a crash
	}
	if err != nil {
		return err
	}
	go a.settle(hc.Context, policy)
	return nil
}

func (a *Authorization) settle(ctx context.Context, policy *bootstrap.Policy) {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	defer a.settled()
	for !a.RBAC.HasSynced() || !a.RBAC.Has(policy.ClusterRoles, policy.ClusterRoleBindings, policy.Roles, policy.RoleBindings) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(patience):
		}
	}
}

// newSettled returns a channel and what closes it.
func newSettled() (<-chan struct{}, func()) {
	c := make(chan struct{})
	return c, sync.OnceFunc(func() { close(c) })
}
