package explain

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Write writes a page for a person to read.
func (p *Pod) Write(out io.Writer, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "pod %s/%s\n", p.Namespace, p.Name)
	if p.Queue != "" {
		fmt.Fprintf(w, "In the queue: %s.\n", p.Queue)
	}
	for i := range p.Attempts {
		p.Attempts[i].write(w, now)
	}
	return w.Flush()
}

func (a *Attempt) write(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "\nAttempt %d, %s ago, took %s: ", a.Number, now.Sub(a.Time).Round(time.Second), a.Took.Round(10*time.Microsecond))
	if a.Node != "" {
		fmt.Fprintf(w, "chose node %s.\n", a.Node)
	} else {
		fmt.Fprintf(w, "no node.\n  %s\n", a.Message)
	}
	if a.Group != nil {
		a.Group.write(w)
	}
	a.WriteFindings(w)
}

// write writes what became of the pods of a group together.
func (g *Group) write(w io.Writer) {
	fmt.Fprintf(w, "  Tried with its pod group %s: %d of %d pods get a node", g.Name, g.Placed, g.Tried)
	if g.Scheduled > 0 {
		fmt.Fprintf(w, ", beside %d that have one", g.Scheduled)
	}
	fmt.Fprintln(w, ".")
	if g.Message != "" {
		fmt.Fprintf(w, "  %s\n", g.Message)
	}
	if len(g.Placements) > 0 {
		fmt.Fprintln(w, "\n  PLACEMENT\tNODES\tPODS\tSCORE\t")
		for _, p := range g.Placements {
			said := p.Message
			if p.Chosen {
				said = "chosen"
			}
			fmt.Fprintf(w, "  %s\t%d\t%d\t%d\t%s\n", p.Name, p.Nodes, p.Placed, p.Score, said)
		}
		fmt.Fprintln(w)
	}
	if g.Preemption != nil {
		g.Preemption.write(w)
	}
}

// WriteFindings writes what was found out about the nodes.
func (a *Attempt) WriteFindings(w io.Writer) {
	fmt.Fprintf(w, "  %d of %d nodes were looked at, %d fit.\n", a.Evaluated, a.Nodes, a.Feasible)
	if len(a.Refusals) > 0 {
		fmt.Fprintln(w, "\n  REFUSED\tBY\tREASON\tNODES\tIF PODS WENT")
		for _, r := range a.Refusals {
			help := "no help"
			if r.Evictable {
				help = "could help"
			}
			nodes := strings.Join(r.Nodes, ", ")
			if r.Count > len(r.Nodes) && len(r.Nodes) > 0 {
				nodes += ", …"
			}
			fmt.Fprintf(w, "  %d\t%s\t%s\t%s\t%s\n", r.Count, r.Plugin, r.Reason, nodes, help)
		}
	}
	if len(a.Scores) > 0 {
		plugins := slices.Sorted(maps.Keys(a.Scores[0].Plugins))
		fmt.Fprintf(w, "\n  SCORES\tTOTAL\t%s\n", strings.Join(plugins, "\t"))
		for _, s := range a.Scores {
			fmt.Fprintf(w, "  %s\t%d", s.Node, s.Total)
			for _, name := range plugins {
				fmt.Fprintf(w, "\t%d", s.Plugins[name])
			}
			fmt.Fprintln(w)
		}
	}
	if a.Preemption != nil {
		a.Preemption.write(w)
	}
}

func (p *Preemption) write(w io.Writer) {
	fmt.Fprintln(w)
	if p.Message != "" {
		fmt.Fprintf(w, "  %s\n", p.Message)
	}
	for _, c := range p.Candidates {
		mark := ""
		if c.Node == p.Chosen {
			mark = " (chosen)"
		}
		fmt.Fprintf(w, "  node %s%s: %s would go", c.Node, mark, strings.Join(c.Victims, ", "))
		if c.Violations > 0 {
			fmt.Fprintf(w, ", which breaks disruption budgets %d times", c.Violations)
		}
		fmt.Fprintln(w, ".")
	}
}
