package lifecycle

import (
	"slices"
	"strings"
	"testing"
	"time"

	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const uid = "00000000-0000-4000-8000-000000000000"

// expect wants the errors to be one of each text, and no other.
func expect(t *testing.T, name string, errs field.ErrorList, want ...string) {
	t.Helper()
	var got []string
	for _, err := range errs {
		got = append(got, err.Error())
	}
	if len(got) != len(want) || slices.ContainsFunc(want, func(w string) bool {
		return !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, w) })
	}) {
		t.Errorf("%s:\ngot  %s\nwant %s", name, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func request(change func(*lifecyclev1alpha1.EvictionRequest)) *lifecyclev1alpha1.EvictionRequest {
	r := &lifecyclev1alpha1.EvictionRequest{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", ResourceVersion: "1"}}
	r.Spec = lifecyclev1alpha1.EvictionRequestSpec{
		Target:    lifecyclev1alpha1.EvictionRequestTarget{Pod: &lifecyclev1alpha1.EvictionRequestPodReference{Name: "p", UID: uid}},
		Requester: "example.com/drainer", Intent: lifecyclev1alpha1.EvictionRequestIntentEviction,
	}
	change(r)
	return r
}

func TestEvictionRequest(t *testing.T) {
	type change = func(*lifecyclev1alpha1.EvictionRequest)
	valid := request(func(*lifecyclev1alpha1.EvictionRequest) {})
	for name, tc := range map[string]struct {
		change         change
		create, update []string
	}{
		"nothing":      {change: func(*lifecyclev1alpha1.EvictionRequest) {}},
		"a withdrawal": {change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Spec.Intent = "Withdrawn" }},
		"no intent": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Spec.Intent = "" },
			create: []string{"spec.intent: Required"}, update: []string{"spec.intent: Required"},
		},
		"another intent": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Spec.Intent = "Perhaps" },
			create: []string{`spec.intent: Unsupported value: "Perhaps": supported values: "Eviction", "Withdrawn"`}, update: []string{"spec.intent: Unsupported"},
		},
		"no target": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Spec.Target.Pod = nil },
			create: []string{`spec.target: Invalid value: "": must specify one of: ` + "`pod`"}, update: []string{"spec.target: Invalid value: null: field is immutable"},
		},
		"no pod": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) {
				r.Spec.Target.Pod = &lifecyclev1alpha1.EvictionRequestPodReference{}
			},
			create: []string{"spec.target.pod.name: Required", "spec.target.pod.uid: Required"}, update: []string{"spec.target: Invalid"},
		},
		"no requester": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Spec.Requester = "" },
			create: []string{"spec.requester: Required"}, update: []string{"spec.requester: Required", "spec.requester: Invalid value: null: field is immutable"},
		},
		"a requester without a domain": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Spec.Requester = "drainer" },
			create: []string{"spec.requester: Invalid"}, update: []string{"field is immutable"},
		},
		"a reserved requester": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Spec.Requester = "a.k8s.io/b" },
			create: []string{"domain names *.k8s.io, *.kubernetes.io are reserved"}, update: []string{"field is immutable"},
		},
		"no name": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Name = "" },
			create: []string{"metadata.name: Required", "metadata.name: Invalid"}, update: []string{"metadata.name: Invalid"},
		},
		"a bad name": {
			change: func(r *lifecyclev1alpha1.EvictionRequest) { r.Name = "A" },
			create: []string{"metadata.name: Invalid"}, update: []string{"metadata.name: Invalid"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, "creation", ValidateEvictionRequest(request(tc.change)), tc.create...)
			expect(t, "update", ValidateEvictionRequestUpdate(request(tc.change), valid), tc.update...)
		})
	}
	observed := func(n *int64) *lifecyclev1alpha1.EvictionRequest {
		return request(func(r *lifecyclev1alpha1.EvictionRequest) { r.Status.ObservedGeneration = n })
	}
	expect(t, "a later generation", ValidateEvictionRequestStatusUpdate(observed(new(int64(3))), observed(new(int64(2)))))
	expect(t, "an earlier one", ValidateEvictionRequestStatusUpdate(observed(new(int64(2))), observed(new(int64(3)))), "status.observedGeneration: Invalid")
	expect(t, "none any more", ValidateEvictionRequestStatusUpdate(observed(nil), observed(new(int64(3)))), "cannot be cleared once set")
	expect(t, "one that is none", ValidateEvictionRequestStatusUpdate(observed(new(int64(0))), observed(nil)), "must be greater than or equal to 1")
}

// TestEvictionStatus gives the responders their turns.
func TestEvictionStatus(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(d))) }
	const first, second, evictor = "example.com/a", "example.com/b", lifecyclev1alpha1.EvictionResponderImperativeEviction
	type status = lifecyclev1alpha1.EvictionStatus
	// eviction has the three responders in these states; who had a turn has started.
	eviction := func(states string, changes ...func(*status)) *lifecyclev1alpha1.Eviction {
		e := &lifecyclev1alpha1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "default", ResourceVersion: "1"}}
		e.Spec.Target.Pod = &lifecyclev1alpha1.EvictionPodReference{Name: "p", UID: uid}
		priorities := map[string]int32{first: 10_000, second: 10_000, evictor: 100}
		names := []string{evictor, second, first} // their turns are in the other order
		for i, state := range strings.Fields(states) {
			name := []string{first, second, evictor}[i]
			e.Status.TargetResponders = append(e.Status.TargetResponders, lifecyclev1alpha1.TargetResponder{
				Name: name, Priority: new(priorities[name]), State: lifecyclev1alpha1.ResponderStateType(state),
			})
			r := lifecyclev1alpha1.ResponderStatus{Name: name}
			if state != "Inactive" {
				r.StartTime = at(0)
			}
			if state == "Completed" {
				r.CompletionTime = at(0)
			}
			e.Status.Responders = append(e.Status.Responders, r)
		}
		slices.SortFunc(e.Status.TargetResponders, func(a, b lifecyclev1alpha1.TargetResponder) int {
			return slices.Index(names, a.Name) - slices.Index(names, b.Name)
		})
		for _, c := range changes {
			c(&e.Status)
		}
		return e
	}
	condition := func(kind, value string) func(*status) {
		return func(s *status) {
			s.Conditions = append(s.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionStatus(value), Reason: "R", LastTransitionTime: *at(0)})
		}
	}
	responder := func(i int, change func(*lifecyclev1alpha1.ResponderStatus)) func(*status) {
		return func(s *status) { change(&s.Responders[i]) }
	}
	target := func(i int, change func(*lifecyclev1alpha1.TargetResponder)) func(*status) {
		return func(s *status) { change(&s.TargetResponders[i]) }
	}
	message := func(text string) func(*status) {
		return responder(0, func(r *lifecyclev1alpha1.ResponderStatus) { r.Message = &text })
	}
	heartbeat := func(t *metav1.Time) func(*status) {
		return responder(0, func(r *lifecyclev1alpha1.ResponderStatus) { r.HeartbeatTime = t })
	}
	expected := func(t *metav1.Time) func(*status) {
		return responder(0, func(r *lifecyclev1alpha1.ResponderStatus) { r.ExpectedCompletionTime = t })
	}
	completion := func(t *metav1.Time) func(*status) {
		return responder(0, func(r *lifecyclev1alpha1.ResponderStatus) { r.CompletionTime = t })
	}
	started := func(t *metav1.Time) func(*status) {
		return responder(0, func(r *lifecyclev1alpha1.ResponderStatus) { r.StartTime = t })
	}

	for name, tc := range map[string]struct {
		old, new *lifecyclev1alpha1.Eviction
		want     []string
	}{
		"the beginning":               {old: eviction(""), new: eviction("Active Inactive Inactive")},
		"the second is the first":     {old: eviction(""), new: eviction("Inactive Active Inactive"), want: []string{"[2].state: Invalid value: \"Inactive\": must be one of: Active, because this responder is next in line", "[1].state: Invalid"}},
		"nobody begins what is over":  {old: eviction(""), new: eviction("Inactive Inactive Inactive", condition("Failed", "True"))},
		"one begins what is over":     {old: eviction(""), new: eviction("Active Inactive Inactive", condition("Failed", "True")), want: []string{"the eviction request has finished processing"}},
		"the next":                    {old: eviction("Active Inactive Inactive", completion(at(0))), new: eviction("Completed Active Inactive")},
		"two at a time":               {old: eviction("Active Inactive Inactive"), new: eviction("Active Active Inactive"), want: []string{"[1].state: Invalid value: \"Active\": must be one of: Inactive, because the previously active has not finished processing"}},
		"nobody is next":              {old: eviction("Active Inactive Inactive", completion(at(0))), new: eviction("Completed Inactive Inactive"), want: []string{"[1].state"}},
		"back":                        {old: eviction("Completed Active Inactive"), new: eviction("Active Active Inactive"), want: []string{"[2].state: Invalid value: \"Active\": must be one of: Completed, because final state is immutable", "responders[0].completionTime: Invalid"}},
		"it ends as it began":         {old: eviction("Active Inactive Inactive"), new: eviction("Inactive Active Inactive", started(at(0))), want: []string{"must be one of: Canceled, Completed, Interrupted, because this responder must reach a final state"}},
		"one is evicted":              {old: eviction("Active Inactive Inactive"), new: eviction("Canceled Inactive Inactive", condition("TargetEvicted", "True"))},
		"one is evicted, one works":   {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", condition("TargetEvicted", "True")), want: []string{"must be one of: Canceled, Completed, Interrupted, because the eviction request has finished"}},
		"one is not evicted any more": {old: eviction("Canceled Inactive Inactive", condition("TargetEvicted", "True")), new: eviction("Canceled Inactive Inactive", condition("TargetEvicted", "False")), want: []string{"TargetEvicted condition status cannot be reverted"}},
		"all have had their turns":    {old: eviction("Completed Completed Active", responder(2, func(r *lifecyclev1alpha1.ResponderStatus) { r.CompletionTime = at(0) })), new: eviction("Completed Completed Completed")},
		"interrupted in time":         {old: eviction("Active Inactive Inactive"), new: eviction("Interrupted Active Inactive"), want: []string{"must stay Active because the responder is in progress"}},
		"interrupted":                 {old: eviction("Active Inactive Inactive", started(at(-time.Hour))), new: eviction("Interrupted Active Inactive", started(at(-time.Hour)))},
		"completed and not said":      {old: eviction("Active Inactive Inactive", started(at(-time.Hour))), new: eviction("Completed Active Inactive", started(at(-time.Hour)), completion(nil)), want: []string{"cannot become Completed because the responder didn't report status.responders.completionTime"}},

		"fewer":              {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive"), want: []string{"must preserve the same length and the same keys"}},
		"others":             {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", target(0, func(r *lifecyclev1alpha1.TargetResponder) { r.Name = "example.com/c" })), want: []string{"must preserve the same keys", "must contain the same keys as status.targetResponders"}},
		"two of one name":    {old: eviction(""), new: eviction("Active Inactive Inactive", target(0, func(r *lifecyclev1alpha1.TargetResponder) { r.Name = second })), want: []string{"status.targetResponders[1]: Duplicate"}},
		"not all tracked":    {old: eviction(""), new: eviction("Active Inactive Inactive", func(s *status) { s.Responders = s.Responders[:2] }), want: []string{"has to be tracked in status.responders first", "must be the same length as status.targetResponders"}},
		"reserved priority":  {old: eviction(""), new: eviction("Active Inactive Inactive", target(2, func(r *lifecyclev1alpha1.TargetResponder) { r.Priority = new(int32(999)) })), want: []string{"priorities 0-999 are reserved", "[2].state", "[1].state"}},
		"another priority":   {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", target(2, func(r *lifecyclev1alpha1.TargetResponder) { r.Priority = new(int32(10_001)) })), want: []string{"priority: Invalid value: null: field cannot be modified once set"}},
		"no priority":        {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", target(0, func(r *lifecyclev1alpha1.TargetResponder) { r.Priority = nil })), want: []string{"priority: Required", "field cannot be cleared once set"}},
		"evictor's priority": {old: eviction(""), new: eviction("Active Inactive Inactive", target(0, func(r *lifecyclev1alpha1.TargetResponder) { r.Priority = new(int32(99)) })), want: []string{"core k8s responder is expected to have priority: 100"}},
		"no state":           {old: eviction(""), new: eviction("Active Inactive Inactive", target(0, func(r *lifecyclev1alpha1.TargetResponder) { r.State = "" })), want: []string{"state: Required", "must be one of: Inactive"}},

		"a message":              {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", message("half"))},
		"a long message":         {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", message(strings.Repeat("x", 4001))), want: []string{"message: Too long"}},
		"a message afterwards":   {old: eviction("Completed Active Inactive"), new: eviction("Completed Active Inactive", message("done")), want: []string{"responders[0]: Invalid"}},
		"no start":               {old: eviction(""), new: eviction("Active Inactive Inactive", started(nil)), want: []string{"startTime: Required value: is required for an active responder"}},
		"an old start":           {old: eviction(""), new: eviction("Active Inactive Inactive", started(at(-time.Minute))), want: []string{"must be set to the present time"}},
		"another start":          {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", started(at(time.Second))), want: []string{"startTime: Invalid value: null: field cannot be modified once set"}},
		"a heartbeat":            {old: eviction("Active Inactive Inactive", heartbeat(at(0))), new: eviction("Active Inactive Inactive", heartbeat(at(time.Second)))},
		"an earlier heartbeat":   {old: eviction("Active Inactive Inactive", heartbeat(at(2*time.Second))), new: eviction("Active Inactive Inactive", heartbeat(at(time.Second))), want: []string{"cannot be decreased"}},
		"a heartbeat too early":  {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", heartbeat(at(-time.Second))), want: []string{"must occur after status.responders[0].startTime"}},
		"a heartbeat to come":    {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", heartbeat(at(time.Minute))), want: []string{"must be set to the present time"}},
		"no heartbeat any more":  {old: eviction("Active Inactive Inactive", heartbeat(at(0))), new: eviction("Active Inactive Inactive"), want: []string{"heartbeatTime: Required value: is required once set"}},
		"an end":                 {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", expected(at(time.Hour)))},
		"an end that was":        {old: eviction("Active Inactive Inactive", started(at(-time.Hour))), new: eviction("Active Inactive Inactive", started(at(-time.Hour)), expected(at(-time.Minute))), want: []string{"cannot be set to the past time"}},
		"an end in eleven years": {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", expected(at(11*365*24*time.Hour))), want: []string{"must complete within 10 years"}},
		"an end without a start": {old: eviction(""), new: eviction("Active Inactive Inactive", started(nil), expected(at(time.Hour)), completion(at(0))), want: []string{"startTime: Required", "expectedCompletionTime: Invalid", "completionTime: Invalid"}},
		"completed":              {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", completion(at(0)))},
		"completed before":       {old: eviction("Active Inactive Inactive", started(at(-time.Hour))), new: eviction("Active Inactive Inactive", started(at(-time.Hour)), completion(at(-time.Minute))), want: []string{"completionTime: Invalid"}},

		"a requester": {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", func(s *status) {
			s.Requesters = []lifecyclev1alpha1.Requester{{Name: "example.com/r", Intent: "Eviction"}}
		})},
		"bad requesters": {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", func(s *status) {
			s.Requesters = []lifecyclev1alpha1.Requester{{Name: "r", Intent: "Eviction"}, {Name: "example.com/r"}, {Name: "example.com/r", Intent: "X"}}
		}), want: []string{"requesters[0].name: Invalid", "requesters[1].intent: Required", "requesters[2].intent: Unsupported", "requesters[2]: Duplicate"}},
		"many requesters": {old: eviction("Active Inactive Inactive"), new: eviction("Active Inactive Inactive", func(s *status) {
			s.Requesters = make([]lifecyclev1alpha1.Requester, 101)
		}), want: []string{"status.requesters: Too many"}},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, "update", ValidateEvictionStatusUpdate(tc.new, tc.old, now), tc.want...)
		})
	}

	expect(t, "a new eviction", ValidateEviction(eviction("")))
	other := eviction("")
	other.Spec.Target.Pod.Name = "q"
	expect(t, "another target", ValidateEvictionUpdate(other, eviction("")), "spec.target: Invalid")
}

func TestByTurn(t *testing.T) {
	want := []string{"a.org/last", "acme.com/z", "z.acme.com/a", "b.com/a", "b.com/b", "b.org/a"}
	var responders []lifecyclev1alpha1.TargetResponder
	for _, i := range []int{4, 5, 1, 3, 2, 0} {
		responders = append(responders, lifecyclev1alpha1.TargetResponder{Name: want[i], Priority: new(int32(2))})
	}
	responders[5].Priority = new(int32(3))
	slices.SortFunc(responders, byTurn)
	if got := names(responders, targetResponderName); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
