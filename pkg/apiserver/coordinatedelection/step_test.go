package coordinatedelection

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *metav1.MicroTime { return ptr.To(metav1.NewMicroTime(now.Add(-d))) }

// candidate emulates a version of a binary 1.37.0, and was heard of a moment ago.
func candidate(name, emulation string, changes ...func(*coordinationv1beta1.LeaseCandidateSpec)) *coordinationv1beta1.LeaseCandidate {
	c := &coordinationv1beta1.LeaseCandidate{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name}}
	c.Spec = coordinationv1beta1.LeaseCandidateSpec{
		LeaseName: "l", BinaryVersion: "1.37.0", EmulationVersion: emulation, Strategy: coordinationv1.OldestEmulationVersion, RenewTime: ago(time.Second),
	}
	for _, change := range changes {
		change(&c.Spec)
	}
	return c
}

func renewed(d time.Duration) func(*coordinationv1beta1.LeaseCandidateSpec) {
	return func(s *coordinationv1beta1.LeaseCandidateSpec) { s.RenewTime = ago(d) }
}

func asked(d time.Duration) func(*coordinationv1beta1.LeaseCandidateSpec) {
	return func(s *coordinationv1beta1.LeaseCandidateSpec) { s.PingTime = ago(d) }
}

func strategy(name string) func(*coordinationv1beta1.LeaseCandidateSpec) {
	return func(s *coordinationv1beta1.LeaseCandidateSpec) {
		s.Strategy = coordinationv1.CoordinatedLeaseStrategy(name)
	}
}

func binary(version string) func(*coordinationv1beta1.LeaseCandidateSpec) {
	return func(s *coordinationv1beta1.LeaseCandidateSpec) { s.BinaryVersion = version }
}

// lease is held since it was last renewed.
func lease(holder string, since time.Duration) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "l", ResourceVersion: "1"}}
	l.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: &holder, LeaseDurationSeconds: ptr.To[int32](15), RenewTime: ago(since), AcquireTime: ago(since),
		Strategy: ptr.To(coordinationv1.OldestEmulationVersion),
	}
	return l
}

func TestNext(t *testing.T) {
	type candidates = []*coordinationv1beta1.LeaseCandidate
	for name, tc := range map[string]struct {
		lease      *coordinationv1.Lease
		candidates candidates
		asks       string // whom
		writes     bool
		holder     string
		preferred  string
		fails      string
	}{
		"nobody stands":              {lease: lease("gone", time.Minute)},
		"the first":                  {candidates: candidates{candidate("a", "1.37.0")}, writes: true, holder: "a"},
		"the one of the oldest":      {candidates: candidates{candidate("a", "1.37.0"), candidate("b", "1.36.0")}, writes: true, holder: "b"},
		"the one of the oldest file": {candidates: candidates{candidate("a", "1.36.0"), candidate("b", "1.36.0", binary("1.36.9"))}, writes: true, holder: "b"},
		"whose version is none":      {candidates: candidates{candidate("a", "old"), candidate("b", "1.37.0")}, writes: true, holder: "b"},
		"the best leads":             {lease: lease("b", 0), candidates: candidates{candidate("a", "1.37.0"), candidate("b", "1.36.0")}},
		"a better one":               {lease: lease("a", 0), candidates: candidates{candidate("a", "1.37.0"), candidate("b", "1.36.0")}, writes: true, holder: "a", preferred: "b"},
		"the leader is silent":       {lease: lease("a", time.Minute), candidates: candidates{candidate("b", "1.37.0")}, writes: true, holder: "b"},
		"the leader left":            {lease: lease("", 0), candidates: candidates{candidate("b", "1.37.0")}, writes: true, holder: "b"},

		"who was not heard is asked":    {candidates: candidates{candidate("a", "1.37.0", renewed(time.Minute)), candidate("b", "1.37.0")}, asks: "a"},
		"who was asked may answer":      {candidates: candidates{candidate("a", "1.36.0", renewed(time.Minute), asked(time.Second)), candidate("b", "1.37.0")}},
		"who did not answer is left":    {candidates: candidates{candidate("a", "1.36.0", renewed(time.Minute), asked(10*time.Second)), candidate("b", "1.37.0")}, writes: true, holder: "b"},
		"who answered stands":           {candidates: candidates{candidate("a", "1.36.0", renewed(time.Second), asked(2*time.Second)), candidate("b", "1.37.0")}, writes: true, holder: "a"},
		"who once answered is asked":    {candidates: candidates{candidate("a", "1.36.0", renewed(time.Minute), asked(2*time.Minute)), candidate("b", "1.37.0")}, asks: "a"},
		"nobody answers":                {candidates: candidates{candidate("a", "1.37.0", renewed(time.Minute), asked(10*time.Second))}, fails: "none of 1 candidates answers"},
		"who is silent for long is too": {lease: lease("b", 0), candidates: candidates{candidate("a", "1.37.0", renewed(20*time.Minute)), candidate("b", "1.36.0")}, asks: "a"},

		"another strategy":            {candidates: candidates{candidate("a", "1.37.0", strategy("example.com/best"))}, writes: true},
		"another strategy, and holds": {lease: lease("a", 0), candidates: candidates{candidate("a", "1.37.0", strategy("example.com/best"))}},
		"the strategy of the newest":  {candidates: candidates{candidate("a", "1.36.0", strategy("example.com/best")), candidate("b", "1.37.0", binary("1.38.0"))}, writes: true, holder: "a"},
		"strategies that differ":      {candidates: candidates{candidate("a", "1.37.0", strategy("example.com/best")), candidate("b", "1.37.0")}, fails: `candidates "a" and "b"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := next(tc.lease, tc.candidates, now)
			if (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
				t.Fatalf("error %v, want %q", err, tc.fails)
			}
			var asks []string
			for _, c := range s.ask {
				asks = append(asks, c.Name)
			}
			if got := strings.Join(asks, " "); got != tc.asks {
				t.Errorf("asks %q, want %q", got, tc.asks)
			}
			if (s.write != nil) != tc.writes {
				t.Fatalf("writes %v", s.write)
			}
			if s.write == nil {
				return
			}
			spec := s.write.Spec
			if got := ptr.Deref(spec.HolderIdentity, ""); got != tc.holder {
				t.Errorf("holder %q, want %q", got, tc.holder)
			}
			if got := ptr.Deref(spec.PreferredHolder, ""); got != tc.preferred {
				t.Errorf("preferred holder %q, want %q", got, tc.preferred)
			}
			if tc.preferred == "" && (spec.AcquireTime != nil || *spec.LeaseDurationSeconds != term || !spec.RenewTime.Time.Equal(now)) {
				t.Errorf("the lease does not begin now: %v", spec)
			}
			if s.write.Namespace != "kube-system" || s.write.Name != "l" || spec.Strategy == nil {
				t.Errorf("the lease is %v", s.write)
			}
		})
	}
}
