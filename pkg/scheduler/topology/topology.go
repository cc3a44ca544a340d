// Package topology knows how many pods of some kind there are in each zone, on each
// host, or under any other label of nodes, without ever walking all pods to find out.
//
// A Counter belongs to (which pods, which nodes, which label). It is made when it is
// first asked for, and from then on each change of a pod or node moves it. Pods find
// the counters that concern them by their own labels, so a change costs what the pod
// has labels, however many counters there are. The terms of the pods' own affinity and
// anti-affinity are kept the same way round: a pod finds those that speak of it.
//
// An Index is part of a snapshot: it changes only between two scheduling cycles, with
// the nodes, so a cycle sees one consistent state.
package topology

import (
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
)

// Host is the topology in which each node is a domain of its own, named like the node.
const Host = ""

// maxCounters bounds the memory that counters take. When there are more, the half that
// has not been asked for the longest is dropped, and made again when it is asked for.
const maxCounters = 2048

// A Provider is a snapshot that has an index.
type Provider interface{ Topology() *Index }

// Index counts. It belongs to the goroutine that schedules; between its changes it may
// be read by many.
type Index struct {
	nodes    map[string]fwk.NodeInfo
	classes  map[string]*class
	counters map[string]*Counter
	byLabel  finder[*Counter]
	terms    map[string]*Term
	termsBy  finder[*Term]
	clock    int64

	// hosts has the number of nodes by their label for the host, and shared how many of
	// those have more than one.
	hosts  map[string]int
	shared int
}

// New returns an index of no nodes.
func New() *Index {
	return &Index{
		nodes:    map[string]fwk.NodeInfo{},
		classes:  map[string]*class{},
		counters: map[string]*Counter{},
		byLabel:  finder[*Counter]{},
		terms:    map[string]*Term{},
		termsBy:  finder[*Term]{},
		hosts:    map[string]int{},
	}
}

// OnePerHost reports whether no two nodes have the same label for the host.
func (x *Index) OnePerHost() bool { return x.shared == 0 }

func (x *Index) host(node *v1.Node, sign int) {
	host, ok := node.Labels[v1.LabelHostname]
	if !ok {
		return
	}
	before := x.hosts[host]
	bump(x.hosts, host, sign)
	switch {
	case before == 1 && sign > 0:
		x.shared++
	case before == 2 && sign < 0:
		x.shared--
	}
}

// Group is a set of pods: those that the selector matches, in some namespaces. Nil
// namespaces are all of them.
type Group struct {
	Namespaces sets.Set[string]
	Selector   labels.Selector
}

// Matches reports whether a pod is of the group.
func (g Group) Matches(pod *v1.Pod) bool {
	return (g.Namespaces == nil || g.Namespaces.Has(pod.Namespace)) && g.Selector.Matches(labels.Set(pod.Labels))
}

func (g Group) id() string {
	namespaces := "*"
	if g.Namespaces != nil {
		namespaces = strings.Join(sets.List(g.Namespaces), ",")
	}
	return namespaces + "\x01" + g.Selector.String() + nothing(g.Selector)
}

// Pods are the pods that a counter counts: those of all of the groups at once.
type Pods struct {
	Groups []Group
	// Lasting leaves out pods that are being deleted.
	Lasting bool
}

// Match reports whether a pod is counted.
func (p *Pods) Match(pod *v1.Pod) bool {
	if p.Lasting && pod.DeletionTimestamp != nil {
		return false
	}
	for _, g := range p.Groups {
		if !g.Matches(pod) {
			return false
		}
	}
	return true
}

func (p *Pods) id() string {
	var b strings.Builder
	if p.Lasting {
		b.WriteString("lasting")
	}
	for _, g := range p.Groups {
		b.WriteString("\x02")
		b.WriteString(g.id())
	}
	return b.String()
}

// Nodes are the nodes on which pods are counted: those with all of some labels that
// besides pass a test. Equal IDs stand for equal tests; without a test the ID is empty.
// The test may look at the node's name, labels and taints.
type Nodes struct {
	Labels []string
	ID     string
	Test   func(*v1.Node) bool
}

func (n *Nodes) match(node *v1.Node) bool {
	for _, key := range n.Labels {
		if _, ok := node.Labels[key]; !ok {
			return false
		}
	}
	return n.Test == nil || n.Test(node)
}

// class is a set of nodes that counters share, and its domains: how many of its nodes
// there are in each, by topology key.
type class struct {
	id string
	Nodes
	members sets.Set[string]
	domains map[string]map[string]int
	users   int // counters
}

func (c *class) set(node *v1.Node, sign int) {
	if sign > 0 {
		if !c.match(node) {
			return
		}
		c.members.Insert(node.Name)
	} else {
		if !c.members.Has(node.Name) {
			return
		}
		c.members.Delete(node.Name)
	}
	for key, domains := range c.domains {
		if value, ok := valueOf(node, key); ok {
			bump(domains, value, sign)
		}
	}
}

func bump(counts map[string]int, value string, n int) {
	if counts[value] += n; counts[value] == 0 {
		delete(counts, value)
	}
}

func valueOf(node *v1.Node, key string) (string, bool) {
	if key == Host {
		return node.Name, true
	}
	value, ok := node.Labels[key]
	return value, ok
}

// Counter is the number of some pods in each domain of a topology.
type Counter struct {
	id    string
	key   string
	pods  Pods
	class *class
	used  int64

	counts map[string]int // domains with any
	total  int
	// having is how many domains have so many pods, but for those with none.
	having map[int]int
}

// Of returns the number of pods in a domain.
func (c *Counter) Of(domain string) int { return c.counts[domain] }

// Having returns how many domains have any of the pods.
func (c *Counter) Having() int { return len(c.counts) }

// Each calls visit for every domain that has any of the pods.
func (c *Counter) Each(visit func(domain string)) {
	for domain := range c.counts {
		visit(domain)
	}
}

// Total returns the number of pods in all domains.
func (c *Counter) Total() int { return c.total }

// Domains returns the number of domains.
func (c *Counter) Domains() int { return len(c.class.domains[c.key]) }

// Match reports whether a pod on a node is counted.
func (c *Counter) Match(pod *v1.Pod, node *v1.Node) bool {
	return c.class.members.Has(node.Name) && c.pods.Match(pod)
}

// Min returns the lowest number of pods in a domain, if some pods were added and
// others taken away: changes has their number by domain. It is 0 if there are no domains.
func (c *Counter) Min(changes map[string]int) int {
	if c.Domains() == 0 {
		return 0
	}
	moved := map[int]int{}
	most := c.total
	for domain, n := range changes {
		moved[c.counts[domain]]--
		moved[c.counts[domain]+n]++
		most += max(n, 0)
	}
	for n := range most {
		domains := c.having[n]
		if n == 0 {
			domains = c.Domains() - len(c.counts)
		}
		if domains+moved[n] > 0 {
			return n
		}
	}
	return most
}

func (c *Counter) add(domain string, n int) {
	before := c.counts[domain]
	if before > 0 {
		if c.having[before]--; c.having[before] == 0 {
			delete(c.having, before)
		}
	}
	bump(c.counts, domain, n)
	if after := before + n; after > 0 {
		c.having[after]++
	}
	c.total += n
}

// Count returns the counter of pods on nodes by a topology key, which nodes may lack.
func (x *Index) Count(pods Pods, nodes Nodes, key string) *Counter {
	x.clock++
	classID := strings.Join(nodes.Labels, ",") + "\x01" + nodes.ID
	id := key + "\x03" + classID + "\x03" + pods.id()
	if c, ok := x.counters[id]; ok {
		c.used = x.clock
		return c
	}
	if len(x.counters) >= maxCounters {
		x.dropHalf()
	}
	c := &Counter{id: id, key: key, pods: pods, class: x.class(classID, nodes, key), used: x.clock, counts: map[string]int{}, having: map[int]int{}}
	for name := range c.class.members {
		node := x.nodes[name]
		domain, ok := valueOf(node.Node(), key)
		if !ok {
			continue
		}
		n := 0
		for _, p := range node.GetPods() {
			if pods.Match(p.GetPod()) {
				n++
			}
		}
		if n > 0 {
			c.add(domain, n)
		}
	}
	x.counters[id] = c
	x.byLabel.put(labelOf(pods.Groups), id, c)
	return c
}

func (x *Index) class(id string, nodes Nodes, key string) *class {
	c, ok := x.classes[id]
	if !ok {
		c = &class{id: id, Nodes: nodes, members: sets.New[string](), domains: map[string]map[string]int{}}
		x.classes[id] = c
		for _, node := range x.nodes {
			c.set(node.Node(), 1)
		}
	}
	c.users++
	if _, ok := c.domains[key]; !ok {
		domains := map[string]int{}
		for name := range c.members {
			if value, ok := valueOf(x.nodes[name].Node(), key); ok {
				bump(domains, value, 1)
			}
		}
		c.domains[key] = domains
	}
	return c
}

func (x *Index) dropHalf() {
	oldest := slices.SortedFunc(maps.Values(x.counters), func(a, b *Counter) int { return int(a.used - b.used) })
	for _, c := range oldest[:len(oldest)/2] {
		delete(x.counters, c.id)
		x.byLabel.drop(labelOf(c.pods.Groups), c.id)
		if c.class.users--; c.class.users == 0 {
			delete(x.classes, c.class.id)
		}
	}
}

// Update takes over what changed about a node: before and after it did, nil (or without
// a node) where there was or is none.
func (x *Index) Update(before, after fwk.NodeInfo) {
	old, node := nodeOf(before), nodeOf(after)
	if old != nil && node != nil && maps.Equal(old.Labels, node.Labels) && slices.EqualFunc(old.Spec.Taints, node.Spec.Taints, sameTaint) {
		gone, come := difference(before.GetPods(), after.GetPods())
		for _, p := range gone {
			x.pod(node, p, -1)
		}
		for _, p := range come {
			x.pod(node, p, 1)
		}
		x.nodes[node.Name] = after
		return
	}
	if old != nil {
		for _, p := range before.GetPods() {
			x.pod(old, p, -1)
		}
		x.host(old, -1)
		for _, c := range x.classes {
			c.set(old, -1)
		}
		delete(x.nodes, old.Name)
	}
	if node != nil {
		x.host(node, 1)
		for _, c := range x.classes {
			c.set(node, 1)
		}
		for _, p := range after.GetPods() {
			x.pod(node, p, 1)
		}
		x.nodes[node.Name] = after
	}
}

func nodeOf(n fwk.NodeInfo) *v1.Node {
	if n == nil {
		return nil
	}
	return n.Node()
}

func sameTaint(a, b v1.Taint) bool { return a.MatchTaint(&b) && a.Value == b.Value }

// difference finds which pods went and which came. Most of both lists are the same
// objects in the same order.
func difference(before, after []fwk.PodInfo) (gone, come []fwk.PodInfo) {
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		before, after = before[1:], after[1:]
	}
	kept := make(map[fwk.PodInfo]bool, len(before))
	for _, p := range before {
		kept[p] = false
	}
	for _, p := range after {
		if _, ok := kept[p]; ok {
			kept[p] = true
		} else {
			come = append(come, p)
		}
	}
	for _, p := range before {
		if !kept[p] {
			gone = append(gone, p)
		}
	}
	return gone, come
}

func (x *Index) pod(node *v1.Node, p fwk.PodInfo, sign int) {
	pod := p.GetPod()
	x.byLabel.find(pod.Labels, func(c *Counter) {
		if !c.Match(pod, node) {
			return
		}
		if domain, ok := valueOf(node, c.key); ok {
			c.add(domain, sign)
		}
	})
	x.podTerms(node, p, sign)
}

// label is a label that pods must have to be found.
type label struct{ key, value string }

// labelOf returns a label that every pod of the groups has, if the selectors ask for one.
func labelOf(groups []Group) label {
	for _, g := range groups {
		requirements, _ := g.Selector.Requirements()
		for _, r := range requirements {
			switch r.Operator() {
			case selection.In, selection.Equals, selection.DoubleEquals:
				if values := r.Values(); values.Len() == 1 {
					value, _ := values.PopAny()
					return label{r.Key(), value}
				}
			}
		}
	}
	return label{}
}

// finder has things by a label that pods must have for them to matter; under the empty
// label those that may matter to every pod.
type finder[T any] map[label]map[string]T

func (f finder[T]) put(l label, id string, t T) {
	if f[l] == nil {
		f[l] = map[string]T{}
	}
	f[l][id] = t
}

func (f finder[T]) drop(l label, id string) {
	delete(f[l], id)
	if len(f[l]) == 0 {
		delete(f, l)
	}
}

func (f finder[T]) find(of map[string]string, visit func(T)) {
	for _, t := range f[label{}] {
		visit(t)
	}
	for key, value := range of {
		for _, t := range f[label{key, value}] {
			visit(t)
		}
	}
}
