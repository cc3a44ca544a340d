package scheduler

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// A cycle is the search for a node for one pod. It reads a snapshot and changes
// nothing: what it answers depends on the snapshot, the pod, the position at which it
// begins to look, and the seed, and on nothing else.
type cycle struct {
	fw       *framework.Framework
	snapshot *cache.Snapshot
	// percentage of the nodes to score; 0 lets the size of the cluster decide.
	percentage int32
	// start is where in the list of nodes the search begins, so that nodes take turns
	// in large clusters, where not all of them are looked at.
	start int
	// memo is what pods that were alike found out before; nil for none.
	memo *framework.Memo
	// only are the positions of the nodes to which the search is confined; nil for all.
	only []int
}

// size is the number of nodes that the search is about.
func (c *cycle) size() int {
	if c.only != nil {
		return len(c.only)
	}
	return c.snapshot.Len()
}

// fitting are nodes that fit, each with what is known of it, nil for nothing.
type fitting struct {
	nodes []fwk.NodeInfo
	found []*framework.Finding
}

// placement is the outcome of a cycle that found a node.
type placement struct {
	node      string
	evaluated int // nodes looked at
	feasible  int // nodes that fit
	diagnosis *framework.Diagnosis
	scores    []fwk.NodePluginScores // good until the next cycle
	next      int                    // where the next cycle begins
}

// In small clusters all nodes are scored, in large ones 5 % or more.
const (
	minFeasibleNodes           = 100
	minFeasibleNodesPercentage = 5
)

// run finds the best node, or returns a *framework.FitError if none fits.
func (c *cycle) run(ctx context.Context, state fwk.CycleState, pod *v1.Pod, seed uint64) (placement, error) {
	if c.size() == 0 {
		return placement{}, &framework.FitError{Pod: pod, Diagnosis: framework.NewDiagnosis()}
	}
	fit, diagnosis, p, err := c.filter(ctx, state, pod)
	if err != nil {
		return p, err
	}
	feasible, found := fit.nodes, fit.found
	p.feasible, p.diagnosis = len(feasible), diagnosis
	switch {
	case len(feasible) == 0:
		return p, &framework.FitError{Pod: pod, NumAllNodes: c.size(), Diagnosis: diagnosis}
	case len(feasible) == 1 || !c.fw.HasScore() && len(c.fw.Extenders()) == 0:
		p.node = feasible[0].Node().Name
		return p, nil
	}
	if s := c.fw.RunPreScorePlugins(ctx, state, pod, feasible); !s.IsSuccess() {
		return p, s.AsError()
	}
	memo := c.memo
	if memo == nil {
		memo = framework.NewMemo()
	}
	scores, s := c.fw.RunScorePluginsShared(ctx, state, pod, feasible, found, memo)
	if !s.IsSuccess() {
		return p, s.AsError()
	}
	if err := c.addExtenderScores(ctx, pod, feasible, scores); err != nil {
		return p, err
	}
	p.node, p.scores = best(scores, seed), scores
	return p, nil
}

// best returns the node with the highest score. Among equals the seed chooses.
func best(scores []fwk.NodePluginScores, seed uint64) string {
	highest, equals := int64(math.MinInt64), uint64(0)
	for i := range scores {
		switch s := scores[i].TotalScore; {
		case s > highest:
			highest, equals = s, 1
		case s == highest:
			equals++
		}
	}
	chosen := seed % equals
	for i := range scores {
		if scores[i].TotalScore != highest {
			continue
		}
		if chosen == 0 {
			return scores[i].Name
		}
		chosen--
	}
	return "" // there are none
}

// seedOf makes a seed that differs for each attempt at each pod, and is the same
// whenever the attempt is replayed.
func seedOf(pod *v1.Pod, attempt int) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%d", pod.UID, attempt)
	return h.Sum64()
}

// filter returns nodes that fit, enough of them and not necessarily all, and says why
// others do not.
func (c *cycle) filter(ctx context.Context, state fwk.CycleState, pod *v1.Pod) (fitting, *framework.Diagnosis, placement, error) {
	d := framework.NewDiagnosis()
	allowed, s, narrowing := c.fw.RunPreFilter(ctx, state, pod)
	if !s.IsSuccess() {
		if !s.IsRejected() {
			return fitting{}, d, placement{}, s.AsError()
		}
		d.Absent = s
		d.PreFilterMsg = s.Message()
		d.Reject(s)
		d.UnschedulablePlugins = d.UnschedulablePlugins.Union(narrowing)
		return fitting{}, d, placement{}, nil
	}
	all, err := c.snapshot.List()
	if err != nil {
		return fitting{}, d, placement{}, err
	}

	defer c.fw.Ran("Filter", time.Now(), nil)
	if node := c.promised(ctx, state, pod, allowed); node != nil {
		fit, err := c.struck(ctx, pod, fitting{nodes: []fwk.NodeInfo{node}}, d)
		if err != nil || len(fit.nodes) > 0 {
			return fit, d, placement{evaluated: 1, next: c.start}, err
		}
	}

	search := search{cycle: c, all: all, allowed: c.only, count: c.size(), start: c.start, want: feasibleNodesToFind(c.percentage, c.size()), filters: c.fw.FiltersOf(ctx, state, pod)}
	search.findings = c.memo.For(search.filters.Signature(), len(all))
	if !allowed.AllNodes() {
		search.allowed = nil
		for i, n := range all {
			if allowed.NodeNames.Has(n.Node().Name) && c.isWithin(n.Node().Name) {
				search.allowed = append(search.allowed, i)
			}
		}
		search.count = len(search.allowed)
		search.want = feasibleNodesToFind(c.percentage, search.count)
		d.Absent = fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", sets.List(narrowing)))
		d.UnschedulablePlugins = d.UnschedulablePlugins.Union(narrowing)
	}
	if narrow := search.narrowed(c.fw.Narrow(state)); narrow != nil {
		d := framework.NewDiagnosis()
		if fit, p, err := narrow.run(ctx, state, pod, d); err != nil || len(fit.nodes) > 0 {
			return fit, d, p, err
		}
	}
	fit, p, err := search.run(ctx, state, pod, d)
	return fit, d, p, err
}

// promised returns the node that the pod's status names, if the pod fits there, so that
// no other is looked at: others have made room for it there, it was on its way there when
// a scheduler ended, or somebody who made the node thinks that it belongs there.
func (c *cycle) promised(ctx context.Context, state fwk.CycleState, pod *v1.Pod, allowed *fwk.PreFilterResult) fwk.NodeInfo {
	name := pod.Status.NominatedNodeName
	if name == "" || !allowed.AllNodes() && !allowed.NodeNames.Has(name) || !c.isWithin(name) {
		return nil
	}
	node, err := c.snapshot.Get(name)
	if err != nil || !c.fw.RunFilterPluginsWithNominatedPods(ctx, state, pod, node).IsSuccess() {
		return nil
	}
	return node
}

// isWithin reports whether the search may find a node.
func (c *cycle) isWithin(node string) bool {
	if c.only == nil {
		return true
	}
	_, ok := slices.BinarySearch(c.only, c.snapshot.Position(node))
	return ok
}

// A search goes through nodes of the snapshot.
type search struct {
	*cycle
	all      []fwk.NodeInfo
	allowed  []int // positions in all, in order; nil for every one
	count    int   // of the nodes that are allowed
	start    int   // among them
	want     int   // nodes that fit are enough
	filters  *framework.Filters
	findings *framework.Findings

	// within are domains that know of nodes that need not be looked at.
	within []*within
}

// within is what a plugin says of domains, asked about each once.
type within struct {
	*framework.Domains
	nodes    *cache.Domains
	asked    []bool // by domain
	refusals []*fwk.Status
}

// narrowed returns the same search without the nodes in domains that plugins refuse, which
// comes to the same if any node fits; nil if there are none.
func (s *search) narrowed(to []*framework.Domains) *search {
	if len(to) == 0 || s.allowed != nil {
		return nil
	}
	narrow := *s
	for _, d := range to {
		nodes := s.snapshot.Domains(d.Key)
		narrow.within = append(narrow.within, &within{d, nodes, make([]bool, len(nodes.Values)), make([]*fwk.Status, len(nodes.Values))})
	}
	narrow.filters = s.filters.Within(to)
	return &narrow
}

// passed returns why the node at a position in the snapshot is passed over; nil if it is
// looked at.
func (s *search) passed(at int) *fwk.Status {
	for _, w := range s.within {
		if refusal := w.refusal(at); refusal != nil {
			return refusal
		}
	}
	return nil
}

func (w *within) refusal(at int) *fwk.Status {
	domain := w.nodes.Of[at]
	if domain == cache.NoDomain {
		return w.Unlabelled
	}
	if !w.asked[domain] {
		w.asked[domain], w.refusals[domain] = true, w.Refusal(w.nodes.Values[domain])
	}
	return w.refusals[domain]
}

// say notes, for those who ask, why some of the nodes that were passed over were.
func (s *search) say(p placement, d *framework.Diagnosis) {
	for i, said := 0, 0; i < p.evaluated && said < explain.MaxRefusals; i++ {
		at := s.at(i)
		if refusal := s.passed(at); refusal != nil {
			d.Refuse(s.all[at].Node().Name, refusal)
			said++
		}
	}
}

// at returns the position in the snapshot of the i-th node to look at.
func (s *search) at(i int) int {
	if i = (s.start + i) % s.count; s.allowed != nil {
		return s.allowed[i]
	}
	return i
}

// run filters nodes in runs, each run in parallel, until enough fit. The result is
// the same however the runs are spread over processors.
func (s *search) run(ctx context.Context, state fwk.CycleState, pod *v1.Pod, d *framework.Diagnosis) (fitting, placement, error) {
	var (
		p       placement
		fit     fitting
		filters = s.filters
		next    int                                                                  // to look at
		list    = s.memo.Lists(min(s.want, s.count), min(max(s.want, 256), s.count)) // no run is longer than the first
	)
	fit.nodes, fit.found = list.FitNodes, list.FitFound
	for next < s.count && len(fit.nodes) < s.want {
		run := 0
		for most := min(max(s.want-len(fit.nodes), 256), s.count); next < s.count && run < most; next++ {
			at := s.at(next)
			if s.passed(at) != nil {
				continue
			}
			list.Nodes[run], list.Found[run], list.At[run] = s.all[at], s.findings.About(at, s.all[at]), next
			run++
		}
		nodes, found, statuses := list.Nodes[:run], list.Found[:run], list.Statuses[:run]
		filter := func(i int) { statuses[i] = filters.Run(ctx, state, pod, nodes[i], found[i]) }
		if filters.Known(found) {
			for i := range run {
				filter(i)
			}
		} else {
			s.fw.Parallelizer().Until(ctx, run, filter, "Filter")
		}
		if err := ctx.Err(); err != nil {
			return fit, p, err
		}
		if p.evaluated > 0 && len(fit.nodes) == 0 {
			d.Expect(s.count - p.evaluated) // none may fit
		}
		for i := 0; i < run && len(fit.nodes) < s.want; i++ {
			p.evaluated = list.At[i] + 1
			switch said := statuses[i]; {
			case said.IsSuccess():
				fit.nodes, fit.found = append(fit.nodes, nodes[i]), append(fit.found, found[i])
			case said.IsRejected():
				d.RefuseNode(found[i].NameOf(nodes[i]), nodes[i], said)
			default:
				return fit, p, said.AsError()
			}
		}
	}
	if len(fit.nodes) < s.want {
		p.evaluated = s.count
	}
	if s.within != nil {
		s.say(p, d)
	}
	if s.count > 0 {
		p.next = (s.start + p.evaluated) % s.count
	}
	fit, err := s.struck(ctx, pod, fit, d)
	return fit, p, err
}

// feasibleNodesToFind is how many nodes that fit are enough, of n.
func feasibleNodesToFind(percentage int32, n int) int {
	if n < minFeasibleNodes {
		return n
	}
	if percentage == 0 {
		percentage = max(int32(50-n/125), minFeasibleNodesPercentage)
	}
	return max(n*int(percentage)/100, minFeasibleNodes)
}
