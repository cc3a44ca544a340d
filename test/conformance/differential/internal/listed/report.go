package listed

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

// Report counts what was compared, by group, and keeps what is different.
type Report struct {
	// Unit is what is compared: "requests".
	Unit  string
	Known List

	mu        sync.Mutex
	groups    map[string]*counts
	different []difference
}

type counts struct{ all, equal, known, different int }

type difference struct {
	where string
	lines []string // those that are not known
}

// Unlisted returns those of the differences of one request or scenario that are not known.
func (r *Report) Unlisted(where string, lines []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unlisted(where, lines)
}

func (r *Report) unlisted(where string, lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return r.Known.has(where, line) })
}

// Add counts a request or scenario and its differences.
func (r *Report) Add(group, where string, lines []string) {
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
	c.all++
	if len(lines) == 0 {
		c.equal++
		return
	}
	unknown := r.unlisted(where, lines)
	if len(unknown) == 0 {
		c.known++
		return
	}
	c.different++
	r.different = append(r.different, difference{where: where, lines: unknown})
}

// Summary prints the counts, and returns whether nothing is unexpected.
func (r *Report) Summary(w io.Writer) bool {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "group\t"+r.Unit+"\tequal\tknown\tdifferent\tequal %\t")
	var total counts
	row := func(name string, c counts) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%.2f\t\n", name, c.all, c.equal, c.known, c.different, 100*float64(c.equal)/float64(max(c.all, 1)))
	}
	for _, name := range slices.Sorted(maps.Keys(r.groups)) {
		c := *r.groups[name]
		row(name, c)
		total.all += c.all
		total.equal += c.equal
		total.known += c.known
		total.different += c.different
	}
	row("total", total)
	t.Flush()
	gone := r.Known.gone()
	for _, k := range gone {
		fmt.Fprintf(w, "known, but gone: %q, difference %q: take it out of the list\n", k.Request+k.Scenario, k.Difference)
	}
	return total.different == 0 && len(gone) == 0
}

// Write writes all that is different into a file, sorted.
func (r *Report) Write(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	slices.SortFunc(r.different, func(a, b difference) int { return strings.Compare(a.where, b.where) })
	for _, d := range r.different {
		fmt.Fprintln(w, d.where)
		for _, line := range d.lines {
			fmt.Fprintln(w, "\t"+line)
		}
	}
	return w.Flush()
}
