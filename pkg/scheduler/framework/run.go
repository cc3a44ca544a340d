package framework

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// failed turns a plugin's answer that should not have come into an error that names it.
func failed(point, plugin string, s *fwk.Status) *fwk.Status {
	return fwk.AsStatus(fmt.Errorf("running %s plugin %q: %w", point, plugin, s.AsError())).WithPlugin(plugin)
}

// RunPreEnqueue asks whether a pod may enter the queue.
func (f *Framework) RunPreEnqueue(ctx context.Context, pod *v1.Pod) (status *fwk.Status) {
	defer f.Ran("PreEnqueue", time.Now(), &status)
	for _, p := range f.preEnqueue {
		if s := p.PreEnqueue(ctx, pod); !s.IsSuccess() {
			return s.WithPlugin(p.Name())
		}
	}
	return nil
}

// RunPreFilter lets plugins prepare, and narrow the nodes down. The second result
// names the plugins that did narrow.
func (f *Framework) RunPreFilter(ctx context.Context, state fwk.CycleState, pod *v1.Pod) (_ *fwk.PreFilterResult, status *fwk.Status, _ sets.Set[string]) {
	defer f.Ran("PreFilter", time.Now(), &status)
	nodes, err := f.Snapshot.List()
	if err != nil {
		return nil, fwk.AsStatus(err), nil
	}
	var result *fwk.PreFilterResult
	skip, narrowing := sets.New[string](), sets.New[string]()
	for _, p := range f.preFilter {
		r, s := p.PreFilter(ctx, state, pod, nodes)
		switch {
		case s.IsSkip():
			skip.Insert(p.Name())
			continue
		case s.IsRejected():
			return nil, s.WithPlugin(p.Name()), nil
		case !s.IsSuccess():
			return nil, failed("PreFilter", p.Name(), s), nil
		}
		if r.AllNodes() {
			continue
		}
		narrowing.Insert(p.Name())
		result = result.Merge(r)
		if len(result.NodeNames) == 0 {
			msg := fmt.Sprintf("node(s) didn't satisfy plugin(s) %v simultaneously", sets.List(narrowing))
			if len(narrowing) == 1 {
				msg = fmt.Sprintf("node(s) didn't satisfy plugin %v", sets.List(narrowing)[0])
			}
			return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, msg), narrowing // it takes all of them
		}
	}
	state.SetSkipFilterPlugins(skip)
	return result, nil, narrowing
}

// RunFilterPlugins asks whether pod fits on a node. The first plugin that rejects it decides.
func (f *Framework) RunFilterPlugins(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	return runFilters(ctx, state, pod, node, f.filter, state.GetSkipFilterPlugins())
}

func runFilters(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo, plugins []fwk.FilterPlugin, skip sets.Set[string]) *fwk.Status {
	for _, p := range plugins {
		if skip.Has(p.Name()) {
			continue
		}
		s := p.Filter(ctx, state, pod, node)
		switch {
		case s.IsSuccess():
		case s.Plugin() == p.Name(): // one that the plugin uses again and again
			return s
		case s.IsRejected():
			return s.WithPlugin(p.Name())
		default:
			return fwk.AsStatus(fmt.Errorf("running %q filter plugin: %w", p.Name(), s.AsError())).WithPlugin(p.Name())
		}
	}
	return nil
}

// RunFilterPluginsWithNominatedPods asks whether pod fits on a node that has been
// promised to others as well: it must fit with those of at least its priority there, and
// without them, since they may end up elsewhere.
func (f *Framework) RunFilterPluginsWithNominatedPods(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	if promised := f.promised(state, pod, node.Node().Name); len(promised) > 0 {
		if s := f.filterWithPromised(ctx, state, pod, node, promised); !s.IsSuccess() {
			return s
		}
	}
	return f.RunFilterPlugins(ctx, state, pod, node)
}

// filterWithPromised asks whether pod fits on a node beside those that it is promised to.
func (f *Framework) filterWithPromised(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo, promised []fwk.PodInfo) *fwk.Status {
	withState, withNode := state.Clone(), node.Snapshot()
	for _, p := range promised {
		withNode.AddPodInfo(p)
		if s := f.RunPreFilterExtensionAddPod(ctx, withState, pod, p, withNode); !s.IsSuccess() {
			return s
		}
	}
	return f.RunFilterPlugins(ctx, withState, pod, withNode)
}

// RunPreFilterExtensionAddPod tells plugins that a pod is thought to be on a node.
func (f *Framework) RunPreFilterExtensionAddPod(ctx context.Context, state fwk.CycleState, pod *v1.Pod, add fwk.PodInfo, node fwk.NodeInfo) *fwk.Status {
	return f.extend("AddPod", state, func(e fwk.PreFilterExtensions) *fwk.Status { return e.AddPod(ctx, state, pod, add, node) })
}

// RunPreFilterExtensionRemovePod tells plugins that a pod is thought to be gone from a node.
func (f *Framework) RunPreFilterExtensionRemovePod(ctx context.Context, state fwk.CycleState, pod *v1.Pod, remove fwk.PodInfo, node fwk.NodeInfo) *fwk.Status {
	return f.extend("RemovePod", state, func(e fwk.PreFilterExtensions) *fwk.Status { return e.RemovePod(ctx, state, pod, remove, node) })
}

func (f *Framework) extend(what string, state fwk.CycleState, call func(fwk.PreFilterExtensions) *fwk.Status) *fwk.Status {
	for _, p := range f.preFilter {
		e := p.PreFilterExtensions()
		if e == nil || state.GetSkipFilterPlugins().Has(p.Name()) {
			continue
		}
		if s := call(e); !s.IsSuccess() {
			return failed("PreFilterExtensions."+what, p.Name(), s)
		}
	}
	return nil
}

// RunPostFilter asks what can be done for a pod that fits nowhere: preemption. The
// first plugin that makes the pod schedulable ends the search.
func (f *Framework) RunPostFilter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes fwk.NodeToStatusReader) (_ *fwk.PostFilterResult, status *fwk.Status) {
	defer f.Ran("PostFilter", time.Now(), &status)
	var (
		result  *fwk.PostFilterResult
		reasons []string
		plugin  string
	)
	for _, p := range f.postFilter {
		r, s := p.PostFilter(ctx, state, pod, nodes)
		switch {
		case s.IsSuccess():
			return r, s
		case s.Code() == fwk.UnschedulableAndUnresolvable:
			return r, s.WithPlugin(p.Name())
		case !s.IsRejected():
			return nil, fwk.AsStatus(s.AsError()).WithPlugin(p.Name())
		}
		if r != nil && r.Mode() != fwk.ModeNoop {
			result = r
		}
		reasons = append(reasons, s.Reasons()...)
		if plugin == "" {
			plugin = p.Name()
		}
	}
	return result, fwk.NewStatus(fwk.Unschedulable, reasons...).WithPlugin(plugin)
}

// RunPreScorePlugins lets plugins prepare for scoring the nodes that fit.
func (f *Framework) RunPreScorePlugins(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) (status *fwk.Status) {
	defer f.Ran("PreScore", time.Now(), &status)
	skip := sets.New[string]()
	for _, p := range f.preScore {
		s := p.PreScore(ctx, state, pod, nodes)
		switch {
		case s.IsSkip():
			skip.Insert(p.Name())
		case !s.IsSuccess():
			return failed("PreScore", p.Name(), s)
		}
	}
	state.SetSkipScorePlugins(skip)
	return nil
}

// RunScorePlugins scores each node by each plugin, brings the scores of a plugin to
// 0…100 and adds them up by weight.
func (f *Framework) RunScorePlugins(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo) ([]fwk.NodePluginScores, *fwk.Status) {
	return f.RunScorePluginsShared(ctx, state, pod, nodes, make([]*Finding, len(nodes)), NewMemo())
}

// RunScorePluginsShared is RunScorePlugins, with what is known of each of the nodes: nil
// for nothing. What it returns lies in the memo, and is good until the next call.
func (f *Framework) RunScorePluginsShared(ctx context.Context, state fwk.CycleState, pod *v1.Pod, nodes []fwk.NodeInfo, found []*Finding, memo *Memo) (_ []fwk.NodePluginScores, status *fwk.Status) {
	defer f.Ran("Score", time.Now(), &status)
	var (
		plugins []weighted
		at      []int // in f.score
		shared  = true
	)
	for i, p := range f.score {
		if !state.GetSkipScorePlugins().Has(p.Name()) {
			plugins = append(plugins, p)
			at = append(at, i)
			shared = shared && p.shared
		}
	}
	scores, out := memo.room.scores(len(nodes), len(plugins))
	var first firstStatus
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	score := func(n int) {
		name := found[n].NameOf(nodes[n])
		out[n].Name = name
		for i := range plugins {
			score, s := f.scoreOf(ctx, state, pod, nodes[n], at[i], found[n])
			if !s.IsSuccess() {
				first.set(failed("Score", plugins[i].Name(), s))
				cancel()
				return
			}
			scores[i][n] = fwk.NodeScore{Name: name, Score: score}
		}
	}
	if shared && fewWithout(found, func(f *Finding) bool { return f.scores != nil }) {
		for n := range nodes {
			score(n)
		}
	} else {
		f.Parallelizer().Until(ctx, len(nodes), score, "Score")
	}
	if s := first.get(); s != nil {
		return nil, s
	}

	for i, p := range plugins {
		name := p.Name()
		if e := p.ScoreExtensions(); e != nil {
			if s := e.NormalizeScore(ctx, state, pod, scores[i]); !s.IsSuccess() {
				return nil, failed("NormalizeScore", p.Name(), s)
			}
		}
		for n := range out {
			score := scores[i][n].Score
			if score < fwk.MinNodeScore || score > fwk.MaxNodeScore {
				return nil, fwk.AsStatus(fmt.Errorf("plugin %q returns the score %d for node %s, which is not between %d and %d",
					name, score, out[n].Name, fwk.MinNodeScore, fwk.MaxNodeScore)).WithPlugin(name)
			}
			out[n].Scores[i] = fwk.PluginScore{Name: name, Score: score * p.weight}
			out[n].TotalScore += score * p.weight
		}
	}
	return out, nil
}

// firstStatus keeps the first of what several goroutines report.
type firstStatus struct {
	mu sync.Mutex
	s  *fwk.Status
}

func (f *firstStatus) set(s *fwk.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.s == nil {
		f.s = s
	}
}

func (f *firstStatus) get() *fwk.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.s
}

// RunReservePluginsReserve tells plugins that the pod goes to a node. If one refuses,
// the caller runs RunReservePluginsUnreserve.
func (f *Framework) RunReservePluginsReserve(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node string) (status *fwk.Status) {
	defer f.Ran("Reserve", time.Now(), &status)
	for _, p := range f.reserve {
		s := p.Reserve(ctx, state, pod, node)
		switch {
		case s.IsSuccess():
		case s.IsRejected():
			return s.WithPlugin(p.Name())
		default:
			return failed("Reserve", p.Name(), s)
		}
	}
	return nil
}

// RunReservePluginsUnreserve takes reservations back, last first.
func (f *Framework) RunReservePluginsUnreserve(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node string) {
	defer f.Ran("Unreserve", time.Now(), nil)
	for i := len(f.reserve) - 1; i >= 0; i-- {
		f.reserve[i].Unreserve(ctx, state, pod, node)
	}
}

// RunPermit asks plugins for their consent. The answer is Wait when some want to
// think; WaitOnPermit then waits for them.
func (f *Framework) RunPermit(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node string) (status *fwk.Status) {
	defer f.Ran("Permit", time.Now(), &status)
	waits := map[string]time.Duration{}
	for _, p := range f.permit {
		s, timeout := p.Permit(ctx, state, pod, node)
		switch {
		case s.IsSuccess():
		case s.IsWait():
			waits[p.Name()] = min(timeout, maxPermitWait)
		case s.IsRejected():
			return s.WithPlugin(p.Name())
		default:
			return failed("Permit", p.Name(), s)
		}
	}
	if len(waits) == 0 {
		return nil
	}
	f.Waiting.add(pod, waits)
	return fwk.NewStatus(fwk.Wait, fmt.Sprintf("one or more plugins asked to wait and no plugin rejected pod %q", pod.Name))
}

// WaitOnPermit waits until every plugin that asked to wait allows the pod, or one rejects it.
func (f *Framework) WaitOnPermit(ctx context.Context, pod *v1.Pod) *fwk.Status {
	return f.Waiting.wait(ctx, pod)
}

// RunPreBindPreFlight asks plugins whether they have work to do before the pod is bound.
// The answer is Skip if none has. RunPreBind runs those that have.
func (f *Framework) RunPreBindPreFlight(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node string) (status *fwk.Status) {
	defer f.Ran("PreBindPreFlight", time.Now(), &status)
	idle, together := sets.New[string](), sets.New[string]()
	for _, p := range f.preBind {
		flight, s := p.PreBindPreFlight(ctx, state, pod, node)
		switch {
		case s.IsSuccess():
		case s.IsSkip():
			idle.Insert(p.Name())
		case s.Code() == fwk.Error:
			return fwk.AsStatus(fmt.Errorf("running PreBindPreFlight %q: %w", p.Name(), s.AsError()))
		default:
			return fwk.AsStatus(fmt.Errorf("PreBindPreFlight %s returned %q, which is unsupported. It is supposed to return Success, Skip, or Error status", p.Name(), s.Code()))
		}
		if flight != nil && flight.AllowParallel {
			together.Insert(p.Name())
		}
	}
	state.SetSkipPreBindPlugins(idle)
	state.SetParallelPreBindPlugins(together)
	if len(idle) == len(f.preBind) {
		return fwk.NewStatus(fwk.Skip)
	}
	return nil
}

// RunPreBind lets plugins do what must be done before the pod is bound. Those that
// say so run side by side with their neighbours.
func (f *Framework) RunPreBind(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node string) (status *fwk.Status) {
	defer f.Ran("PreBind", time.Now(), &status)
	var (
		first    firstStatus
		together sync.WaitGroup
	)
	run := func(p fwk.PreBindPlugin) {
		s := p.PreBind(ctx, state, pod, node)
		switch {
		case s.IsSuccess():
		case s.IsRejected():
			first.set(s.WithPlugin(p.Name()))
		default:
			first.set(failed("PreBind", p.Name(), s))
		}
	}
	for _, p := range f.preBind {
		busy := !state.GetSkipPreBindPlugins().Has(p.Name())
		if state.GetParallelPreBindPlugins().Has(p.Name()) {
			if busy {
				together.Go(func() { run(p) })
			}
			continue
		}
		together.Wait()
		if busy && first.get() == nil {
			run(p)
		}
		if first.get() != nil {
			break
		}
	}
	together.Wait()
	return first.get()
}

// RunBind has the first plugin that feels responsible bind the pod.
func (f *Framework) RunBind(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node string) (status *fwk.Status) {
	defer f.Ran("Bind", time.Now(), &status)
	for _, p := range f.bind {
		s := p.Bind(ctx, state, pod, node)
		switch {
		case s.IsSkip():
			continue
		case s.IsSuccess():
			return nil
		case s.IsRejected():
			return s.WithPlugin(p.Name())
		default:
			return failed("Bind", p.Name(), s)
		}
	}
	return fwk.AsStatus(errors.New("no Bind plugin took the pod"))
}

// RunPostBind tells plugins that the pod is bound.
func (f *Framework) RunPostBind(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node string) {
	defer f.Ran("PostBind", time.Now(), nil)
	for _, p := range f.postBind {
		p.PostBind(ctx, state, pod, node)
	}
	klog.FromContext(ctx).V(4).Info("Bound", "pod", klog.KObj(pod), "node", node)
}
