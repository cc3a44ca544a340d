package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	// heartbeatDeadline is how long a responder may say nothing before the next has its turn.
	heartbeatDeadline = 20 * time.Minute
	// skew is how far clocks may be apart.
	skew = 30 * time.Second
	// maxExpectedTime is how far ahead a responder may expect to be done.
	maxExpectedTime = 10 * 365 * 24 * time.Hour

	// ownPriorities are those below which responders are Kubernetes' own.
	ownPriorities = 1000
	// evictorPriority is that of the responder which calls the Eviction API.
	evictorPriority = 100
)

var (
	targetRespondersPath = statusPath.Child("targetResponders")
	respondersPath       = statusPath.Child("responders")
)

// progress is how far the responders of an Eviction have come. They have their turns one after
// another, those of the highest priority first, and none has a second one.
type progress struct {
	old, new []lifecyclev1alpha1.TargetResponder // in the order of their turns
	// active is the place of the one whose turn it was, -1 if it was nobody's.
	active int
	// over says that the pod is evicted, or the eviction failed.
	over bool
}

func newProgress(responders, old []lifecyclev1alpha1.TargetResponder, over bool) progress {
	p := progress{old: slices.SortedFunc(slices.Values(old), byTurn), new: slices.SortedFunc(slices.Values(responders), byTurn), over: over}
	p.active = slices.IndexFunc(p.old, func(r lifecyclev1alpha1.TargetResponder) bool {
		return r.State == lifecyclev1alpha1.ResponderStateActive
	})
	return p
}

// byTurn compares responders by priority. Of two with the same one, the one whose domain comes first has its turn first, the
// domains being read from their ends: "a.example.com" is compared as com, example, a.
func byTurn(a, b lifecyclev1alpha1.TargetResponder) int {
	const last = -1
	if c := cmp.Compare(ptr.Deref(b.Priority, last), ptr.Deref(a.Priority, last)); c != 0 {
		return c
	}
	domain := func(name string) ([]string, string) {
		domain, key, _ := strings.Cut(name, "/")
		labels := strings.Split(domain, ".")
		slices.Reverse(labels)
		return labels, key
	}
	aDomain, aKey := domain(a.Name)
	bDomain, bKey := domain(b.Name)
	return cmp.Or(slices.Compare(aDomain, bDomain), strings.Compare(aKey, bKey))
}

// ends are the states of who has had its turn.
var ends = []lifecyclev1alpha1.ResponderStateType{
	lifecyclev1alpha1.ResponderStateCanceled, lifecyclev1alpha1.ResponderStateCompleted, lifecyclev1alpha1.ResponderStateInterrupted,
}

// expected says in which states the responder at a place may now be, and why.
func (p progress) expected(i int) (states []lifecyclev1alpha1.ResponderStateType, why string) {
	one := func(s lifecyclev1alpha1.ResponderStateType, why string) ([]lifecyclev1alpha1.ResponderStateType, string) {
		return []lifecyclev1alpha1.ResponderStateType{s}, why
	}
	const finished = "the eviction request has finished processing"
	moved := p.active >= 0 && p.new[p.active].State != lifecyclev1alpha1.ResponderStateActive
	started := len(p.old) > 0
	allEnded := started && slices.Contains(ends, p.old[len(p.old)-1].State)
	switch {
	case i < p.active, started && p.active < 0 && (p.over || allEnded):
		return one(p.old[i].State, "final state is immutable")
	case i == p.active && moved:
		return ends, "this responder must reach a final state"
	case i == p.active && p.over:
		return ends, finished
	case i == p.active:
		return one(lifecyclev1alpha1.ResponderStateActive, "the eviction request stays active")
	case i == 0 && !started, i == p.active+1 && moved:
		if p.over {
			return one(lifecyclev1alpha1.ResponderStateInactive, finished)
		}
		return one(lifecyclev1alpha1.ResponderStateActive, "this responder is next in line")
	}
	return one(lifecyclev1alpha1.ResponderStateInactive, "the previously active has not finished processing")
}

// validateTargetResponders checks whose turn it is after an update.
func validateTargetResponders(s, old *lifecyclev1alpha1.EvictionStatus, over bool, now time.Time) field.ErrorList {
	responders, p := s.TargetResponders, targetRespondersPath
	if n := len(old.TargetResponders); n > 0 {
		if len(responders) != n {
			return field.ErrorList{field.Invalid(p, responders, "must preserve the same length and the same keys")}
		}
		if !hasAll(names(responders, targetResponderName), names(old.TargetResponders, targetResponderName)) {
			return field.ErrorList{field.Invalid(p, responders, "must preserve the same keys")}
		}
	}
	places := map[string]int{}
	for i, r := range responders {
		places[r.Name] = i
	}
	if len(responders) > maxResponders || len(places) < len(responders) {
		return nil // the rules of the list refuse it
	}
	statuses := map[string]*lifecyclev1alpha1.ResponderStatus{}
	for i := range s.Responders {
		statuses[s.Responders[i].Name] = &s.Responders[i]
	}
	var errs field.ErrorList
	turns := newProgress(responders, old.TargetResponders, over)
	for i, r := range turns.new {
		at := p.Index(places[r.Name])
		status := statuses[r.Name]
		if status == nil {
			errs = append(errs, field.Invalid(at, r, fmt.Sprintf("%q has to be tracked in %s first", r.Name, respondersPath)))
			continue
		}
		errs = append(errs, validatePriority(r, at.Child("priority"))...)
		states, why := turns.expected(i)
		if !slices.Contains(states, r.State) {
			errs = append(errs, field.Invalid(at.Child("state"), r.State, fmt.Sprintf("must be one of: %s, because %s", join(states), why)))
			continue
		}
		errs = append(errs, validateState(r.State, status, over, at.Child("state"), now)...)
	}
	return errs
}

func names[T any](items []T, name func(*T) string) []string {
	var all []string
	for i := range items {
		all = append(all, name(&items[i]))
	}
	return all
}

func hasAll(set, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(name string) bool { return !slices.Contains(set, name) })
}

func join(states []lifecyclev1alpha1.ResponderStateType) string {
	var all []string
	for _, s := range states {
		all = append(all, string(s))
	}
	return strings.Join(all, ", ")
}

// validatePriority keeps the lowest priorities for Kubernetes' own responders.
func validatePriority(r lifecyclev1alpha1.TargetResponder, p *field.Path) field.ErrorList {
	switch priority := ptr.Deref(r.Priority, -1); {
	case priority < 0: // the rules of the type refuse it
	case r.Name == lifecyclev1alpha1.EvictionResponderImperativeEviction:
		if priority != evictorPriority {
			return field.ErrorList{field.Invalid(p, priority, fmt.Sprintf("core k8s responder is expected to have priority: %d", evictorPriority))}
		}
	case priority < ownPriorities:
		return field.ErrorList{field.Invalid(p, priority, "priorities 0-999 are reserved for responders with *.k8s.io suffix")}
	}
	return nil
}

// validateState compares the state of a responder with what it reports.
func validateState(state lifecyclev1alpha1.ResponderStateType, status *lifecyclev1alpha1.ResponderStatus, over bool, p *field.Path, now time.Time) field.ErrorList {
	if status.CompletionTime != nil {
		return nil
	}
	var errs field.ErrorList
	completion := respondersPath.Child("completionTime")
	if state != lifecyclev1alpha1.ResponderStateActive && status.StartTime != nil && !over {
		heard := cmp.Or(status.HeartbeatTime, status.StartTime)
		if now.Before(heard.Add(heartbeatDeadline - skew)) {
			errs = append(errs, field.Forbidden(p, fmt.Sprintf("must stay Active because the responder is in progress and it should report %s or %s", respondersPath.Child("heartbeatTime"), completion)))
		}
	}
	if state == lifecyclev1alpha1.ResponderStateCompleted {
		errs = append(errs, field.Invalid(p, state, fmt.Sprintf("cannot become Completed because the responder didn't report %s", completion)))
	}
	return errs
}

// validateResponderStatuses checks what responders report.
func validateResponderStatuses(s, old *lifecyclev1alpha1.EvictionStatus, now time.Time) field.ErrorList {
	statuses, p := s.Responders, respondersPath
	if len(statuses) != len(s.TargetResponders) {
		return field.ErrorList{field.Invalid(p, statuses, "must be the same length as status.targetResponders and contain the same keys")}
	}
	all := names(statuses, responderName)
	if !hasAll(all, names(s.TargetResponders, targetResponderName)) {
		return field.ErrorList{field.Invalid(p, statuses, "must contain the same keys as status.targetResponders")}
	}
	slices.Sort(all)
	if len(statuses) > maxResponders || len(slices.Compact(all)) < len(statuses) {
		return nil // the rules of the list refuse it
	}
	states := map[string]lifecyclev1alpha1.ResponderStateType{}
	for _, r := range s.TargetResponders {
		states[r.Name] = r.State
	}
	before := map[string]*lifecyclev1alpha1.ResponderStatus{}
	for i := range old.Responders {
		before[old.Responders[i].Name] = &old.Responders[i]
	}
	var errs field.ErrorList
	for i := range statuses {
		r := &statuses[i]
		errs = append(errs, validateReport(r, before[r.Name], states[r.Name] == lifecyclev1alpha1.ResponderStateActive, p.Index(i), now)...)
	}
	return errs
}

// validateReport checks what one responder reports. Only the active one does.
func validateReport(r, old *lifecyclev1alpha1.ResponderStatus, active bool, p *field.Path, now time.Time) field.ErrorList {
	if old == nil {
		old = &lifecyclev1alpha1.ResponderStatus{}
	} else if !active && !equality.Semantic.DeepEqual(r, old) {
		return field.ErrorList{field.Invalid(p, r, apivalidation.FieldImmutableErrorMsg)}
	}
	var errs field.ErrorList
	start := p.Child("startTime")
	switch {
	case old.StartTime != nil && !old.StartTime.Equal(r.StartTime): // the rules of the type refuse it
	case r.StartTime == nil && active:
		errs = append(errs, field.Required(start, "is required for an active responder"))
	case r.StartTime != nil && old.StartTime == nil && !near(r.StartTime, now):
		errs = append(errs, field.Invalid(start, r.StartTime, presentTime))
	}
	// first says what is wrong with a time first of all.
	first := func(name string, t *metav1.Time, faults ...fault) {
		if i := slices.IndexFunc(faults, func(f fault) bool { return f.is }); i >= 0 {
			errs = append(errs, field.Invalid(p.Child(name), t, faults[i].why))
		}
	}
	unset := fault{r.StartTime == nil, fmt.Sprintf("cannot be set before %s is set", start)}
	early := func(t *metav1.Time) fault {
		return fault{t.Before(r.StartTime), fmt.Sprintf("must occur after %s", start)}
	}
	if t := r.HeartbeatTime; t == nil && old.HeartbeatTime != nil {
		errs = append(errs, field.Required(p.Child("heartbeatTime"), "is required once set"))
	} else if t != nil && !t.Equal(old.HeartbeatTime) {
		first("heartbeatTime", t, unset, fault{t.Before(old.HeartbeatTime), "cannot be decreased"}, early(t), fault{!near(t, now), presentTime})
	}
	if t := r.ExpectedCompletionTime; t != nil && !t.Equal(old.ExpectedCompletionTime) {
		first("expectedCompletionTime", t, unset, early(t),
			fault{t.Time.Before(now.Add(-skew)), "cannot be set to the past time"}, fault{t.After(now.Add(maxExpectedTime)), "must complete within 10 years"})
	}
	if t := r.CompletionTime; t != nil && (old.CompletionTime == nil || old.CompletionTime.Equal(t)) {
		first("completionTime", t, unset, early(t), fault{old.CompletionTime == nil && !near(t, now), presentTime})
	}
	return errs
}

// fault is something that is wrong with a value, if it is.
type fault struct {
	is  bool
	why string
}

const presentTime = "must be set to the present time"

// near tells whether a time is now, as far as clocks agree.
func near(t *metav1.Time, now time.Time) bool { return t.Sub(now).Abs() < skew }
