// Package explain keeps what the scheduler found out about pods: why a pod is pending,
// or why it is where it is. It is a small, bounded memory of the last attempts, served
// at an endpoint of the scheduler and shown by `leme why`.
package explain

import (
	"container/list"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// Path is where the explanations are served, followed by NAMESPACE/NAME.
const Path = "/debug/why/"

// What is kept: the last attempts of so many pods, and of each attempt the best nodes.
const (
	maxPods     = 2048
	maxAttempts = 3
	maxScores   = 5
)

// MaxRefusals is how many refused nodes of an attempt that found another one are looked
// at: explaining it must not cost more than the attempt.
const MaxRefusals = 128

// Pod is what is known of a pod.
type Pod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	// Queue says where in the scheduling queue the pod is, if it is.
	Queue string `json:"queue,omitempty"`
	// Attempts are the last ones, the newest first.
	Attempts []Attempt `json:"attempts"`
}

// Attempt is one try at placing a pod.
type Attempt struct {
	Number int       `json:"number"`
	Time   time.Time `json:"time"`
	// Took is the time from the queue to the decision.
	Took time.Duration `json:"tookNanoseconds"`
	// Node is the one that was chosen; empty if none was.
	Node string `json:"node,omitempty"`
	// Message says why none was.
	Message string `json:"message,omitempty"`
	// Nodes are all there were, Evaluated those that were looked at, Feasible those that fit.
	Nodes     int `json:"nodes"`
	Evaluated int `json:"evaluated"`
	Feasible  int `json:"feasible"`

	Refusals   []Refusal   `json:"refusals,omitempty"`
	Scores     []Score     `json:"scores,omitempty"`
	Preemption *Preemption `json:"preemption,omitempty"`
	// Group is the attempt at the pod group of which this one was a part.
	Group *Group `json:"podGroup,omitempty"`
}

// Group is one try at placing the pods of a group together.
type Group struct {
	// Name is that of the PodGroup.
	Name string `json:"name"`
	// Tried are the pods that waited for a node, Scheduled those that had one already, and
	// Placed those of the former that would get one.
	Tried     int `json:"tried"`
	Scheduled int `json:"scheduled"`
	Placed    int `json:"placed"`
	// Message says why none gets one.
	Message string `json:"message,omitempty"`
	// Placements are those that were tried, some of them if there were many.
	Placements []Placement `json:"placements,omitempty"`
	Preemption *Preemption `json:"preemption,omitempty"`
}

// Placement is a part of the cluster on which a group was tried.
type Placement struct {
	Name   string `json:"name"`
	Nodes  int    `json:"nodes"`
	Placed int    `json:"placed"`
	Score  int64  `json:"score,omitempty"`
	// Message says why the group cannot be there.
	Message string `json:"message,omitempty"`
	Chosen  bool   `json:"chosen,omitempty"`
}

// Refusal is a reason for which a plugin refused nodes.
type Refusal = framework.Refusal

// Score is what the plugins thought of a node, times their weights.
type Score struct {
	Node    string           `json:"node"`
	Total   int64            `json:"total"`
	Plugins map[string]int64 `json:"plugins"`
}

// PreemptionKey is where a plugin leaves what preemption considered.
const PreemptionKey = fwk.StateKey("Explain/Preemption")

// Preemption is what preemption considered.
type Preemption struct {
	Chosen     string      `json:"chosen,omitempty"`
	Message    string      `json:"message,omitempty"`
	Candidates []Candidate `json:"candidates,omitempty"`
}

// Candidate is a node and the pods that would have to go from it.
type Candidate struct {
	Node       string   `json:"node"`
	Victims    []string `json:"victims"`
	Violations int      `json:"budgetViolations,omitempty"`
}

// Clone returns the same: it does not change.
func (p *Preemption) Clone() fwk.StateData { return p }

// Scores returns the best nodes, the best first.
func Scores(all []fwk.NodePluginScores) []Score {
	best := make([]int, 0, maxScores+1)
	for i := range all {
		at := len(best)
		for at > 0 && all[best[at-1]].TotalScore < all[i].TotalScore {
			at--
		}
		if at < maxScores {
			best = slices.Insert(best, at, i)
			best = best[:min(len(best), maxScores)]
		}
	}
	out := make([]Score, 0, len(best))
	for _, i := range best {
		s := Score{Node: all[i].Name, Total: all[i].TotalScore, Plugins: map[string]int64{}}
		for _, p := range all[i].Scores {
			s.Plugins[p.Name] = p.Score
		}
		out = append(out, s)
	}
	return out
}

// Book is the memory. It is safe for concurrent use.
type Book struct {
	mu    sync.Mutex
	pods  map[types.UID]*list.Element
	order *list.List // of *Pod, the one that was tried last first
}

// NewBook returns an empty one.
func NewBook() *Book { return &Book{pods: map[types.UID]*list.Element{}, order: list.New()} }

// Add notes an attempt at a pod.
func (b *Book) Add(pod *v1.Pod, a Attempt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.pods[pod.UID]
	if !ok {
		e = b.order.PushFront(&Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID})
		b.pods[pod.UID] = e
		if len(b.pods) > maxPods {
			oldest := b.order.Back()
			delete(b.pods, b.order.Remove(oldest).(*Pod).UID)
		}
	}
	b.order.MoveToFront(e)
	p := e.Value.(*Pod)
	p.Attempts = slices.Insert(p.Attempts, 0, a)
	p.Attempts = p.Attempts[:min(len(p.Attempts), maxAttempts)]
}

// Get returns what is known of the pod of a name that was tried last.
func (b *Book) Get(namespace, name string) (Pod, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := b.order.Front(); e != nil; e = e.Next() {
		if p := e.Value.(*Pod); p.Namespace == namespace && p.Name == name {
			out := *p
			out.Attempts = slices.Clone(p.Attempts)
			return out, true
		}
	}
	return Pod{Namespace: namespace, Name: name}, false
}

// Handler serves the book. queue says where in the queue a pod is; empty if it is not.
func (b *Book) Handler(queue func(namespace, name string) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		namespace, name, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, Path), "/")
		if r.Method != http.MethodGet || !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
			http.Error(w, "want GET "+Path+"NAMESPACE/NAME", http.StatusBadRequest)
			return
		}
		p, known := b.Get(namespace, name)
		p.Queue = queue(namespace, name)
		if !known && p.Queue == "" {
			http.Error(w, "this scheduler has not tried to place a pod "+namespace+"/"+name+" lately", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(p) // the client is gone
	})
}
