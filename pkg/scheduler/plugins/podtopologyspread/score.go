package podtopologyspread

import (
	"context"
	"math"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/topology"
)

// soft is a constraint ScheduleAnyway with its counts.
type soft struct {
	constraint
	counter *topology.Counter
	// weight makes up for topologies with many domains, where each has few pods.
	weight float64
}

// softs are the constraints, and the nodes that they leave aside.
type softs struct {
	list    []soft
	ignored sets.Set[string]
}

// Clone returns the constraints themselves, which do not change.
func (s *softs) Clone() fwk.StateData { return s }

// PreScore looks up the counters of the pod's soft constraints.
func (p *Plugin) PreScore(_ context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) *fwk.Status {
	list, err := p.constraints(pod, v1.ScheduleAnyway)
	if err != nil {
		return fwk.AsStatus(err)
	}
	if len(list) == 0 {
		return fwk.NewStatus(fwk.Skip)
	}
	x, err := p.index()
	if err != nil {
		return fwk.AsStatus(err)
	}
	var required []string
	if !p.system || len(pod.Spec.TopologySpreadConstraints) > 0 {
		required = keys(list)
	}
	s := &softs{ignored: sets.New[string]()}
	domains := make([]sets.Set[string], len(list))
	for i := range domains {
		domains[i] = sets.New[string]()
	}
	for _, n := range nodes {
		if !hasAll(n.Node(), required) {
			s.ignored.Insert(n.Node().Name)
			continue
		}
		for i, c := range list {
			domains[i].Insert(n.Node().Labels[c.key])
		}
	}
	for i, c := range list {
		size := len(domains[i])
		counter := x.Count(c.pods(pod.Namespace), c.nodes(pod, required), c.key)
		if c.key == v1.LabelHostname { // each node is a domain, also one that policies leave out
			size = len(nodes) - len(s.ignored)
			counter = x.Count(c.pods(pod.Namespace), topology.Nodes{}, topology.Host)
		}
		s.list = append(s.list, soft{c, counter, math.Log(float64(size + 2))})
	}
	state.Write(scoreKey, s)
	return nil
}

func hasAll(node *v1.Node, keys []string) bool {
	for _, key := range keys {
		if _, ok := node.Labels[key]; !ok {
			return false
		}
	}
	return true
}

// Score adds up how many pods there are in the node's domains.
func (p *Plugin) Score(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) (int64, *fwk.Status) {
	data, err := state.Read(scoreKey)
	if err != nil {
		return 0, fwk.AsStatus(err)
	}
	s := data.(*softs)
	if s.ignored.Has(node.Node().Name) {
		return 0, nil
	}
	var score float64
	for i := range s.list {
		c := &s.list[i]
		domain, ok := node.Node().Labels[c.key]
		if !ok {
			continue
		}
		if c.key == v1.LabelHostname {
			domain = node.Node().Name
		}
		score += float64(c.counter.Of(domain))*c.weight + float64(c.maxSkew-1)
	}
	return int64(math.Round(score)), nil
}

// ScoreExtensions returns the plugin, which normalizes.
func (p *Plugin) ScoreExtensions() fwk.ScoreExtensions { return p }

// NormalizeScore turns numbers of pods into scores: the fewer the better.
func (p *Plugin) NormalizeScore(_ context.Context, state fwk.CycleState, _ *v1.Pod, scores fwk.NodeScoreList) *fwk.Status {
	data, err := state.Read(scoreKey)
	if err != nil {
		return fwk.AsStatus(err)
	}
	s := data.(*softs)
	fewest, most := int64(math.MaxInt64), int64(0)
	for _, n := range scores {
		if !s.ignored.Has(n.Name) {
			fewest, most = min(fewest, n.Score), max(most, n.Score)
		}
	}
	for i := range scores {
		switch {
		case s.ignored.Has(scores[i].Name):
			scores[i].Score = 0
		case most == 0:
			scores[i].Score = fwk.MaxNodeScore
		default:
			scores[i].Score = fwk.MaxNodeScore * (most + fewest - scores[i].Score) / most
		}
	}
	return nil
}
