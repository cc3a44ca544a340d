package coordinatedelection

import (
	"cmp"
	"fmt"
	"time"

	"github.com/blang/semver/v4"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	// electionTime is how long candidates have to answer.
	electionTime = 5 * time.Second
	// candidacy is how long who does not renew it stays a candidate.
	candidacy = 30 * time.Minute
	// term is how long a leader may be silent at first. It says itself how long later.
	term int32 = 5
)

// step is what an election needs next.
type step struct {
	// ask are the candidates to ask whether they are still there.
	ask []*coordinationv1beta1.LeaseCandidate
	// write is the lease as it should be; nil: as it is.
	write *coordinationv1.Lease
}

// next decides how the election for a lease goes on, which is nil if there is none yet. Candidates are
// those that stand for it, and whose candidacy is not over.
func next(lease *coordinationv1.Lease, candidates []*coordinationv1beta1.LeaseCandidate, now time.Time) (step, error) {
	if needed, err := needed(lease, candidates, now); !needed || err != nil {
		return step{}, err
	}
	var s step
	var present []*coordinationv1beta1.LeaseCandidate
	waiting := false
	for _, c := range candidates {
		asked, renewed := c.Spec.PingTime, c.Spec.RenewTime
		recent := asked != nil && asked.Add(electionTime).After(now)
		answered := asked == nil || !renewed.Before(asked)
		switch {
		case recent && !answered:
			waiting = true
		case renewed.Add(electionTime).After(now):
			present = append(present, c)
		case answered && !recent: // who was asked before and did not answer is not asked again
			s.ask = append(s.ask, c)
		}
	}
	if waiting || len(s.ask) > 0 {
		return s, nil
	}
	if len(present) == 0 {
		return step{}, fmt.Errorf("none of %d candidates answers", len(candidates))
	}
	strategy, err := strategyOf(present)
	if err != nil {
		return step{}, err
	}
	s.write = elected(lease, strategy, present, now)
	return s, nil
}

// needed tells whether there is no leader, a better one, or a candidate of which was not heard for long.
func needed(lease *coordinationv1.Lease, candidates []*coordinationv1beta1.LeaseCandidate, now time.Time) (bool, error) {
	if len(candidates) == 0 {
		return false, nil
	}
	if lease == nil || leaseExpired(lease, now) || ptr.Deref(lease.Spec.HolderIdentity, "") == "" {
		return true, nil
	}
	for _, c := range candidates {
		if c.Spec.RenewTime.Add(candidacy / 2).Before(now) {
			return true, nil
		}
	}
	strategy, err := strategyOf(candidates)
	if err != nil || strategy != coordinationv1.OldestEmulationVersion {
		return false, err // another controller's strategy
	}
	best := oldest(candidates)
	return best != nil && best.Name != *lease.Spec.HolderIdentity, nil
}

// elected is the lease after an election. The leader is told when another one is preferred, and leaves the lead itself.
func elected(lease *coordinationv1.Lease, strategy coordinationv1.CoordinatedLeaseStrategy, present []*coordinationv1beta1.LeaseCandidate, now time.Time) *coordinationv1.Lease {
	out := &coordinationv1.Lease{}
	if lease == nil {
		lease = &coordinationv1.Lease{}
		out.Namespace, out.Name = present[0].Namespace, present[0].Spec.LeaseName
		out.Spec.LeaseDurationSeconds, out.Spec.RenewTime = ptr.To(term), ptr.To(metav1.NewMicroTime(now))
	} else {
		lease.DeepCopyInto(out)
	}
	out.Spec.Strategy = &strategy
	var best *coordinationv1beta1.LeaseCandidate
	if strategy == coordinationv1.OldestEmulationVersion {
		best = oldest(present)
	}
	switch holder := ptr.Deref(lease.Spec.HolderIdentity, ""); {
	case best == nil || holder == best.Name: // it is another controller's affair, or it is as it should be
	case holder == "" || leaseExpired(lease, now):
		out.Spec.HolderIdentity = &best.Name
		out.Spec.LeaseDurationSeconds, out.Spec.RenewTime = ptr.To(term), ptr.To(metav1.NewMicroTime(now))
		out.Spec.AcquireTime, out.Spec.PreferredHolder = nil, nil
	default:
		out.Spec.PreferredHolder = &best.Name
	}
	if equality.Semantic.DeepEqual(out, lease) {
		return nil
	}
	return out
}

// strategyOf is the strategy of the candidates with the newest binary, who must agree.
func strategyOf(candidates []*coordinationv1beta1.LeaseCandidate) (coordinationv1.CoordinatedLeaseStrategy, error) {
	newest := candidates[0]
	var other *coordinationv1beta1.LeaseCandidate // that disagrees
	for _, c := range candidates[1:] {
		switch d := version(c.Spec.BinaryVersion).Compare(version(newest.Spec.BinaryVersion)); {
		case d > 0:
			newest, other = c, nil
		case d == 0 && c.Spec.Strategy != newest.Spec.Strategy:
			other = c
		}
	}
	if other != nil {
		return "", fmt.Errorf("candidates %q and %q have the same binary version %s, but strategies %q and %q",
			newest.Name, other.Name, newest.Spec.BinaryVersion, newest.Spec.Strategy, other.Spec.Strategy)
	}
	return newest.Spec.Strategy, nil
}

// oldest is the candidate that emulates the oldest version. Of several, it is the one with the oldest binary, and of
// these the one who came first. It is nil if none says which versions it has.
func oldest(candidates []*coordinationv1beta1.LeaseCandidate) *coordinationv1beta1.LeaseCandidate {
	var best *coordinationv1beta1.LeaseCandidate
	for _, c := range candidates {
		_, emulates := semver.ParseTolerant(c.Spec.EmulationVersion)
		_, is := semver.ParseTolerant(c.Spec.BinaryVersion)
		if emulates == nil && is == nil && (best == nil || compare(c, best) < 0) {
			best = c
		}
	}
	return best
}

func compare(a, b *coordinationv1beta1.LeaseCandidate) int {
	return cmp.Or(
		version(a.Spec.EmulationVersion).Compare(version(b.Spec.EmulationVersion)),
		version(a.Spec.BinaryVersion).Compare(version(b.Spec.BinaryVersion)),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

// version is 0.0.0 for what is no version.
func version(text string) semver.Version {
	v, err := semver.ParseTolerant(text)
	if err != nil {
		return semver.Version{}
	}
	return v
}

func leaseExpired(l *coordinationv1.Lease, now time.Time) bool {
	s := l.Spec
	return s.RenewTime == nil || s.LeaseDurationSeconds == nil || s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds)*time.Second).Before(now)
}

func candidacyOver(c *coordinationv1beta1.LeaseCandidate, now time.Time) bool {
	return c.Spec.RenewTime == nil || c.Spec.RenewTime.Add(candidacy).Before(now)
}
