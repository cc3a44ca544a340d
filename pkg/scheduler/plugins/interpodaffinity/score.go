package interpodaffinity

import (
	"context"
	"math"

	v1 "k8s.io/api/core/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/topology"
)

// preferred is what PreScore finds out: what a domain is worth, term by term.
type preferred []worth

// worth is the weight of each pod of a counter, or of a term of pods on nodes.
type worth struct {
	key    string
	weight int64
	of     func(domain string) int
}

// Clone returns the terms themselves, which do not change.
func (p preferred) Clone() fwk.StateData { return p }

// PreScore collects what the pod prefers, and what pods on nodes prefer about it.
func (p *Plugin) PreScore(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) *fwk.Status {
	info, err := cache.NewPodInfo(pod)
	if err != nil {
		return fwk.AsStatus(err)
	}
	x, err := p.index()
	if err != nil {
		return fwk.AsStatus(err)
	}
	var terms preferred
	add := func(list []fwk.WeightedAffinityTerm, sign int64) error {
		for i := range list {
			g, err := p.group(&list[i].AffinityTerm)
			if err != nil {
				return err
			}
			c := count(x, list[i].TopologyKey, g)
			if c.counter.Total() > 0 {
				terms = append(terms, worth{c.key, sign * int64(list[i].Weight), c.counter.Of})
			}
		}
		return nil
	}
	own := len(info.GetPreferredAffinityTerms())+len(info.GetPreferredAntiAffinityTerms()) > 0
	if !own && p.ignorePreferred {
		return fwk.NewStatus(fwk.Skip)
	}
	if err := add(info.GetPreferredAffinityTerms(), 1); err != nil {
		return fwk.AsStatus(err)
	}
	if err := add(info.GetPreferredAntiAffinityTerms(), -1); err != nil {
		return fwk.AsStatus(err)
	}
	x.Speaking(pod, p.labelsOf(pod.Namespace), func(t *topology.Term) {
		weight := map[topology.Kind]int64{
			topology.RequiredAffinity: p.hardWeight, topology.PreferredAffinity: 1, topology.PreferredAntiAffinity: -1,
		}[t.Kind]
		if weight != 0 {
			terms = append(terms, worth{t.TopologyKey, weight, t.Of})
		}
	})
	if len(terms) == 0 {
		return fwk.NewStatus(fwk.Skip)
	}
	state.Write(scoreKey, terms)
	return nil
}

// Score adds up what the node's domains are worth.
func (p *Plugin) Score(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	s, err := state.Read(scoreKey)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	var score int64
	for _, w := range s.(preferred) {
		if domain, ok := node.Node().Labels[w.key]; ok {
			score += w.weight * int64(w.of(domain))
		}
	}
	return score, nil
}

// ScoreExtensions returns the plugin, which normalizes.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore spreads the scores, which may be negative, over the range. Where they
// are all equal, they are 0.
func (p *Plugin) NormalizeScore(_ context.Context, _ fwk.CycleState, _ *v1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	lowest, highest := int64(math.MaxInt64), int64(math.MinInt64)
	for _, s := range scores {
		lowest, highest = min(lowest, s.Score), max(highest, s.Score)
	}
	for i := range scores {
		if highest == lowest {
			scores[i].Score = 0
			continue
		}
		scores[i].Score = int64(float64(fwk.MaxNodeScore) * (float64(scores[i].Score-lowest) / float64(highest-lowest)))
	}
	return nil
}
