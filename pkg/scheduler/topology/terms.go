package topology

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
)

// Kind is what a pod's term asks for.
type Kind byte

// The kinds of terms that pods on nodes have.
const (
	RequiredAffinity Kind = iota
	RequiredAntiAffinity
	PreferredAffinity
	PreferredAntiAffinity
)

// Term is what pods on nodes ask of other pods near them; equal terms are one.
type Term struct {
	Kind Kind
	fwk.AffinityTerm

	id string
	// weights are those of all pods with this term, summed up by domain; a required
	// term weighs 1.
	weights map[string]int
	users   int
}

// Of returns the weight of the term in a domain.
func (t *Term) Of(domain string) int { return t.weights[domain] }

// Each calls visit for every domain in which pods have the term.
func (t *Term) Each(visit func(domain string, weight int)) {
	for domain, w := range t.weights {
		visit(domain, w)
	}
}

// Speaking calls visit for each term of pods on nodes that speaks of pod, whose
// namespace has the given labels.
func (x *Index) Speaking(pod *v1.Pod, namespace labels.Set, visit func(*Term)) {
	x.termsBy.find(pod.Labels, func(t *Term) {
		if t.Matches(pod, namespace) {
			visit(t)
		}
	})
}

func (x *Index) podTerms(node *v1.Node, p fwk.PodInfo, sign int) {
	for _, t := range p.GetRequiredAffinityTerms() {
		x.term(node, RequiredAffinity, t, 1, sign)
	}
	for _, t := range p.GetRequiredAntiAffinityTerms() {
		x.term(node, RequiredAntiAffinity, t, 1, sign)
	}
	for _, t := range p.GetPreferredAffinityTerms() {
		x.term(node, PreferredAffinity, t.AffinityTerm, int(t.Weight), sign)
	}
	for _, t := range p.GetPreferredAntiAffinityTerms() {
		x.term(node, PreferredAntiAffinity, t.AffinityTerm, int(t.Weight), sign)
	}
}

func (x *Index) term(node *v1.Node, kind Kind, term fwk.AffinityTerm, weight, sign int) {
	domain, ok := node.Labels[term.TopologyKey]
	if !ok {
		return
	}
	id := strings.Join([]string{
		string(rune('0' + kind)), term.TopologyKey, strings.Join(sets.List(term.Namespaces), ","), term.NamespaceSelector.String(), nothing(term.NamespaceSelector), term.Selector.String(), nothing(term.Selector),
	}, "\x01")
	t, ok := x.terms[id]
	if !ok {
		t = &Term{Kind: kind, AffinityTerm: term, id: id, weights: map[string]int{}}
		x.terms[id] = t
		x.termsBy.put(labelOf([]Group{{Selector: term.Selector}}), id, t)
	}
	bump(t.weights, domain, sign*weight)
	if t.users += sign; t.users == 0 {
		delete(x.terms, id)
		x.termsBy.drop(labelOf([]Group{{Selector: term.Selector}}), id)
	}
}

// nothing tells the selector that matches nothing from the one that matches everything:
// both are written as an empty string.
func nothing(s labels.Selector) string {
	if s.Empty() {
		return "*"
	}
	return ""
}
