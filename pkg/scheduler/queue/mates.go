package queue

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
)

// The pods of a group wait each for itself, and are tried together: the first whose turn
// comes takes the others with it, wherever they wait.

// Take takes the mates of p, which has been popped, out of the queue as Pop does. If one of
// them is held back by a PreEnqueue plugin then all are, p too: it returns false.
func (q *Queue) Take(ctx context.Context, p *Pod, mates []types.UID) ([]*Pod, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var waiting, freed []*Pod
	for _, uid := range mates {
		mate := q.find(uid)
		if mate == nil {
			continue // in flight, or of a profile that is not here
		}
		if mate.GatingPlugin != "" {
			if q.gated(ctx, mate) {
				for _, f := range freed {
					f.GatingPlugin = mate.GatingPlugin
				}
				q.hold(p, mate.GatingPlugin)
				return nil, false
			}
			freed = append(freed, mate) // but for mates that are still to be looked at
		}
		waiting = append(waiting, mate)
	}
	for _, mate := range waiting {
		q.active.remove(mate.Pod.UID)
		q.backingOff.remove(mate.Pod.UID)
		delete(q.unschedulable, mate.Pod.UID)
		q.depart(mate)
	}
	return waiting, true
}

// hold puts a pod back that is held back because a mate is. It has not been tried.
func (q *Queue) hold(p *Pod, plugin string) {
	p.Attempts--
	p.GatingPlugin = plugin
	p.UnschedulablePlugins.Insert(plugin)
	q.unschedulable[p.Pod.UID] = p
	q.done(p.Pod.UID)
}

// Release lets those of some pods that are held back try again to enter: a mate that held
// them back may have gone.
func (q *Queue) Release(ctx context.Context, pods []types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, uid := range pods {
		if p := q.unschedulable[uid]; p != nil && p.GatingPlugin != "" {
			q.enter(ctx, p, mateGone)
		}
	}
}

// Again puts a pod back that got no node while its mates did, to be tried at once with
// those that are left.
func (q *Queue) Again(ctx context.Context, p *Pod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inFlight[p.Pod.UID] == nil || q.find(p.Pod.UID) != nil {
		return
	}
	q.enter(ctx, p, attemptFailed)
	q.done(p.Pod.UID)
}
