package framework

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
)

// A Diagnosis says why a pod fits on no node.
type Diagnosis struct {
	// ByNode has the status of the nodes that were looked at and refused.
	ByNode map[string]*fwk.Status
	// Absent is the status of the nodes that were not looked at.
	Absent *fwk.Status

	UnschedulablePlugins sets.Set[string]
	PendingPlugins       sets.Set[string]
	PreFilterMsg         string
	PostFilterMsg        string
}

var _ fwk.NodeToStatusReader = &Diagnosis{}

// NewDiagnosis returns a diagnosis that says nothing yet.
func NewDiagnosis() *Diagnosis {
	return &Diagnosis{
		ByNode:               map[string]*fwk.Status{},
		Absent:               fwk.NewStatus(fwk.UnschedulableAndUnresolvable),
		UnschedulablePlugins: sets.New[string](),
		PendingPlugins:       sets.New[string](),
	}
}

// Reject notes which plugin said no.
func (d *Diagnosis) Reject(s *fwk.Status) {
	switch {
	case s.Plugin() == "":
	case s.Code() == fwk.Pending:
		d.PendingPlugins.Insert(s.Plugin())
	default:
		d.UnschedulablePlugins.Insert(s.Plugin())
	}
}

// Get returns what was said of a node.
func (d *Diagnosis) Get(node string) *fwk.Status {
	if s, ok := d.ByNode[node]; ok {
		return s
	}
	return d.Absent
}

// NodesForStatusCode returns the nodes of which code was said.
func (d *Diagnosis) NodesForStatusCode(lister fwk.NodeInfoLister, code fwk.Code) ([]fwk.NodeInfo, error) {
	all, err := lister.List()
	if err != nil {
		return nil, err
	}
	var out []fwk.NodeInfo
	for _, n := range all {
		if d.Get(n.Node().Name).Code() == code {
			out = append(out, n)
		}
	}
	return out, nil
}

// FitError says that a pod fits on no node, in the words that `kubectl describe pod` shows.
type FitError struct {
	Pod         *v1.Pod
	NumAllNodes int
	Diagnosis   *Diagnosis
}

// Error counts the reasons: "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable."
func (e *FitError) Error() string {
	if e.NumAllNodes == 0 {
		return "no nodes available to schedule pods"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "0/%d nodes are available:", e.NumAllNodes)
	if e.Diagnosis.PreFilterMsg != "" {
		fmt.Fprintf(&b, " %s.", e.Diagnosis.PreFilterMsg)
	} else {
		counts := map[string]int{}
		for _, s := range e.Diagnosis.ByNode {
			for _, reason := range s.Reasons() {
				counts[reason]++
			}
		}
		if rest := e.NumAllNodes - len(e.Diagnosis.ByNode); rest > 0 {
			for _, reason := range e.Diagnosis.Absent.Reasons() {
				counts[reason] += rest
			}
		}
		lines := make([]string, 0, len(counts))
		for reason, n := range counts {
			lines = append(lines, fmt.Sprintf("%d %s", n, reason))
		}
		slices.Sort(lines)
		if len(lines) > 0 {
			fmt.Fprintf(&b, " %s.", strings.Join(lines, ", "))
		}
	}
	if e.Diagnosis.PostFilterMsg != "" {
		fmt.Fprintf(&b, " %s", e.Diagnosis.PostFilterMsg)
	}
	return b.String()
}
