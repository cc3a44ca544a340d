package plan

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Write writes a page for a person to read.
func (p *Plan) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s\n", p.summary())
	p.writePlaced(w)
	p.writePending(w)
	return w.Flush()
}

func (p *Plan) summary() string {
	var placed, victims int
	for i := range p.Pods {
		if p.Pods[i].Node != "" {
			placed++
		}
		victims += len(p.Pods[i].Preempted)
	}
	s := fmt.Sprintf("%d of %s would be placed on %s", placed, count(len(p.Pods), "pod"), count(p.Nodes, "node"))
	if victims > 0 {
		s += fmt.Sprintf(", and %s preempted", count(victims, "pod"))
	}
	return s + ". Nothing has been written."
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p *Plan) writePlaced(w io.Writer) {
	head := "\nPOD\tNODE\tPREEMPTED"
	for _, pod := range p.Pods {
		if pod.Node == "" {
			continue
		}
		if head != "" {
			fmt.Fprintln(w, head)
			head = ""
		}
		note := strings.Join(pod.Preempted, ", ")
		if pod.Message != "" {
			note = pod.Message
		}
		fmt.Fprintf(w, "%s/%s\t%s\t%s\n", pod.Namespace, pod.Name, pod.Node, note)
	}
}

// writePending shows the pods that would stay pending, those together that would for
// the same reason, with what was found out about the first of them.
func (p *Plan) writePending(w io.Writer) {
	like := map[string][]string{}
	for i := range p.Pods {
		if pod := &p.Pods[i]; pod.Node == "" {
			like[pod.Message] = append(like[pod.Message], pod.Namespace+"/"+pod.Name)
		}
	}
	for i := range p.Pods {
		pod := &p.Pods[i]
		names := like[pod.Message]
		if pod.Node != "" || len(names) == 0 {
			continue
		}
		delete(like, pod.Message)
		fmt.Fprintf(w, "\nPending: %s\n  %s\n", strings.Join(names, ", "), pod.Message)
		if pod.Attempt != nil {
			pod.Attempt.WriteFindings(w)
		}
	}
}
