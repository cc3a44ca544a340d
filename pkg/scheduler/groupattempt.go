package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"

	v1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins/gangscheduling"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// groupAttempt is one try at the pods that wait of a group, or of a tree of groups, from the queue
// to their nodes or back.
type groupAttempt struct {
	*Scheduler
	fw    *framework.Framework
	group *podgroup.Info // the root
	pods  []*attempt
}

// placedPod is what came of a pod that was given a node: how it is there, and whether all
// plugins agree to that.
type placedPod struct {
	*attempt
	pod    *v1.Pod
	status *fwk.Status
}

// scheduleGroup tries the group of a pod that was taken from the queue, with the tree that it is
// part of. Binding its pods goes on by itself.
func (s *Scheduler) scheduleGroup(ctx context.Context, first *attempt, key fwk.EntityKey) {
	g := &groupAttempt{Scheduler: s, fw: first.fw}
	root, known, err := s.groups.GetRootKeyForGroup(key)
	lacking := root
	if !known || err != nil {
		known, root = false, key
	}
	if !g.gather(ctx, first, root) {
		return
	}
	ctx = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "podGroup", root.String()))
	var placed []placedPod
	var groups []groupOutcome
	for _, a := range g.pods {
		if group, ok := podgroup.KeyOf(a.pod); ok {
			s.arrivals.left(group)
		}
	}
	s.recorder.Decide(ctx, func(ctx context.Context) (recorded *record.Decided) {
		g.pods = slices.DeleteFunc(g.pods, func(a *attempt) bool {
			settled := s.settled(a.pod)
			if settled {
				s.queue.Done(a.pod.UID)
			}
			return settled
		})
		if !known || !g.plant(root) {
			g.missing(ctx, lacking)
		} else if len(g.pods) > 0 {
			placed, groups, recorded = g.decide(ctx)
		}
		return recorded
	})
	for _, p := range placed {
		if p.status.IsSuccess() {
			s.binding.Go(func() { p.bind(ctx, p.pod) })
		} else {
			p.undo(ctx, p.pod, p.status)
		}
	}
	for _, o := range groups {
		if ctx.Err() == nil {
			g.tell(ctx, o.group, podgroup.Condition(o.status))
		}
	}
}

// gather takes the mates of a pod out of the queue. It returns false if a mate, and so the
// tree, is held back.
func (g *groupAttempt) gather(ctx context.Context, first *attempt, root fwk.EntityKey) bool {
	mates, ok := g.queue.Take(ctx, first.queued, g.groups.Waiting(root))
	if !ok {
		return false
	}
	g.pods = []*attempt{first}
	for _, q := range mates {
		a := &attempt{Scheduler: g.Scheduler, fw: first.fw, queued: q, pod: q.Pod, started: first.started}
		g.pods = append(g.pods, a)
	}
	slices.SortFunc(g.pods, func(a, b *attempt) int {
		return cmp.Or(-cmp.Compare(a.queued.GetPriority(), b.queued.GetPriority()),
			a.queued.Timestamp.Compare(b.queued.Timestamp), cmp.Compare(a.pod.Name, b.pod.Name))
	})
	return true
}

// plant brings the pods into the order of their tree. It returns false if a group is not there.
func (g *groupAttempt) plant(root fwk.EntityKey) bool {
	pods := make([]*v1.Pod, len(g.pods))
	at := make(map[types.UID]*attempt, len(g.pods))
	for i, a := range g.pods {
		pods[i], at[a.pod.UID] = a.pod, a
	}
	tree, err := g.groups.Tree(root, pods)
	if err != nil || len(tree.Pods) != len(pods) {
		return false
	}
	g.group = tree
	for i, p := range tree.Pods {
		g.pods[i] = at[p.UID]
	}
	return true
}

// missing sends the pods back to wait for their group, or for one above it.
func (g *groupAttempt) missing(ctx context.Context, lacking fwk.EntityKey) {
	status := gangscheduling.Missing(lacking.Name)
	for _, a := range g.pods {
		d := framework.NewDiagnosis()
		d.Reject(status)
		a.noNode(ctx, decision{
			err: status.AsError(), fit: &framework.FitError{Pod: a.pod, Diagnosis: d},
			told: explain.Attempt{Number: a.queued.Attempts, Message: status.Message()},
		})
	}
}

// decide finds the pods their nodes and reserves what they need there, or sends them back.
func (g *groupAttempt) decide(ctx context.Context) (placed []placedPod, groups []groupOutcome, recorded *record.Decided) {
	q := groupQuestion{fw: g.fw, group: g.group, start: g.nextStart, seed: groupSeed(g.pods), now: g.pods[0].started}
	for _, a := range g.pods {
		q.attempts = append(q.attempts, a.queued.Attempts)
	}
	recorded = g.toRecord(q)
	began := g.now()
	d := g.mind.decideGroup(ctx, q)
	search := g.now().Sub(began)
	if ctx.Err() != nil {
		recorded = nil // the end of the scheduler, not of the search
	} else if recorded != nil {
		recorded.Outcome = d.outcome()
	}
	took := g.now().Sub(g.pods[0].started)
	for i, a := range g.pods {
		m := &d.members[i]
		a.state, a.why = m.state, m.told
		a.why.Time, a.why.Took, a.why.Group = a.started, took, &d.told
		switch {
		case !d.status.IsSuccess():
			a.noNode(ctx, m.decision)
		case m.err != nil:
			a.again(ctx, m.decision)
		default:
			m.state.LeaveGroup()
			g.why.Add(a.pod, a.why)
			if p, s := a.place(ctx, m.node); p != nil {
				placed = append(placed, placedPod{a, p, s})
			}
		}
	}
	groups = d.groups
	if d.status.IsSuccess() {
		g.nextStart = d.next
		// The pods of those that get nothing are tried again at once: it is said then what comes of that.
		groups = slices.DeleteFunc(groups, func(o groupOutcome) bool { return !o.status.IsSuccess() && o.tried > 0 })
	}
	g.metrics.triedGroup(&d, g.fw.ProfileName(), g.now().Sub(g.pods[0].started), search)
	return placed, groups, recorded
}

// again puts a pod back that fits nowhere, while its mates do, to be tried with those that
// are left: what is to be done for them is decided then.
func (a *attempt) again(ctx context.Context, d decision) {
	a.Scheduler.why.Add(a.pod, a.why)
	info := a.promise(ctx, a.pod, nil)
	if info == nil {
		a.queue.Done(a.pod.UID)
		return
	}
	a.queued.PodInfo = info
	a.queued.UnschedulablePlugins, a.queued.PendingPlugins = d.fit.Diagnosis.UnschedulablePlugins, d.fit.Diagnosis.PendingPlugins
	a.queue.Again(ctx, a.queued)
}

// groupSeed makes a seed that differs for each attempt at a group, and is the same
// whenever the attempt is replayed.
func groupSeed(pods []*attempt) uint64 {
	h := fnv.New64a()
	for _, a := range pods {
		fmt.Fprintf(h, "%s/%d,", a.pod.UID, a.queued.Attempts)
	}
	return h.Sum64()
}

// toRecord is what a recording says of a try; nil if there is none.
func (g *groupAttempt) toRecord(q groupQuestion) *record.Decided {
	if g.recorder == nil {
		return nil
	}
	var d *record.Decided
	for i, a := range g.pods {
		one := a.toRecord(question{pod: a.pod, attempt: q.attempts[i], start: q.start, seed: q.seed, now: q.now})
		if i == 0 {
			d, one.Group, one.Composite = one, q.group.GetName(), q.group.Composite != nil
			continue
		}
		d.Mates = append(d.Mates, record.Tried{Pod: one.Pod, Attempt: one.Attempt, Object: one.Object})
	}
	return d
}

// tell writes what came of it to the status of a group. As in the original, nothing is written to that
// of a group of groups.
func (g *groupAttempt) tell(ctx context.Context, group *schedulingv1beta1.PodGroup, c metav1.Condition) {
	g.binding.Go(func() {
		if err := podgroup.Tell(ctx, g.client, group, c); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Writing what came of a pod group to its status", "podGroup", klog.KObj(group))
		}
	})
}
