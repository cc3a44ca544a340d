package framework

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
)

// A Diagnosis says why a pod fits on no node.
type Diagnosis struct {
	// refused are the nodes that were looked at and refused, each once, and byName the
	// same, made when it is asked for: most pods find a node, and nobody asks.
	refused []refused
	mu      sync.Mutex
	byName  map[string]*fwk.Status
	// Absent is the status of the nodes that were not looked at.
	Absent *fwk.Status

	UnschedulablePlugins sets.Set[string]
	PendingPlugins       sets.Set[string]
	PreFilterMsg         string
	PostFilterMsg        string
}

type refused struct {
	node   string
	info   fwk.NodeInfo // nil if only the name is known
	status *fwk.Status
}

var _ fwk.NodeToStatusReader = &Diagnosis{}

// NewDiagnosis returns a diagnosis that says nothing yet.
func NewDiagnosis() *Diagnosis {
	return &Diagnosis{
		Absent:               fwk.NewStatus(fwk.UnschedulableAndUnresolvable),
		UnschedulablePlugins: sets.New[string](),
		PendingPlugins:       sets.New[string](),
	}
}

// Refuse notes what was said of a node that was refused, and by whom.
func (d *Diagnosis) Refuse(node string, s *fwk.Status) { d.RefuseNode(node, nil, s) }

// RefuseNode is Refuse, of a node that is at hand.
func (d *Diagnosis) RefuseNode(node string, info fwk.NodeInfo, s *fwk.Status) {
	d.byName = nil
	if last := len(d.refused) - 1; last < 0 || !sameRejector(d.refused[last].status, s) { // many nodes are refused alike
		d.Reject(s)
	}
	d.refused = append(d.refused, refused{node, info, s})
}

// Expect makes room for so many more nodes that are refused.
func (d *Diagnosis) Expect(nodes int) { d.refused = slices.Grow(d.refused, nodes) }

func sameRejector(a, b *fwk.Status) bool {
	return a == b || a.Plugin() == b.Plugin() && a.Code() == b.Code()
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
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byName == nil {
		d.byName = make(map[string]*fwk.Status, len(d.refused))
		for _, r := range d.refused {
			d.byName[r.node] = r.status
		}
	}
	if s, ok := d.byName[node]; ok {
		return s
	}
	return d.Absent
}

// NodesForStatusCode returns the nodes of which code was said.
func (d *Diagnosis) NodesForStatusCode(lister fwk.NodeInfoLister, code fwk.Code) ([]fwk.NodeInfo, error) {
	var out []fwk.NodeInfo
	if d.Absent.Code() != code { // as almost always: only those that were looked at count
		for _, r := range d.refused {
			if r.status.Code() != code {
				continue
			}
			info := r.info
			if info == nil {
				var err error
				if info, err = lister.Get(r.node); err != nil {
					return nil, err
				}
			}
			out = append(out, info)
		}
		return out, nil
	}
	all, err := lister.List()
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if d.Get(n.Node().Name).Code() == code {
			out = append(out, n)
		}
	}
	return out, nil
}

// Refusal is a reason for which a plugin refused nodes.
type Refusal struct {
	Plugin string `json:"plugin"`
	Reason string `json:"reason"`
	Count  int    `json:"count"`
	// Nodes are some of them.
	Nodes []string `json:"nodes,omitempty"`
	// Evictable says that it could help if other pods went.
	Evictable bool `json:"evictable"`
}

// maxNodes is how many nodes a Refusal names.
const maxNodes = 5

// Refusals sums up why nodes were refused, the most frequent reason first. absent is how
// many nodes were not even looked at. No more than most of the others are counted.
func (d *Diagnosis) Refusals(absent, most int) []Refusal {
	type key struct{ plugin, reason string }
	found := map[key]*Refusal{}
	var last []*Refusal // of the node before, which was most often refused for the same reasons
	add := func(s *fwk.Status, count int, node string) {
		for i, reason := range s.Reasons() {
			if i == len(last) {
				last = append(last, nil)
			}
			r := last[i]
			if r == nil || r.Reason != reason || r.Plugin != s.Plugin() {
				k := key{s.Plugin(), reason}
				if r = found[k]; r == nil {
					r = &Refusal{Plugin: k.plugin, Reason: reason, Evictable: s.Code() == fwk.Unschedulable}
					found[k] = r
				}
				last[i] = r
			}
			r.Count += count
			if node != "" && len(r.Nodes) < maxNodes {
				r.Nodes = append(r.Nodes, node)
			}
		}
	}
	for _, r := range d.refused[:min(len(d.refused), most)] {
		add(r.status, 1, r.node)
	}
	if absent > 0 {
		add(d.Absent, absent, "")
	}
	out := make([]Refusal, 0, len(found))
	for _, r := range found {
		slices.Sort(r.Nodes)
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Refusal) int {
		return cmp.Or(-cmp.Compare(a.Count, b.Count), cmp.Compare(a.Plugin, b.Plugin), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// FitError says that a pod fits on no node, in the words that `kubectl describe pod` shows.
type FitError struct {
	Pod         *v1.Pod
	NumAllNodes int
	Diagnosis   *Diagnosis

	refusals []Refusal // summed up once: the message needs them, and who explains it
}

// Refusals sums up why nodes were refused.
func (e *FitError) Refusals() []Refusal {
	if e.refusals == nil {
		e.refusals = e.Diagnosis.Refusals(e.NumAllNodes-len(e.Diagnosis.refused), math.MaxInt)
	}
	return e.refusals
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
		for _, r := range e.Refusals() {
			counts[r.Reason] += r.Count
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
