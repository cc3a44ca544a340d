// Package queue holds the pods that wait for a node.
//
// A pod is in one of four places:
//
//	active         ready to be tried, in the order of the profile's QueueSort plugin
//	backing off    tried in vain, to be tried again when its back-off ends, or earlier
//	               when nothing else is to do (KEP-5142)
//	unschedulable  nothing has happened yet that could make it fit; gated pods too
//	in flight      being tried, or being bound, right now
//
// Cluster events move pods out of unschedulable. A plugin that rejected a pod says
// through its queueing hints (KEP-4247) which events are worth another try. Events that
// happen while a pod is in flight are kept and looked at when it comes back.
package queue

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/clock"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
)

// Config is what a queue needs to know.
type Config struct {
	// InitialBackoff and MaxBackoff bound the time that a pod waits after an attempt
	// in vain; it doubles from one to the other. 1 and 10 seconds by default.
	InitialBackoff, MaxBackoff time.Duration
	// MaxUnschedulable is how long a pod may stay unschedulable without being tried,
	// in case that a hint was wrong. 5 minutes by default.
	MaxUnschedulable time.Duration
	// Less is the order of the active pods.
	Less fwk.LessFunc
	// PreEnqueue says whether a pod may enter: success, or the plugin that gates it.
	PreEnqueue func(context.Context, *v1.Pod) *fwk.Status
	// Hints are the events that each plugin of a profile wants to hear of, by scheduler name.
	Hints map[string][]Hint
	// Entered is told of each pod that comes to a place, and after what; nil for nobody.
	Entered func(p *Pod, to Place, event string)
	Clock   clock.WithTicker
}

// Place is where in the queue a pod waits.
type Place string

// The places of the queue, as metrics call them.
const (
	Active        Place = "active"
	BackingOff    Place = "backoff"
	Unschedulable Place = "unschedulable"
	Gated         Place = "gated" // part of Unschedulable
)

// What brings pods to a place, beside other events of the cluster, as metrics call it.
const (
	arrived       = "UnscheduledPodAdd"
	changed       = "UnscheduledPodUpdate"
	mateGone      = "UnscheduledPodDelete"
	attemptFailed = "ScheduleAttemptFailure"
	backoffEnded  = "BackoffComplete"
	timedOut      = "UnschedulableTimeout"
	activated     = "ForceActivate"
)

// Hint is one event that could make a pod schedulable which Plugin rejected. Without
// Fn every such event does.
type Hint struct {
	Plugin string
	Event  fwk.ClusterEvent
	Fn     fwk.QueueingHintFn
}

// Queue is safe for concurrent use.
type Queue struct {
	Config
	*nominator

	mu            sync.Mutex
	wake          sync.Cond // active or backing off grew, or the queue is closed
	active        *podHeap
	backingOff    *podHeap // by the end of their back-off
	unschedulable map[types.UID]*Pod
	inFlight      map[types.UID]*flight
	events        eventLog
	closed        bool
}

// flight is a pod in flight and the part of the event log it has not seen.
type flight struct{ since int }

// New returns an empty queue.
func New(c Config) *Queue {
	if c.InitialBackoff == 0 {
		c.InitialBackoff = time.Second
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = 10 * time.Second
	}
	if c.MaxUnschedulable == 0 {
		c.MaxUnschedulable = 5 * time.Minute
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	q := &Queue{
		Config:        c,
		nominator:     newNominator(),
		unschedulable: map[types.UID]*Pod{},
		inFlight:      map[types.UID]*flight{},
	}
	q.wake.L = &q.mu
	q.active = newPodHeap(func(a, b *Pod) bool { return c.Less(a, b) })
	q.backingOff = newPodHeap(func(a, b *Pod) bool {
		if !a.BackoffExpiration.Equal(b.BackoffExpiration) {
			return a.BackoffExpiration.Before(b.BackoffExpiration)
		}
		return c.Less(a, b)
	})
	return q
}

// Run moves pods on as time passes, until ctx is cancelled, and then closes the queue.
func (q *Queue) Run(ctx context.Context) {
	second := q.Clock.NewTicker(time.Second)
	defer second.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			q.close()
			return
		case <-second.C():
			q.flushBackoff()
			if n%30 == 0 {
				q.flushUnschedulable(ctx)
			}
		}
	}
}

func (q *Queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake.Broadcast()
}

// Add puts a new pod into the queue.
func (q *Queue) Add(ctx context.Context, pod *v1.Pod) {
	info, err := cache.NewPodInfo(pod)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Pod has affinity terms that do not parse", "pod", klog.KObj(pod))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.find(pod.UID) != nil || q.inFlight[pod.UID] != nil {
		return
	}
	q.enter(ctx, newPod(info, q.Clock.Now()), arrived)
	q.nominate(info, nil)
}

// Update takes a changed pod over. A change that could make it fit moves it on.
func (q *Queue) Update(ctx context.Context, old, pod *v1.Pod) {
	info, err := cache.NewPodInfo(pod)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Pod has affinity terms that do not parse", "pod", klog.KObj(pod))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.renominate(old, info)
	events := podUpdates(old, pod)
	if q.inFlight[pod.UID] != nil {
		for _, e := range events {
			q.events.add(e, len(q.inFlight))
		}
		return
	}
	if p := q.active.get(pod.UID); p != nil {
		p.PodInfo = info
		q.active.set(p)
		return
	}
	if p := q.backingOff.get(pod.UID); p != nil {
		p.PodInfo = info
		return
	}
	p, ok := q.unschedulable[pod.UID]
	if !ok {
		q.enter(ctx, newPod(info, q.Clock.Now()), changed)
		return
	}
	p.PodInfo = info
	for _, e := range events {
		if how := q.worth(ctx, p, e); how != stay {
			q.requeue(ctx, p, how, e.Label())
			return
		}
	}
}

// Delete forgets a pod that is gone or that has got a node from somebody else.
func (q *Queue) Delete(pod *v1.Pod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.denominate(pod.UID)
	q.active.remove(pod.UID)
	q.backingOff.remove(pod.UID)
	delete(q.unschedulable, pod.UID)
}

// Pop waits for the next pod to try and returns it, in flight; nil when the queue was closed.
// Every pod that it returns must be given back through Done.
func (q *Queue) Pop() *Pod {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed {
		p := q.active.pop()
		if p == nil {
			p = q.popBackoff()
		}
		if p == nil {
			q.wake.Wait()
			continue
		}
		q.depart(p)
		return p
	}
	return nil
}

// depart begins an attempt.
func (q *Queue) depart(p *Pod) {
	now := q.Clock.Now()
	p.Attempts++
	if p.InitialAttempt == nil {
		p.InitialAttempt = &now
	}
	p.BackoffExpiration = time.Time{}
	q.inFlight[p.Pod.UID] = &flight{since: q.events.end()}
}

// popBackoff returns a pod whose back-off has not ended, when there is nothing better
// to do. A pod that met an error keeps its distance, to spare the API server.
func (q *Queue) popBackoff() *Pod {
	if p := q.backingOff.peek(); p != nil && p.ConsecutiveErrors == 0 {
		return q.backingOff.pop()
	}
	return nil
}

// Done says that the attempt at a pod is over, whatever its outcome.
func (q *Queue) Done(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.done(uid)
}

func (q *Queue) done(uid types.UID) {
	delete(q.inFlight, uid)
	oldest := q.events.end()
	for _, f := range q.inFlight {
		oldest = min(oldest, f.since)
	}
	q.events.forgetBefore(oldest)
}

// Return puts a pod back that found no node, or met an error, and ends its flight.
// Events that happened meanwhile count.
func (q *Queue) Return(ctx context.Context, p *Pod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.inFlight[p.Pod.UID]
	if f == nil || q.find(p.Pod.UID) != nil {
		return
	}
	defer q.done(p.Pod.UID) // events that p has not seen are kept until then
	p.Timestamp = q.Clock.Now()
	if len(p.rejectors()) == 0 {
		// An error, not a rejection: no event will tell when it is over.
		p.BackoffExpiration = q.backoffEnd(p)
		q.backOff(p, attemptFailed)
		return
	}
	p.BackoffExpiration = q.backoffEnd(p)
	how := stay
	for _, e := range q.events.since(f.since) {
		how = max(how, q.worth(ctx, p, e))
	}
	q.unschedulable[p.Pod.UID] = p
	if how != stay {
		q.requeue(ctx, p, how, attemptFailed)
		return
	}
	q.came(p, Unschedulable, attemptFailed)
}

// Activate makes pods active that a plugin asks for, if they wait.
func (q *Queue) Activate(_ klog.Logger, pods map[string]*v1.Pod) {
	ctx := context.Background()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, pod := range pods {
		p := q.backingOff.remove(pod.UID)
		if p == nil {
			p = q.unschedulable[pod.UID]
		}
		if p != nil {
			delete(q.unschedulable, pod.UID)
			q.enter(ctx, p, activated)
		}
	}
}

// Event moves the pods on which could fit after what happened. old and new are the
// object before and after, nil where there was none.
func (q *Queue) Event(ctx context.Context, e fwk.ClusterEvent, oldObj, newObj any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.anyone(e) {
		return
	}
	ev := event{ClusterEvent: e, old: oldObj, new: newObj}
	q.events.add(ev, len(q.inFlight))
	for _, p := range q.unschedulable {
		if how := q.worth(ctx, p, ev); how != stay {
			q.requeue(ctx, p, how, e.Label())
		}
	}
}

// Describe says, for people, where a pod is; nothing if it is not here.
func (q *Queue) Describe(namespace, name string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	is := func(p *Pod) bool { return p.Pod.Namespace == namespace && p.Pod.Name == name }
	if slices.ContainsFunc(q.active.pods, is) {
		return "about to be tried"
	}
	if i := slices.IndexFunc(q.backingOff.pods, is); i >= 0 {
		return "tried again at " + q.backingOff.pods[i].BackoffExpiration.Format(time.RFC3339) + " at the latest"
	}
	for _, p := range q.unschedulable {
		switch {
		case !is(p):
		case p.GatingPlugin != "":
			return "held back by " + p.GatingPlugin
		default:
			return "waits until something happens that " + strings.Join(sets.List(p.rejectors()), " or ") + " could let it pass for"
		}
	}
	return ""
}

// Counts returns the number of pods in each place.
func (q *Queue) Counts() (active, backingOff, unschedulable, gated int) {
	count := map[Place]int{}
	q.Each(func(p *Pod, at Place) { count[at]++ })
	return count[Active], count[BackingOff], count[Unschedulable], count[Gated]
}

// Each calls f for every pod that waits. f must not call the queue.
func (q *Queue) Each(f func(p *Pod, at Place)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.active.pods {
		f(p, Active)
	}
	for _, p := range q.backingOff.pods {
		f(p, BackingOff)
	}
	for _, p := range q.unschedulable {
		if p.GatingPlugin != "" {
			f(p, Gated)
		} else {
			f(p, Unschedulable)
		}
	}
}

// The rest is called with the mutex held.

func (q *Queue) find(uid types.UID) *Pod {
	if p := q.active.get(uid); p != nil {
		return p
	}
	if p := q.backingOff.get(uid); p != nil {
		return p
	}
	return q.unschedulable[uid]
}

// came tells who wants to know that a pod has come to a place.
func (q *Queue) came(p *Pod, to Place, event string) {
	if q.Entered != nil {
		q.Entered(p, to, event)
	}
}

// enter makes a pod active after an event, unless a PreEnqueue plugin gates it.
func (q *Queue) enter(ctx context.Context, p *Pod, event string) {
	if q.gated(ctx, p) {
		if q.unschedulable[p.Pod.UID] == nil {
			q.unschedulable[p.Pod.UID] = p
			q.came(p, Unschedulable, event)
		}
		return
	}
	delete(q.unschedulable, p.Pod.UID)
	q.active.set(p)
	q.came(p, Active, event)
	q.wake.Signal()
}

func (q *Queue) gated(ctx context.Context, p *Pod) bool {
	p.GatingPlugin = ""
	if q.PreEnqueue == nil {
		return false
	}
	if s := q.PreEnqueue(ctx, p.Pod); !s.IsSuccess() {
		p.GatingPlugin = s.Plugin()
		p.UnschedulablePlugins.Insert(s.Plugin()) // those that rejected it before still count
		return true
	}
	return false
}

// requeue takes a pod out of unschedulable after an event.
func (q *Queue) requeue(ctx context.Context, p *Pod, how worth, event string) {
	if how == afterBackoff && q.Clock.Now().Before(p.BackoffExpiration) {
		if q.gated(ctx, p) {
			return
		}
		delete(q.unschedulable, p.Pod.UID)
		q.backOff(p, event)
		return
	}
	q.enter(ctx, p, event)
}

func (q *Queue) backOff(p *Pod, event string) {
	q.backingOff.set(p)
	q.came(p, BackingOff, event)
	q.wake.Signal()
}

func (q *Queue) flushBackoff() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.Clock.Now()
	for p := q.backingOff.peek(); p != nil && !now.Before(p.BackoffExpiration); p = q.backingOff.peek() {
		q.enter(context.Background(), q.backingOff.pop(), backoffEnded)
	}
}

func (q *Queue) flushUnschedulable(ctx context.Context) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.unschedulable {
		if p.GatingPlugin == "" && q.Clock.Since(p.Timestamp) > q.MaxUnschedulable {
			q.requeue(ctx, p, afterBackoff, timedOut)
		}
	}
}

// backoffEnd doubles the wait with each attempt in vain.
func (q *Queue) backoffEnd(p *Pod) time.Time {
	n := p.UnschedulableCount
	if p.ConsecutiveErrors > 0 {
		n = p.ConsecutiveErrors
	}
	if n == 0 {
		return time.Time{}
	}
	d := q.InitialBackoff
	for ; n > 1 && d < q.MaxBackoff; n-- {
		d *= 2
	}
	return p.Timestamp.Add(min(d, q.MaxBackoff))
}
