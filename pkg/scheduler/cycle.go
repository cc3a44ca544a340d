package scheduler

import (
	"context"
	"fmt"
	"hash/fnv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
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
	memo     *framework.Memo
	findings *framework.Findings
}

// placement is the outcome of a cycle that found a node.
type placement struct {
	node      string
	evaluated int // nodes looked at
	feasible  int // nodes that fit
	diagnosis *framework.Diagnosis
	scores    []fwk.NodePluginScores
	next      int // where the next cycle begins
}

// In small clusters all nodes are scored, in large ones 5 % or more.
const (
	minFeasibleNodes           = 100
	minFeasibleNodesPercentage = 5
)

// run finds the best node, or returns a *framework.FitError if none fits.
func (c *cycle) run(ctx context.Context, state fwk.CycleState, pod *v1.Pod, seed uint64) (placement, error) {
	if c.snapshot.Len() == 0 {
		return placement{}, &framework.FitError{Pod: pod, Diagnosis: framework.NewDiagnosis()}
	}
	feasible, diagnosis, p, err := c.filter(ctx, state, pod)
	if err != nil {
		return p, err
	}
	if feasible, err = c.askExtenders(ctx, pod, feasible, diagnosis); err != nil {
		return p, err
	}
	p.feasible, p.diagnosis = len(feasible), diagnosis
	switch {
	case len(feasible) == 0:
		return p, &framework.FitError{Pod: pod, NumAllNodes: c.snapshot.Len(), Diagnosis: diagnosis}
	case len(feasible) == 1 || !c.fw.HasScore() && len(c.fw.Extenders()) == 0:
		p.node = feasible[0].Node().Name
		return p, nil
	}
	if s := c.fw.RunPreScorePlugins(ctx, state, pod, feasible); !s.IsSuccess() {
		return p, s.AsError()
	}
	scores, s := c.fw.RunScorePluginsShared(ctx, state, pod, feasible, c.findings)
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
	top := []string{}
	highest := int64(-1)
	for i := range scores {
		switch s := scores[i].TotalScore; {
		case s > highest:
			highest = s
			top = append(top[:0], scores[i].Name)
		case s == highest:
			top = append(top, scores[i].Name)
		}
	}
	return top[seed%uint64(len(top))]
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
func (c *cycle) filter(ctx context.Context, state fwk.CycleState, pod *v1.Pod) ([]fwk.NodeInfo, *framework.Diagnosis, placement, error) {
	d := framework.NewDiagnosis()
	allowed, s, narrowing := c.fw.RunPreFilter(ctx, state, pod)
	if !s.IsSuccess() {
		if !s.IsRejected() {
			return nil, d, placement{}, s.AsError()
		}
		d.Absent = s
		d.PreFilterMsg = s.Message()
		d.Reject(s)
		d.UnschedulablePlugins = d.UnschedulablePlugins.Union(narrowing)
		return nil, d, placement{}, nil
	}
	all, err := c.snapshot.List()
	if err != nil {
		return nil, d, placement{}, err
	}
	if c.memo != nil {
		c.findings = c.memo.For(c.fw.SharedSignature(ctx, pod), len(all))
	}

	// A pod that others have made room for is tried there first.
	if name := pod.Status.NominatedNodeName; name != "" {
		if node, err := c.snapshot.Get(name); err == nil && (allowed.AllNodes() || allowed.NodeNames.Has(name)) {
			if c.fw.RunFilterPluginsWithNominatedPods(ctx, state, pod, node).IsSuccess() {
				return []fwk.NodeInfo{node}, d, placement{evaluated: 1, next: c.start}, nil
			}
		}
	}

	nodes := all
	if !allowed.AllNodes() {
		nodes = nil
		for _, n := range all {
			if allowed.NodeNames.Has(n.Node().Name) {
				nodes = append(nodes, n)
			}
		}
		d.Absent = fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", sets.List(narrowing)))
		d.UnschedulablePlugins = d.UnschedulablePlugins.Union(narrowing)
	}
	return c.search(ctx, state, pod, nodes, d)
}

// search filters nodes in runs, each run in parallel, until enough fit. The result is
// the same however the runs are spread over processors.
func (c *cycle) search(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo, d *framework.Diagnosis) ([]fwk.NodeInfo, *framework.Diagnosis, placement, error) {
	var (
		p        placement
		want     = feasibleNodesToFind(c.percentage, len(nodes))
		feasible = make([]fwk.NodeInfo, 0, min(want, len(nodes)))
		statuses = make([]*fwk.Status, len(nodes))
		rejected int
		filters  = c.fw.FiltersOf(state)
		at       = func(i int) fwk.NodeInfo { return nodes[(c.start+i)%len(nodes)] }
	)
	if len(nodes) == 0 {
		return nil, d, p, nil
	}
	for p.evaluated < len(nodes) && len(feasible) < want {
		first := p.evaluated
		run := min(max(want-len(feasible), 256), len(nodes)-first)
		found := make([]*framework.Finding, run)
		for i := range found {
			found[i] = c.findings.About(at(first + i))
		}
		c.fw.Parallelizer().Until(ctx, run, func(i int) {
			statuses[first+i] = filters.Run(ctx, state, pod, at(first+i), found[i])
		}, "Filter")
		if err := ctx.Err(); err != nil {
			return nil, d, p, err
		}
		for i := first; i < first+run && len(feasible) < want; i++ {
			p.evaluated++
			switch s := statuses[i]; {
			case s.IsSuccess():
				feasible = append(feasible, at(i))
			case s.IsRejected():
				rejected++
			default:
				return nil, d, p, s.AsError()
			}
		}
	}
	if rejected > 0 {
		d.ByNode = make(map[string]*fwk.Status, rejected)
	}
	var last *fwk.Status
	for i, s := range statuses[:p.evaluated] {
		if s.IsSuccess() {
			continue
		}
		d.ByNode[at(i).Node().Name] = s
		if s != last { // plugins use one status for many nodes
			d.Reject(s)
		}
		last = s
	}
	p.next = (c.start + p.evaluated) % len(nodes)
	return feasible, d, p, nil
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
