package framework

import (
	"context"
	"encoding/json"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	fwk "k8s.io/kube-scheduler/framework"
)

// ByNode is a plugin whose answers about a node follow from the pod's signature and the
// node alone. What one pod found out with it holds for the next pod that is alike.
type ByNode interface {
	fwk.SignPlugin
	ByNode()
}

// FilterByNode is a filter of which the same holds for some pods, as its PreFilter has found out.
type FilterByNode interface {
	fwk.FilterPlugin
	// FilterByNode says whether the pod is one of those, and what its answers depend on beside the node.
	FilterByNode(state fwk.CycleState, pod *v1.Pod) (fwk.SignFragment, bool)
}

// Narrowing is a plugin that may know, once its PreFilter has run, on which values of one
// label of nodes its answer depends. Nodes that it would refuse need not be looked at
// unless to say why the pod fits nowhere.
type Narrowing interface {
	fwk.FilterPlugin
	Narrow(state fwk.CycleState) *Domains
}

// Domains are the nodes by the values of a label, and what a plugin says of them.
type Domains struct {
	Key string
	// Refusal is what the plugin says of all nodes with a value, nil unless it refuses them.
	Refusal func(value string) *fwk.Status
	// Unlabelled is the same for nodes without the label.
	Unlabelled *fwk.Status
	// Decided says that the plugin refuses no others.
	Decided bool

	plugin string
}

// Narrow returns the domains to which filters confine a pod.
func (f *Framework) Narrow(state fwk.CycleState) []*Domains {
	var out []*Domains
	for _, p := range f.filter {
		if n, ok := p.(Narrowing); ok && !state.GetSkipFilterPlugins().Has(p.Name()) {
			if d := n.Narrow(state); d != nil {
				d.plugin = p.Name()
				out = append(out, d)
			}
		}
	}
	return out
}

// maxSignatures bounds the memory that findings take.
const maxSignatures = 64

// Memo keeps what was found out about nodes, by the signature of pods. It belongs to the
// goroutine that schedules.
type Memo struct {
	nodes    int
	clock    int64
	findings map[string]*Findings
	room     room
	lists    Lists
}

// NewMemo returns an empty memo.
func NewMemo() *Memo { return &Memo{findings: map[string]*Findings{}} }

// Findings are what is known of nodes with respect to pods of one signature, by their
// position in the snapshot. Nil is for a pod that shares nothing.
type Findings struct {
	at   []Finding
	used int64
}

// Finding is what the plugins ByNode said of one state of a node.
type Finding struct {
	node     fwk.NodeInfo
	name     string
	filtered bool
	status   *fwk.Status
	scores   []int64 // by position of the plugin

	// promised are the pods that the node was promised to when withPromised was said of
	// the node with them on it.
	promised     []fwk.PodInfo
	withPromised *fwk.Status
}

// unknown is the score of a plugin that has not been asked.
const unknown = math.MinInt64

// For returns the findings for a signature in a cluster of so many nodes. Where there are
// too many, those that have not been asked for the longest make room.
func (m *Memo) For(signature fwk.PodSignature, nodes int) *Findings {
	if m == nil || signature == nil {
		return nil
	}
	if m.nodes != nodes { // some scores depend on the number of nodes
		m.nodes, m.findings = nodes, map[string]*Findings{}
	}
	f, ok := m.findings[string(signature)]
	if !ok {
		f = m.oldest()
		m.findings[string(signature)] = f
	}
	m.clock++
	f.used = m.clock
	return f
}

// oldest returns empty findings, which if there are too many were those that have not been
// asked for the longest.
func (m *Memo) oldest() *Findings {
	if len(m.findings) < maxSignatures {
		return &Findings{at: make([]Finding, m.nodes)}
	}
	var signature string
	var oldest *Findings
	for s, f := range m.findings {
		if oldest == nil || f.used < oldest.used {
			signature, oldest = s, f
		}
	}
	delete(m.findings, signature)
	clear(oldest.at)
	return oldest
}

// About returns what is known of the node at a position in the snapshot, as it is: a
// node that changed since is another object.
func (f *Findings) About(at int, node fwk.NodeInfo) *Finding {
	if f == nil {
		return nil
	}
	found := &f.at[at]
	if found.node != node {
		*found = Finding{node: node, name: node.Node().Name}
	}
	return found
}

// signature tells pods apart for the plugins ByNode and those whose fragments are given;
// nil if one of them cannot tell, or if the profile has none.
func (f *Framework) signature(ctx context.Context, pod *v1.Pod, more []fwk.SignFragment) fwk.PodSignature {
	if len(f.byNode) == 0 {
		return nil
	}
	parts := map[string]any{fwk.SchedulerNameSignerName: pod.Spec.SchedulerName}
	for _, p := range f.byNode {
		fragments, s := p.SignPod(ctx, pod)
		if !s.IsSuccess() {
			return nil
		}
		for _, fragment := range fragments {
			parts[fragment.Key] = fragment.Value
		}
	}
	for _, fragment := range more {
		parts[fragment.Key] = fragment.Value
	}
	signature, err := json.Marshal(parts)
	if err != nil {
		return nil
	}
	return signature
}

// share finds out which plugins' answers can be shared: the filters that run before the
// first that looks further, so that the first reason stays the first, and all scores.
func (f *Framework) share() {
	add := func(p fwk.Plugin) bool {
		b, ok := p.(ByNode)
		if ok {
			f.byNode[b.Name()] = b
		}
		return ok
	}
	f.byNode = map[string]ByNode{}
	for f.sharedFilters < len(f.filter) && add(f.filter[f.sharedFilters]) {
		f.sharedFilters++
	}
	for i := range f.score {
		f.score[i].shared = add(f.score[i].ScorePlugin)
	}
}

// Filters are the filters that PreFilter has not told to skip: those whose answers can be shared, and the rest.
type Filters struct {
	framework *Framework
	shared    []fwk.FilterPlugin
	own       []fwk.FilterPlugin
	signature fwk.PodSignature         // of the pod for those that are shared
	promised  map[string][]fwk.PodInfo // nodes that are promised to pods beside which it must fit
}

// FiltersOf returns the filters of a cycle, for many nodes.
func (f *Framework) FiltersOf(ctx context.Context, state fwk.CycleState, pod *v1.Pod) *Filters {
	cycle, _ := state.(*CycleState)
	l := &Filters{framework: f, promised: f.Nominator().Promised(func(p fwk.PodInfo) bool { return besides(pod, p) && !cycle.isPlaced(p.GetPod().UID) })}
	var byNode []fwk.SignFragment
	for i, p := range f.filter {
		if state.GetSkipFilterPlugins().Has(p.Name()) {
			continue
		}
		if len(l.own) == 0 {
			if i < f.sharedFilters {
				l.shared = append(l.shared, p)
				continue
			}
			if b, ok := p.(FilterByNode); ok {
				if fragment, ok := b.FilterByNode(state, pod); ok {
					l.shared, byNode = append(l.shared, p), append(byNode, fragment)
					continue
				}
			}
		}
		l.own = append(l.own, p)
	}
	l.signature = f.signature(ctx, pod, byNode)
	return l
}

// Signature tells pods apart whose findings differ, nil if the pod shares none.
func (l *Filters) Signature() fwk.PodSignature { return l.signature }

// Within returns the filters for the nodes that are left of some domains.
func (l *Filters) Within(domains []*Domains) *Filters {
	within := *l
	within.own = nil
	for _, p := range l.own {
		if !slices.ContainsFunc(domains, func(d *Domains) bool { return d.Decided && d.plugin == p.Name() }) {
			within.own = append(within.own, p)
		}
	}
	return &within
}

// OnlyByNode says that all answers of the filters can be shared.
func (l *Filters) OnlyByNode() bool { return len(l.own) == 0 && l.signature != nil }

// Promised are the pods that a node is promised to and beside which the pod must fit.
func (l *Filters) Promised(node string) []fwk.PodInfo { return l.promised[node] }

// Known says that Run has next to nothing to do for these nodes.
func (l *Filters) Known(nodes []*Finding) bool {
	return len(l.own) == 0 && fewWithout(nodes, func(f *Finding) bool { return f.filtered && l.promised[f.name] == nil })
}

// fewWithout reports whether something is known of all nodes but a few, for which it
// does not pay to start goroutines.
func fewWithout(nodes []*Finding, known func(*Finding) bool) bool {
	const few = 64
	without := 0
	for _, f := range nodes {
		if f == nil || !known(f) {
			without++
		}
		if without > few {
			return false
		}
	}
	return true
}

// Run is RunFilterPluginsWithNominatedPods, with what is known of the node.
func (l *Filters) Run(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo, found *Finding) *fwk.Status {
	f := l.framework
	if found == nil {
		return f.RunFilterPluginsWithNominatedPods(ctx, state, pod, node)
	}
	if promised := l.promised[found.name]; len(promised) > 0 {
		if s := l.withPromised(ctx, state, pod, node, promised, found); !s.IsSuccess() {
			return s
		}
	}
	if !found.filtered {
		s := runFilters(ctx, state, pod, node, l.shared, nil)
		if !s.IsSuccess() && !s.IsRejected() {
			return s
		}
		found.status, found.filtered = s, true
	}
	if !found.status.IsSuccess() {
		return found.status
	}
	return runFilters(ctx, state, pod, node, l.own, nil)
}

// withPromised asks whether the pod fits beside those that the node is promised to. That
// a plugin ByNode says no holds as long as node and promises are the same.
func (l *Filters) withPromised(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo, promised []fwk.PodInfo, found *Finding) *fwk.Status {
	if found.withPromised != nil && slices.Equal(found.promised, promised) {
		return found.withPromised
	}
	s := l.framework.filterWithPromised(ctx, state, pod, node, promised)
	if s.IsRejected() && slices.ContainsFunc(l.shared, func(p fwk.FilterPlugin) bool { return p.Name() == s.Plugin() }) {
		found.promised, found.withPromised = promised, s
	}
	return s
}

// scoreOf asks a plugin for a node's score, or looks it up.
func (f *Framework) scoreOf(ctx context.Context, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo, i int, found *Finding) (int64, *fwk.Status) {
	p := &f.score[i]
	if found == nil || !p.shared {
		return p.Score(ctx, state, pod, node)
	}
	if found.scores == nil {
		found.scores = make([]int64, len(f.score))
		for i := range found.scores {
			found.scores[i] = unknown
		}
	}
	if found.scores[i] == unknown {
		score, s := p.Score(ctx, state, pod, node)
		if !s.IsSuccess() {
			return 0, s
		}
		found.scores[i] = score
	}
	return found.scores[i], nil
}

// promised are the pods beside which pod must fit on a node that is promised to them.
// Mates that have got their nodes in the same attempt need no promise.
func (f *Framework) promised(state fwk.CycleState, pod *v1.Pod, node string) []fwk.PodInfo {
	cycle, _ := state.(*CycleState)
	var out []fwk.PodInfo
	for _, p := range f.NominatedPodsForNode(node) {
		if besides(pod, p) && !cycle.isPlaced(p.GetPod().UID) {
			out = append(out, p)
		}
	}
	return out
}

// besides reports whether pod must fit beside another one that is promised the node:
// those of at least its priority count.
func besides(pod *v1.Pod, promised fwk.PodInfo) bool {
	other := promised.GetPod()
	return other.UID != pod.UID && corev1helpers.PodPriority(other) >= corev1helpers.PodPriority(pod)
}

// NameOf returns the node's name from where it is nearest.
func (f *Finding) NameOf(node fwk.NodeInfo) string {
	if f != nil {
		return f.name
	}
	return node.Node().Name
}

// Lists are memory for a search, in which one cycle after the other keeps what it finds.
type Lists struct {
	// Of nodes that fit: empty, with room for enough.
	FitNodes []fwk.NodeInfo
	FitFound []*Finding
	// Of nodes that are looked at together.
	Nodes    []fwk.NodeInfo
	Found    []*Finding
	Statuses []*fwk.Status
	At       []int
}

// Lists returns lists for so many nodes that fit, and for so many at once. They are good until the next call.
func (m *Memo) Lists(fit, atOnce int) Lists {
	if m == nil {
		m = &Memo{}
	}
	l := &m.lists
	if cap(l.FitNodes) < fit {
		l.FitNodes, l.FitFound = make([]fwk.NodeInfo, 0, fit), make([]*Finding, 0, fit)
	}
	if len(l.Nodes) < atOnce {
		l.Nodes, l.Found, l.Statuses, l.At = make([]fwk.NodeInfo, atOnce), make([]*Finding, atOnce), make([]*fwk.Status, atOnce), make([]int, atOnce)
	}
	return *l
}

// room is memory for scores that one cycle after the other uses.
type room struct {
	byPlugin []fwk.NodeScore
	byNode   []fwk.PluginScore
	nodes    []fwk.NodePluginScores
}

// scores returns lists for the scores of nodes, by plugin and by node.
func (r *room) scores(nodes, plugins int) ([]fwk.NodeScoreList, []fwk.NodePluginScores) {
	if size := nodes * plugins; len(r.byPlugin) < size {
		r.byPlugin, r.byNode = make([]fwk.NodeScore, size), make([]fwk.PluginScore, size)
	}
	if len(r.nodes) < nodes {
		r.nodes = make([]fwk.NodePluginScores, nodes)
	}
	lists, out := make([]fwk.NodeScoreList, plugins), r.nodes[:nodes]
	for i := range lists {
		lists[i] = r.byPlugin[i*nodes : (i+1)*nodes : (i+1)*nodes]
	}
	for n := range out {
		out[n] = fwk.NodePluginScores{Scores: r.byNode[n*plugins : (n+1)*plugins : (n+1)*plugins]}
	}
	return lists, out
}
