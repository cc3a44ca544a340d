package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// report counts requests by group, and keeps what is different.
type report struct {
	mu        sync.Mutex
	known     knowns
	groups    map[string]*counts
	different []difference
}

type counts struct{ requests, equal, known, different int }

type difference struct {
	request string
	lines   []string // those that are not known
	known   bool     // all of them are
}

// add counts a request and the differences of its answers.
func (r *report) add(group, request string, lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.groups == nil {
		r.groups = map[string]*counts{}
	}
	c := r.groups[group]
	if c == nil {
		c = &counts{}
		r.groups[group] = c
	}
	c.requests++
	if len(lines) == 0 {
		c.equal++
		return
	}
	unknown := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return r.known.has(request, line) })
	if len(unknown) == 0 {
		c.known++
		return
	}
	c.different++
	r.different = append(r.different, difference{request: request, lines: unknown})
}

// summary prints the counts, and returns whether nothing is unexpected.
func (r *report) summary(w io.Writer) bool {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "group\trequests\tequal\tknown\tdifferent\tequal %\t")
	var total counts
	row := func(name string, c counts) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%.2f\t\n", name, c.requests, c.equal, c.known, c.different, 100*float64(c.equal)/float64(max(c.requests, 1)))
	}
	for _, name := range slices.Sorted(maps.Keys(r.groups)) {
		c := *r.groups[name]
		row(name, c)
		total.requests += c.requests
		total.equal += c.equal
		total.known += c.known
		total.different += c.different
	}
	row("total", total)
	t.Flush()
	gone := r.known.gone()
	for _, k := range gone {
		fmt.Fprintf(w, "known, but gone: request %q, difference %q: take it out of the list\n", k.Request, k.Difference)
	}
	return total.different == 0 && len(gone) == 0
}

// write writes all that is different into a file, in the order of the requests.
func (r *report) write(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	slices.SortFunc(r.different, func(a, b difference) int { return strings.Compare(a.request, b.request) })
	for _, d := range r.different {
		fmt.Fprintln(w, d.request)
		for _, line := range d.lines {
			fmt.Fprintln(w, "\t"+line)
		}
	}
	return w.Flush()
}
