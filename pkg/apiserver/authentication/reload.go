package authentication

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/server/options/authenticationconfig/metrics"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/configfile"
)

const (
	// acquaintance is how long new providers may take to tell their keys before the old
	// ones stay in use.
	acquaintance = time.Minute
	// farewell is how long old providers still answer the requests that they were asked by.
	farewell = time.Minute
)

// providers are the OpenID Connect providers of a file, which can be exchanged.
type providers struct {
	// make returns those of a configuration, which end with its context.
	make    func(context.Context, *apiserverapi.AuthenticationConfiguration) (*jwtProviders, error)
	current atomic.Pointer[jwtProviders]
	end     context.CancelFunc
}

// jwtProviders are providers that are asked in turn.
type jwtProviders struct {
	authenticator.Token
	health []func() error
}

// AuthenticateToken implements authenticator.Token.
func (p *providers) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if now := p.current.Load(); now.Token != nil {
		return now.AuthenticateToken(ctx, token)
	}
	return nil, false, nil
}

// use begins with the providers of c.
func (p *providers) use(ctx context.Context, c *apiserverapi.AuthenticationConfiguration) error {
	ctx, cancel := context.WithCancel(ctx)
	next, err := p.make(ctx, c)
	if err != nil {
		cancel()
		return err
	}
	p.current.Store(next)
	p.end = cancel
	return nil
}

// exchange takes the providers of c when they are ready.
func (p *providers) exchange(ctx context.Context, c *apiserverapi.AuthenticationConfiguration) error {
	ctx, cancel := context.WithCancel(ctx)
	next, err := p.make(ctx, c)
	if err != nil {
		cancel()
		return err
	}
	var unready error
	if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, acquaintance, true, func(context.Context) (bool, error) {
		unready = next.check()
		return unready == nil, nil
	}); err != nil {
		cancel()
		return fmt.Errorf("the new providers are not ready: %w", errors.Join(unready, err))
	}
	end := p.end
	p.current.Store(next)
	p.end = cancel
	time.AfterFunc(farewell, end)
	return nil
}

func (p *jwtProviders) check() error {
	var errs []error
	for _, healthy := range p.health {
		errs = append(errs, healthy())
	}
	return errors.Join(errs...)
}

// watch returns what exchanges the providers when the file changes. Who may be anonymous
// is settled when the server starts.
func (o *Options) watch(p *providers, data []byte, compiler authenticationcel.Compiler, serverID string) func(context.Context) {
	metrics.RegisterMetrics()
	metrics.RecordAuthenticationConfigLastConfigInfo(serverID, string(data))
	return func(ctx context.Context) {
		m := configfile.Metrics{Success: metrics.RecordAuthenticationConfigAutomaticReloadSuccess, Failure: metrics.RecordAuthenticationConfigAutomaticReloadFailure}
		configfile.Watch(ctx, o.ConfigFile, data, serverID, m, func(_ context.Context, data []byte) error {
			c, err := decodeConfiguration(data)
			if err != nil {
				return err
			}
			if err := validation.ValidateAuthenticationConfiguration(compiler, c, o.ServiceAccount.Issuers).ToAggregate(); err != nil {
				return err
			}
			return p.exchange(ctx, c)
		})
	}
}
