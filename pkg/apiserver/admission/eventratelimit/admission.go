// Package eventratelimit bounds how many events are accepted: by the server, and for a
// namespace, a user, or a source and what it reports about.
package eventratelimit

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
)

// PluginName is the plugin's name in flags.
const PluginName = "EventRateLimit"

// Plugin counts events.
type Plugin struct {
	*admission.Handler
	limiters []*limiter
}

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New(section io.Reader) (*Plugin, error) {
	c, err := readConfiguration(section)
	if err != nil {
		return nil, err
	}
	return newPlugin(c, clock.RealClock{}), nil
}

func newPlugin(c *Configuration, now clock.PassiveClock) *Plugin {
	p := &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update)}
	for _, l := range c.Limits {
		size := int(l.CacheSize)
		if l.Type == ServerLimitType {
			size = 1
		}
		p.limiters = append(p.limiters, &limiter{Limit: l, clock: now, buckets: lru.New(size)})
	}
	return p
}

// Validate takes an event from all allowances that it falls under, and refuses it when
// one of them is used up.
func (p *Plugin) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetKind().GroupKind() != corev1.SchemeGroupVersion.WithKind("Event").GroupKind() || a.IsDryRun() {
		return nil
	}
	var errs []error
	for _, l := range p.limiters {
		if err := l.accept(a); err != nil {
			errs = append(errs, err)
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return apierrors.NewTooManyRequestsError(err.Error())
	}
	return nil
}

// limiter keeps one limit.
type limiter struct {
	Limit
	clock   clock.PassiveClock
	mu      sync.Mutex // two requests for the same new key must get the same bucket
	buckets *lru.Cache
}

func (l *limiter) accept(a admission.Attributes) error {
	k := l.key(a)
	if !l.bucket(k).TryAccept() {
		return fmt.Errorf("limit reached on type %v for key %v", l.Type, k)
	}
	return nil
}

func (l *limiter) bucket(key string) flowcontrol.PassiveRateLimiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.buckets.Get(key); ok {
		return b.(flowcontrol.PassiveRateLimiter)
	}
	b := flowcontrol.NewTokenBucketPassiveRateLimiterWithClock(float32(l.QPS), int(l.Burst), l.clock)
	l.buckets.Add(key, b)
	return b
}

// key is the same for events that share an allowance.
func (l *limiter) key(a admission.Attributes) string {
	switch l.Type {
	case NamespaceLimitType:
		return a.GetNamespace()
	case UserLimitType:
		if u := a.GetUserInfo(); u != nil {
			return u.GetName()
		}
	case SourceAndObjectLimitType:
		e, ok := a.GetObject().(*corev1.Event)
		if !ok {
			return ""
		}
		o := e.InvolvedObject
		return strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion}, "")
	}
	return ""
}
