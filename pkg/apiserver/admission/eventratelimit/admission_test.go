package eventratelimit

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/leme-k8s/leme/pkg/apiserver/internal/admissiontest"
)

func TestConfiguration(t *testing.T) {
	const head = "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\n"
	for name, c := range map[string]struct{ text, err string }{
		"all types":       {text: head + "limits: [{type: Server, qps: 1, burst: 2}, {type: Namespace, qps: 1, burst: 2, cacheSize: 3}, {type: User, qps: 1, burst: 2}, {type: SourceAndObject, qps: 1, burst: 2}]"},
		"no limit":        {text: head, err: "limits: Invalid value"},
		"no type":         {text: head + "limits: [{qps: 1, burst: 2}]", err: "limits[0].type: Unsupported value"},
		"no burst":        {text: head + "limits: [{type: Server, qps: 1}]", err: "limits[0].burst: Invalid value"},
		"no qps":          {text: head + "limits: [{type: Server, burst: 1}]", err: "limits[0].qps: Invalid value"},
		"a negative size": {text: head + "limits: [{type: User, qps: 1, burst: 2, cacheSize: -1}]", err: "limits[0].cacheSize: Invalid value"},
		"another kind":    {text: "{apiVersion: v1, kind: Pod}", err: "expected kind Configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(strings.NewReader(c.text))
			admissiontest.Check(t, err, c.err)
		})
	}
	_, err := New(nil)
	admissiontest.Check(t, err, "missing configuration")
}

// Each step is a request, in order; "wait" lets a second pass. A request that ends in "!"
// is refused.
func TestLimits(t *testing.T) {
	event := func(namespace, component string) *corev1.Event {
		return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "e"}, Source: corev1.EventSource{Component: component}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "p"}}
	}
	for name, c := range map[string]struct {
		limits []Limit
		steps  string // namespace/user/component each
	}{
		"server":                {limits: []Limit{{Type: ServerLimitType, QPS: 1, Burst: 2}}, steps: "a// b// c//! wait a// a//!"},
		"namespaces":            {limits: []Limit{{Type: NamespaceLimitType, QPS: 1, Burst: 2, CacheSize: 10}}, steps: "a// a// b// a//! b// b//! wait a//"},
		"users":                 {limits: []Limit{{Type: UserLimitType, QPS: 1, Burst: 1, CacheSize: 10}}, steps: "a/u/ a/v/ b/u/!"},
		"sources":               {limits: []Limit{{Type: SourceAndObjectLimitType, QPS: 1, Burst: 1, CacheSize: 10}}, steps: "a//x a//y a//x! b//y!"},
		"a bucket is forgotten": {limits: []Limit{{Type: NamespaceLimitType, QPS: 1, Burst: 1, CacheSize: 2}}, steps: "a// b// a//! c// b// a//"},
		"each counts":           {limits: []Limit{{Type: ServerLimitType, QPS: 1, Burst: 3}, {Type: UserLimitType, QPS: 1, Burst: 1, CacheSize: 2}}, steps: "a/u/ a/u/! a/v/ a/w/!"},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(time.Unix(0, 0))
			p := newPlugin(&Configuration{Limits: c.limits}, clock)
			for i, step := range strings.Fields(c.steps) {
				if step == "wait" {
					clock.SetTime(clock.Now().Add(time.Second))
					continue
				}
				key, refused := strings.CutSuffix(step, "!")
				f := strings.Split(key, "/")
				r := admissiontest.Request{Resource: "/events", Kind: "Event", Object: event(f[0], f[2]), User: f[1]}
				other := r
				other.Kind = "Pod"
				tried := r
				tried.DryRun = true
				for range 3 {
					admissiontest.Check(t, admissiontest.Run(t, p, other.Attributes(t)), "")
					admissiontest.Check(t, admissiontest.Run(t, p, tried.Attributes(t)), "")
				}
				if err := admissiontest.Run(t, p, r.Attributes(t)); apierrors.IsTooManyRequests(err) != refused {
					t.Errorf("step %d, %s: %v", i, step, err)
				}
			}
		})
	}
}
