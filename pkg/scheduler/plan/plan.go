// Package plan asks a scheduler where pods would go if they were made now, and shows
// the answer: `leme schedule`.
package plan

import (
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/leme-k8s/leme/pkg/scheduler/explain"
)

// Path is where a scheduler takes a Request (POST) and answers with a Plan.
const Path = "/debug/schedule"

// MaxPods is how many pods a request may have.
const MaxPods = 10_000

// Request is what is to be imagined.
type Request struct {
	// Pods are the pods, as the API server would have them after admission, in the order
	// in which they would be tried.
	Pods []v1.Pod `json:"pods"`
	// Objects exist as well: nodes, the claims of the pods, their owners. One that has
	// the name of an object that exists takes its place.
	Objects []runtime.RawExtension `json:"objects,omitempty"`
	// WithoutNodes are nodes that are gone, with the pods on them.
	WithoutNodes []string `json:"withoutNodes,omitempty"`
}

// Validate says what is wrong with a request.
func (r *Request) Validate() error {
	if len(r.Pods) == 0 {
		return errors.New("pods: there are none to place")
	}
	if len(r.Pods) > MaxPods {
		return fmt.Errorf("pods: %d are more than the %d that can be asked about at once", len(r.Pods), MaxPods)
	}
	for i := range r.Pods {
		if p := &r.Pods[i]; p.Namespace == "" || p.Name == "" {
			return fmt.Errorf("pods[%d].metadata: namespace and name must be given", i)
		}
	}
	return nil
}

// Plan is what would happen.
type Plan struct {
	// Nodes is how many there would be.
	Nodes int   `json:"nodes"`
	Pods  []Pod `json:"pods"`
}

// Pod is what would happen to one pod.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Node is where it would go; empty if it would stay pending.
	Node string `json:"node,omitempty"`
	// Preempted are the pods that would have to go from the node first.
	Preempted []string `json:"preempted,omitempty"`
	// Message says why it would stay pending, or why no scheduler would be asked.
	Message string `json:"message,omitempty"`
	// Attempt is what the scheduler found out, as in `leme why`. There is none for a pod
	// that is not tried.
	Attempt *explain.Attempt `json:"attempt,omitempty"`
}
