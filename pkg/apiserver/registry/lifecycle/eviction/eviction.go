// Package eviction serves lifecycle.k8s.io/v1alpha1 Eviction. The subresource of pods of that name is
// another kind.
package eviction

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/leme-k8s/leme/pkg/api/lifecycle"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/generic"
	"github.com/leme-k8s/leme/pkg/apiserver/registry/lifecycle/internal/cells"
)

// Storage returns the storage of evictions and evictions/status.
var Storage = generic.StorageOf(resource)

var (
	specDoc      = lifecyclev1alpha1.EvictionSpec{}.SwaggerDoc()
	statusDoc    = lifecyclev1alpha1.EvictionStatus{}.SwaggerDoc()
	responderDoc = lifecyclev1alpha1.ResponderStatus{}.SwaggerDoc()
)

var resource = generic.Resource[*lifecyclev1alpha1.Eviction]{
	GroupVersion: lifecyclev1alpha1.SchemeGroupVersion,
	Name:         "evictions",

	Status: &generic.Update[*lifecyclev1alpha1.Eviction]{
		KeepsMetadata: true,
		Validate: func(_ context.Context, e, old *lifecyclev1alpha1.Eviction) field.ErrorList {
			return lifecycle.ValidateEvictionStatusUpdate(e, old, time.Now())
		},
	},
	RequireResourceVersion: true,
	Generation:             generic.SpecChanged[*lifecyclev1alpha1.Eviction],
	Validate:               generic.Check(lifecycle.ValidateEviction),
	ValidateUpdate:         generic.CheckUpdate(lifecycle.ValidateEvictionUpdate),

	Columns: []metav1.TableColumnDefinition{
		generic.NameColumn,
		generic.Column("Target", "string", specDoc["target"]),
		generic.Column("Target Type", "string", specDoc["target"]),
		generic.Column("Status", "string", statusDoc["conditions"]),
		generic.Column("Active Responder", "string", lifecyclev1alpha1.TargetResponder{}.SwaggerDoc()["state"]),
		generic.Column("Responder Status", "string", responderDoc[""]),
		generic.Column("Responder Expected Finish", "string", responderDoc["expectedCompletionTime"]),
		generic.Column("Requesters", "string", statusDoc["requesters"]),
		generic.AgeColumn,
		generic.WideColumn("Responder Heartbeat", "string", responderDoc["heartbeatTime"]),
		generic.WideColumn("Responder Status Message", "string", responderDoc["message"]),
	},
	Cells: func(e *lifecyclev1alpha1.Eviction) []any {
		target, kind := cells.Target(e.Spec.Target.Pod)
		r := newReport(&e.Status, time.Now())
		return []any{
			e.Name, target, kind, cells.State(e.Status.ObservedGeneration, e.Status.Conditions),
			r.responder, r.status, r.finish, requesters(e.Status.Requesters), generic.Age(e.CreationTimestamp), r.heartbeat, r.message,
		}
	},
}

// report is what the cells say of the responder whose turn it is, or was last.
type report struct {
	responder, status, finish, heartbeat, message string
}

func newReport(s *lifecyclev1alpha1.EvictionStatus, now time.Time) report {
	var current *lifecyclev1alpha1.TargetResponder
	turns := 0 // that have come
	for i := range s.TargetResponders {
		r := &s.TargetResponders[i]
		if r.State == lifecyclev1alpha1.ResponderStateInactive {
			continue
		}
		turns++
		if current == nil || current.State != lifecyclev1alpha1.ResponderStateActive {
			current = r
		}
	}
	out := report{status: "<unset>", finish: "<unknown>", heartbeat: "<unset>", message: "<unset>"}
	name := "<unset>"
	if current != nil {
		name = current.Name
	}
	out.responder = fmt.Sprintf("%s (%d/%d)", name, turns, len(s.TargetResponders))
	i := slices.IndexFunc(s.Responders, func(r lifecyclev1alpha1.ResponderStatus) bool { return r.Name == name })
	if current == nil || i < 0 {
		return out
	}
	r := &s.Responders[i]
	out.status = string(current.State)
	switch {
	case current.State != lifecyclev1alpha1.ResponderStateActive:
		out.finish = "-"
		if current.State == lifecyclev1alpha1.ResponderStateCompleted && r.CompletionTime != nil {
			out.status = fmt.Sprintf("%s (%s)", current.State, ago(r.CompletionTime, now))
		}
	case r.StartTime != nil:
		out.status = fmt.Sprintf("Started (%s)", ago(r.StartTime, now))
		if t := r.ExpectedCompletionTime; t != nil && t.After(now) {
			out.finish = "in " + duration.HumanDuration(t.Sub(now))
		} else if t != nil {
			out.finish = ago(t, now)
		}
	}
	if r.HeartbeatTime != nil {
		out.heartbeat = ago(r.HeartbeatTime, now)
	}
	if m := strings.TrimSpace(ptr.Deref(r.Message, "")); m != "" {
		out.message = m
	}
	return out
}

func ago(t *metav1.Time, now time.Time) string {
	return duration.HumanDuration(now.Sub(t.Time)) + " ago"
}

// requesters prints who wants the eviction: the first by name, and how many others.
func requesters(all []lifecyclev1alpha1.Requester) string {
	var names []string
	for _, r := range all {
		if r.Intent != lifecyclev1alpha1.RequesterIntentWithdrawn {
			names = append(names, r.Name)
		}
	}
	switch {
	case len(all) == 0:
		return "<none>"
	case len(names) == 0:
		return "<withdrawn>"
	}
	first := slices.Min(names)
	if more := len(names) - 1; more > 0 {
		return fmt.Sprintf("%s + %d more...", first, more)
	}
	return first
}
