package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
)

// exercises are, for each component, the tests that its work decides.
var exercises = []struct {
	component string
	tests     *regexp.Regexp
}{
	{"kube-apiserver", regexp.MustCompile(`^\[sig-(api-machinery|auth|cli|instrumentation|architecture)\]`)},
	{"kube-controller-manager", regexp.MustCompile(`^\[sig-apps\]|Garbage collector|Namespaces|ServiceAccounts|EndpointSlice|EndpointsController`)},
	{"kube-scheduler", regexp.MustCompile(`^\[sig-scheduling\]|RuntimeClass|InitContainer|Daemon set|ReplicaSet|ReplicationController|Deployment|Job`)},
	{"kubelet", regexp.MustCompile(`^\[sig-(node|storage)\]`)},
	{"kube-proxy", regexp.MustCompile(`^\[sig-network\] (Services|Networking|DNS|HostPort|Service endpoints|EndpointSlice|Endpoints|Proxy|API Server)`)},
}

// The clusters of the swap matrix: the others are Leme's, or the originals.
const (
	inLeme      = "Leme"
	inOriginals = "originals"
)

// A cell is one component of the one kind in a cluster of the other.
type cell struct {
	component, cluster string
	tests              []string
	results            map[string]result
}

func (c *cell) passed() int {
	n := 0
	for _, r := range c.results {
		if r.State == passed {
			n++
		}
	}
	return n
}

// some picks n of the tests that pass otherwise and exercise a component, evenly spread.
func some(specs []spec, passing map[string]bool, tests *regexp.Regexp, n int) []string {
	var all []string
	for _, s := range specs {
		if passing[s.name] && !s.serial && tests.MatchString(s.name) {
			all = append(all, s.name)
		}
	}
	if len(all) <= n {
		return all
	}
	picked := make([]string, n)
	for i := range picked {
		picked[i] = all[i*len(all)/n]
	}
	return picked
}

// swap runs the matrix: each component of Leme in a cluster of originals, and each
// original in a cluster of Leme, changed while the cluster runs.
func swap(ctx context.Context, o options) (err error) {
	for _, e := range exercises {
		if _, err := os.Stat(filepath.Join(o.originals, e.component)); err != nil {
			return fmt.Errorf("%w: `make originals` builds it", err)
		}
	}
	specs, err := o.suite.specs(ctx)
	if err != nil {
		return err
	}
	passing, _, err := o.lists.load(specs)
	if err != nil {
		return err
	}
	if err := o.suite.checkImages(ctx, o.cluster.images); err != nil {
		return err
	}
	store, err := openStore(o.out, false)
	if err != nil {
		return err
	}
	var cells []*cell
	for _, host := range []string{inLeme, inOriginals} {
		var row []*cell
		for _, e := range exercises {
			row = append(row, &cell{component: e.component, cluster: host, tests: some(specs, passing, e.tests, o.perCell)})
		}
		cells = append(cells, row...)
		if err := swapRow(ctx, o, row); err != nil {
			return err
		}
	}
	short := matrix(os.Stdout, cells)
	fmt.Printf("\nLogs are in %s.\n", store.dir)
	if short {
		return errors.New("a component that was swapped in fails tests")
	}
	return nil
}

// swapRow starts a cluster, swaps one component after the other, each back after its tests.
func swapRow(ctx context.Context, o options, row []*cell) (err error) {
	c := o.cluster
	original := func(component string) string { return component + "=" + filepath.Join(o.originals, component) }
	if row[0].cluster == inOriginals {
		for _, cell := range row {
			c.with = append(c.with, original(cell.component))
		}
	}
	defer func() { err = errors.Join(err, c.down(context.WithoutCancel(ctx))) }()
	if err := c.up(ctx); err != nil {
		return err
	}
	for _, cell := range row {
		in, out := original(cell.component), cell.component+"=leme"
		if cell.cluster == inOriginals {
			in, out = out, in
		}
		if err := c.run(ctx, "swap", in); err != nil {
			return err
		}
		st := stage{name: fmt.Sprintf("%s-in-%s", cell.component, cell.cluster), specs: cell.tests}
		progress := newProgress(os.Stdout, term.IsTerminal(int(os.Stdout.Fd())), time.Now(), len(cell.tests))
		cell.results, _, err = o.suite.run(ctx, st, c, o.out, o.timeout, progress)
		progress.end()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err := c.run(ctx, "swap", out); err != nil {
			return err
		}
	}
	return nil
}

// matrix writes the table and what has not passed, and reports whether there is any.
func matrix(w io.Writer, cells []*cell) (short bool) {
	fmt.Fprintln(w)
	byKey := map[string]*cell{}
	for _, c := range cells {
		byKey[c.component+c.cluster] = c
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "passed of run\tthe original in a cluster of Leme\tLeme's in a cluster of originals")
	entry := func(c *cell) string {
		if c == nil {
			return "-"
		}
		return fmt.Sprintf("%d of %d", c.passed(), len(c.tests))
	}
	for _, e := range exercises {
		fmt.Fprintf(t, "%s\t%s\t%s\n", e.component, entry(byKey[e.component+inLeme]), entry(byKey[e.component+inOriginals]))
	}
	_ = t.Flush() // like the summary: for a person
	for _, c := range cells {
		for _, name := range c.tests {
			if r := c.results[name]; r.State != passed {
				if !short {
					fmt.Fprintln(w, "\nNot passed:")
				}
				short = true
				fmt.Fprintf(w, "  %s, cluster of %s: %s\n      %s: %s\n", c.component, c.cluster, name, r.State, r.Message)
			}
		}
	}
	return short
}
