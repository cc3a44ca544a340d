package authorization

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// TestPatient: while the server starts, what will be allowed is not denied, and what
// will not be is denied when the server has settled.
func TestPatient(t *testing.T) {
	for _, c := range []struct {
		name            string
		allowed, settle time.Duration // after the request
		want            authorizer.Decision
		took            time.Duration
	}{
		{"at once", 0, time.Hour, authorizer.DecisionAllow, 0},
		{"allowed while starting", time.Second, time.Hour, authorizer.DecisionAllow, time.Second},
		{"allowed by what settles", time.Second, time.Second, authorizer.DecisionAllow, time.Second},
		{"never allowed", time.Hour, time.Second, authorizer.DecisionNoOpinion, time.Second},
		{"settled before", time.Hour, 0, authorizer.DecisionNoOpinion, 0},
		{"the client does not wait", time.Hour, time.Hour, authorizer.DecisionNoOpinion, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				settled, settle := newSettled()
				if c.settle == 0 {
					settle()
				} else {
					stop := time.AfterFunc(c.settle, settle)
					defer stop.Stop()
				}
				a := patient(authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
					if time.Since(began) >= c.allowed {
						return authorizer.DecisionAllow, "", nil
					}
					return authorizer.DecisionNoOpinion, "", nil
				}), settled)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				got, _, err := a.Authorize(ctx, authorizer.AttributesRecord{})
				if got != c.want || err != nil {
					t.Errorf("decision %v (%v), want %v", got, err, c.want)
				}
				if took := time.Since(began); took < c.took || took > c.took+patience {
					t.Errorf("took %s, want %s", took, c.took)
				}
			})
		})
	}
}
