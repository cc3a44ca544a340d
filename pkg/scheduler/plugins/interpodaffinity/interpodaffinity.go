// Package interpodaffinity keeps pods near to, or away from, other pods: required and
// preferred pod affinity and anti-affinity, of the pod that is placed and of those that
// are there.
//
// It never looks at other pods: how many match a term in which domain, and which terms
// of theirs speak of this pod, is read from the snapshot's topology index.
package interpodaffinity

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	corelisters "k8s.io/client-go/listers/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/topology"
)

// Name of the plugin.
const Name = "InterPodAffinity"

const (
	filterKey = fwk.StateKey("PreFilter" + Name)
	scoreKey  = fwk.StateKey("PreScore" + Name)

	reasonAffinity     = "node(s) didn't match pod affinity rules"
	reasonAntiAffinity = "node(s) didn't match pod anti-affinity rules"
	reasonExisting     = "node(s) didn't satisfy existing pods anti-affinity rules"
)

// Plugin implements preFilter, filter, preScore and score.
type Plugin struct {
	snapshot        fwk.SharedLister
	namespaces      corelisters.NamespaceLister
	hardWeight      int64 // of a pod whose required affinity the new pod would satisfy
	ignorePreferred bool  // of pods on nodes, where the new pod has no preference

	// What Filter says, made once: most nodes of a cluster may be refused.
	noFriends, foes, unwelcome *fwk.Status
}

var (
	_ fwk.PreFilterPlugin     = &Plugin{}
	_ fwk.PreFilterExtensions = &Plugin{}
	_ fwk.FilterPlugin        = &Plugin{}
	_ fwk.PreScorePlugin      = &Plugin{}
	_ fwk.ScorePlugin         = &Plugin{}
	_ fwk.ScoreExtensions     = &Plugin{}
	_ fwk.EnqueueExtensions   = &Plugin{}
	_ fwk.SignPlugin          = &Plugin{}
	_ framework.Narrowing     = &Plugin{}
	_ framework.FilterByNode  = &Plugin{}
)

// New makes the plugin from InterPodAffinityArgs.
func New(_ context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, ok := args.(*configv1.InterPodAffinityArgs)
	if !ok || a.HardPodAffinityWeight == nil {
		return nil, fmt.Errorf("args are of type %T, want InterPodAffinityArgs with defaults", args)
	}
	return &Plugin{
		snapshot:        h.SnapshotSharedLister(),
		namespaces:      h.SharedInformerFactory().Core().V1().Namespaces().Lister(),
		hardWeight:      int64(*a.HardPodAffinityWeight),
		ignorePreferred: a.IgnorePreferredTermsOfExistingPods,
		noFriends:       fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reasonAffinity).WithPlugin(Name),
		foes:            fwk.NewStatus(fwk.Unschedulable, reasonAntiAffinity).WithPlugin(Name),
		unwelcome:       fwk.NewStatus(fwk.Unschedulable, reasonExisting).WithPlugin(Name),
	}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

func (p *Plugin) index() (*topology.Index, error) {
	provider, ok := p.snapshot.(topology.Provider)
	if !ok {
		return nil, fmt.Errorf("the snapshot (%T) counts no pods", p.snapshot)
	}
	return provider.Topology(), nil
}

// group returns the pods that a term of the new pod speaks of. The namespaces that it
// selects are looked up now, so a later change of their labels makes another group.
func (p *Plugin) group(term *fwk.AffinityTerm) (topology.Group, error) {
	if term.NamespaceSelector.Empty() {
		return topology.Group{Selector: term.Selector}, nil
	}
	names := term.Namespaces.Clone()
	selected, err := p.namespaces.List(term.NamespaceSelector)
	if err != nil {
		return topology.Group{}, err
	}
	for _, ns := range selected {
		names.Insert(ns.Name)
	}
	return topology.Group{Namespaces: names, Selector: term.Selector}, nil
}

// labelsOf returns a namespace's labels; none if it is not known (yet).
func (p *Plugin) labelsOf(namespace string) labels.Set {
	if ns, err := p.namespaces.Get(namespace); err == nil {
		return ns.Labels
	}
	return nil
}

// counted is a term of the new pod: the pods that it speaks of, by domain, and those
// that are thought to come or go.
type counted struct {
	key     string
	counter *topology.Counter
	changes map[string]int
}

func (c *counted) of(domain string) int { return c.counter.Of(domain) + c.changes[domain] }

func (c *counted) change(pod *v1.Pod, node *v1.Node, n int) {
	if domain, ok := node.Labels[c.key]; ok && c.counter.Match(pod, node) {
		c.changes = changed(c.changes, domain, n)
	}
}

// changed returns a copy of m in which a key's value has grown by n: states are cloned
// for each node that preemption tries, and share what they do not change.
func changed[K comparable](m map[K]int, key K, n int) map[K]int {
	out := make(map[K]int, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	out[key] += n
	return out
}

type pair struct{ key, value string }

// required is what PreFilter finds out.
type required struct {
	affinity, anti []counted
	// alone says that the pod itself satisfies its affinity, so that the first of a
	// group can be placed.
	alone bool
	// existing are terms of pods on nodes that keep the new pod away, and existingBy
	// has those of pods that are thought to come or go.
	existing   []*topology.Term
	existingBy map[pair]int
	namespace  labels.Set
}

// Clone returns a copy whose changes the original does not see.
func (r *required) Clone() fwk.StateData {
	c := *r
	c.affinity = append([]counted(nil), r.affinity...)
	c.anti = append([]counted(nil), r.anti...)
	return &c
}

func read(state fwk.CycleState) (*required, error) {
	data, err := state.Read(filterKey)
	if err != nil {
		return nil, err
	}
	r, ok := data.(*required)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T", filterKey, data)
	}
	return r, nil
}

// PreFilter looks up the counters of the pod's terms, and the terms that speak of it.
func (p *Plugin) PreFilter(_ context.Context, state fwk.CycleState, pod *v1.Pod, _ []fwk.NodeInfo) (*fwk.PreFilterResult, *fwk.Status) {
	info, err := cache.NewPodInfo(pod)
	if err != nil {
		return nil, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, fmt.Sprintf("parsing pod: %v", err))
	}
	x, err := p.index()
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	r := &required{namespace: p.labelsOf(pod.Namespace)}
	friends, err := p.groups(info.GetRequiredAffinityTerms())
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	foes, err := p.groups(info.GetRequiredAntiAffinityTerms())
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	r.alone = true
	for i, t := range info.GetRequiredAffinityTerms() {
		r.affinity = append(r.affinity, count(x, t.TopologyKey, friends...)) // one pod must be a friend by all terms
		r.alone = r.alone && friends[i].Matches(pod)
	}
	for i, t := range info.GetRequiredAntiAffinityTerms() {
		r.anti = append(r.anti, count(x, t.TopologyKey, foes[i]))
	}
	x.Speaking(pod, r.namespace, func(t *topology.Term) {
		if t.Kind == topology.RequiredAntiAffinity {
			r.existing = append(r.existing, t)
		}
	})
	if len(r.affinity)+len(r.anti)+len(r.existing) == 0 {
		return nil, fwk.NewStatus(fwk.Skip)
	}
	state.Write(filterKey, r)
	return nil, nil
}

func count(x *topology.Index, key string, groups ...topology.Group) counted {
	return counted{key: key, counter: x.Count(topology.Pods{Groups: groups}, topology.Nodes{Labels: []string{key}}, key)}
}

// PreFilterExtensions returns the plugin: pods that come or go change the counts.
func (p *Plugin) PreFilterExtensions() fwk.PreFilterExtensions { return p }

// AddPod counts a pod that is thought to be on a node.
func (p *Plugin) AddPod(_ context.Context, state fwk.CycleState, pod *v1.Pod, add fwk.PodInfo, node fwk.NodeInfo) *fwk.Status {
	return change(state, pod, add, node.Node(), 1)
}

// RemovePod takes a pod out that is thought to be gone.
func (p *Plugin) RemovePod(_ context.Context, state fwk.CycleState, pod *v1.Pod, remove fwk.PodInfo, node fwk.NodeInfo) *fwk.Status {
	return change(state, pod, remove, node.Node(), -1)
}

func change(state fwk.CycleState, pod *v1.Pod, other fwk.PodInfo, node *v1.Node, n int) *fwk.Status {
	r, err := read(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	for i := range r.affinity {
		r.affinity[i].change(other.GetPod(), node, n)
	}
	for i := range r.anti {
		r.anti[i].change(other.GetPod(), node, n)
	}
	terms := other.GetRequiredAntiAffinityTerms()
	for i := range terms {
		if domain, ok := node.Labels[terms[i].TopologyKey]; ok && terms[i].Matches(pod, r.namespace) {
			r.existingBy = changed(r.existingBy, pair{terms[i].TopologyKey, domain}, n)
		}
	}
	return nil
}

// Filter rejects nodes in whose domains the pod's friends are missing, or with pods
// that it, or that themselves, want to keep apart.
func (p *Plugin) Filter(_ context.Context, state fwk.CycleState, _ *v1.Pod, node fwk.NodeInfo) *fwk.Status {
	r, err := read(state)
	if err != nil {
		return fwk.AsStatus(err)
	}
	of := node.Node().Labels
	switch {
	case !r.nearFriends(of):
		return p.noFriends
	case r.nearFoes(of):
		return p.foes
	case r.unwelcome(of):
		return p.unwelcome
	}
	return nil
}

// Narrow returns the domains of the pod's friends that are the fewest by their number. The first
// pod of a group may be anywhere.
func (p *Plugin) Narrow(state fwk.CycleState) *framework.Domains {
	r, err := read(state)
	if err != nil || len(r.affinity) == 0 {
		return nil
	}
	fewest, anywhere := &r.affinity[0], false
	for i := range r.affinity {
		t := &r.affinity[i]
		if len(t.changes) > 0 {
			return nil
		}
		anywhere = anywhere || t.counter.Total() > 0
		if t.counter.Having() < fewest.counter.Having() {
			fewest = t
		}
	}
	if !anywhere {
		return nil
	}
	return &framework.Domains{
		Key:        fewest.key,
		Unlabelled: p.noFriends,
		Refusal: func(domain string) *fwk.Status {
			if fewest.counter.Of(domain) == 0 {
				return p.noFriends
			}
			return nil
		},
		Decided: len(r.affinity) == 1 && len(r.anti)+len(r.existing)+len(r.existingBy) == 0,
	}
}

// FilterByNode says that nothing but the pods on a node matters for pods without affinity, if all anti-affinity, theirs
// and that of others towards them, is by host.
func (p *Plugin) FilterByNode(state fwk.CycleState, pod *v1.Pod) (fwk.SignFragment, bool) {
	r, err := read(state)
	if err != nil || len(r.affinity) > 0 || !p.onePerHost() {
		return fwk.SignFragment{}, false
	}
	for i := range r.anti {
		if r.anti[i].key != v1.LabelHostname {
			return fwk.SignFragment{}, false
		}
	}
	for _, t := range r.existing {
		if t.TopologyKey != v1.LabelHostname {
			return fwk.SignFragment{}, false
		}
	}
	var terms []v1.PodAffinityTerm
	if a := pod.Spec.Affinity; a != nil {
		terms = fwk.GetPodAntiAffinityTerms(a)
	}
	for i := range terms {
		if terms[i].NamespaceSelector != nil { // which namespaces those are can change
			return fwk.SignFragment{}, false
		}
	}
	return fwk.SignFragment{Key: Name, Value: byNode{pod.Namespace, r.namespace, pod.Labels, terms}}, true
}

// byNode is what tells pods apart where only the pods on a node matter.
type byNode struct {
	Namespace       string
	NamespaceLabels labels.Set
	Labels          labels.Set
	AntiAffinity    []v1.PodAffinityTerm
}

// onePerHost reports whether each node is a host of its own.
func (p *Plugin) onePerHost() bool {
	x, err := p.index()
	return err == nil && x.OnePerHost()
}

func (r *required) nearFriends(node map[string]string) bool {
	near, anywhere := true, false
	for i := range r.affinity {
		t := &r.affinity[i]
		domain, ok := node[t.key]
		if !ok {
			return false
		}
		near = near && t.of(domain) > 0
		total := t.counter.Total()
		for _, n := range t.changes {
			total += n
		}
		anywhere = anywhere || total > 0
	}
	return near || !anywhere && r.alone
}

func (r *required) nearFoes(node map[string]string) bool {
	for i := range r.anti {
		if domain, ok := node[r.anti[i].key]; ok && r.anti[i].of(domain) > 0 {
			return true
		}
	}
	return false
}

func (r *required) unwelcome(node map[string]string) bool {
	for i, t := range r.existing {
		domain, ok := node[t.TopologyKey]
		if !ok || t.Of(domain) == 0 {
			continue
		}
		if len(r.existingBy) == 0 {
			return true
		}
		pods := 0
		for _, other := range r.existing[i:] {
			if other.TopologyKey == t.TopologyKey {
				pods += other.Of(domain)
			}
		}
		if pods+r.existingBy[pair{t.TopologyKey, domain}] > 0 {
			return true
		}
	}
	for at, n := range r.existingBy {
		if domain, ok := node[at.key]; ok && domain == at.value && n > 0 {
			return true
		}
	}
	return false
}

// SignPod tells pods apart by what they ask of other pods, and by their labels and
// namespace, of which other pods' terms speak.
func (p *Plugin) SignPod(_ context.Context, pod *v1.Pod) ([]fwk.SignFragment, *fwk.Status) {
	if a := pod.Spec.Affinity; a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil) {
		return nil, fwk.NewStatus(fwk.Unschedulable, "pods with InterPodAffinity are not signable")
	}
	return []fwk.SignFragment{{Key: fwk.LabelsSignerName, Value: sets.List(labelSet(pod))}}, nil
}

func labelSet(pod *v1.Pod) sets.Set[string] {
	s := sets.New(pod.Namespace)
	for k, v := range pod.Labels {
		s.Insert(k + "=" + v)
	}
	return s
}
