package record

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/leme-k8s/leme/pkg/scheduler/explain"
)

// Replayed is a recorded decision and what is decided now on the same grounds.
type Replayed struct {
	Recorded Decided `json:"recorded"`
	Now      Outcome `json:"now"`
	// Same says that the two are equal in every bit.
	Same bool `json:"same"`
}

// Page shows a replay to a person, decision by decision.
type Page struct {
	w *tabwriter.Writer
	// All, Placed and Other count the decisions: all, those that found a node when they
	// were recorded, and those that are made otherwise now.
	All, Placed, Other int
	// Differing leaves out those that are the same.
	Differing bool
}

// NewPage begins a page.
func NewPage(out io.Writer) *Page {
	p := &Page{w: tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)}
	fmt.Fprintln(p.w, "DECISION\tPOD\tATTEMPT\tRECORDED\tNOW")
	return p
}

// Add writes a decision.
func (p *Page) Add(r Replayed) {
	p.All++
	if r.Recorded.Node != "" || len(r.Recorded.Members) > 0 && r.Recorded.Message == "" {
		p.Placed++
	}
	now := "the same"
	if !r.Same {
		p.Other++
		now = difference(&r.Recorded.Outcome, &r.Now)
	} else if p.Differing {
		return
	}
	name := r.Recorded.Name
	if r.Recorded.Group != "" {
		name = fmt.Sprintf("%s (%d pods of pod group %s)", name, len(r.Recorded.Members), r.Recorded.Group)
	}
	fmt.Fprintf(p.w, "%d\t%s/%s\t%d\t%s\t%s\n", p.All, r.Recorded.Namespace, name, r.Recorded.Attempt, r.Recorded.Outcome.text(), now)
}

// End writes the sum.
func (p *Page) End() error {
	fmt.Fprintf(p.w, "\n%d decisions, %d of which found a node: %d are the same now, %d are otherwise.\n", p.All, p.Placed, p.All-p.Other, p.Other)
	return p.w.Flush()
}

// text is the outcome in short.
func (o *Outcome) text() string {
	switch {
	case len(o.Members) > 0:
		return o.groupText()
	case o.Node != "":
		return o.Node
	case o.Nominated != nil && *o.Nominated != "":
		return fmt.Sprintf("promised %s, preempting %s", *o.Nominated, strings.Join(o.Victims, ", "))
	}
	return o.Message
}

// groupText is text, for a pod group.
func (o *Outcome) groupText() string {
	if o.Message != "" {
		return o.Message
	}
	var nodes []string
	for i := range o.Members {
		if node := o.Members[i].Node; node != "" {
			nodes = append(nodes, node)
		}
	}
	return fmt.Sprintf("%d of %d pods: %s", len(nodes), len(o.Members), strings.Join(nodes, ", "))
}

// difference says what is otherwise.
func difference(was, is *Outcome) string {
	if a, b := was.text(), is.text(); a != b {
		return b
	}
	if slices.EqualFunc(was.Scores, is.Scores, func(a, b explain.Score) bool { return a.Node == b.Node && a.Total == b.Total }) {
		return fmt.Sprintf("the same, after looking at %d nodes of which %d fit, not at %d of which %d did", is.Evaluated, is.Feasible, was.Evaluated, was.Feasible)
	}
	var best []string
	for _, s := range is.Scores {
		best = append(best, fmt.Sprintf("%s %d", s.Node, s.Total))
	}
	return "the same, by other scores: " + strings.Join(best, ", ")
}
