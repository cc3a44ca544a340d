package cluster

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// A Reporter shows what a command does: on a terminal as a list that grows with a
// line below for what is waited for, elsewhere as plain lines.
type Reporter struct {
	out      io.Writer
	terminal bool
	waiting  string
}

// NewReporter reports to a file, which may be a terminal.
func NewReporter(f *os.File) *Reporter {
	return &Reporter{out: f, terminal: term.IsTerminal(int(f.Fd()))}
}

// Printf shows a line.
func (r *Reporter) Printf(format string, args ...any) {
	r.clear()
	fmt.Fprintf(r.out, format+"\n", args...)
}

// Step shows that a step is done.
func (r *Reporter) Step(name string, took time.Duration) {
	mark := ""
	if r.terminal {
		mark = "✓ "
	}
	r.Printf("%s%-14s %6.2f s", mark, name, took.Seconds())
}

// Waiting shows on a terminal what a start waits for.
func (r *Reporter) Waiting(s *Status) {
	if !r.terminal {
		return
	}
	var names []string
	for _, step := range s.Steps {
		if !step.Done {
			names = append(names, step.Name)
		}
	}
	text := strings.Join(names, ", ")
	if text == r.waiting {
		return
	}
	r.clear()
	if text != "" {
		fmt.Fprintf(r.out, "· %s …", text)
	}
	r.waiting = text
}

// Done ends the line of what is waited for.
func (r *Reporter) Done() { r.clear() }

func (r *Reporter) clear() {
	if r.waiting != "" {
		fmt.Fprint(r.out, "\r\x1b[K")
		r.waiting = ""
	}
}
