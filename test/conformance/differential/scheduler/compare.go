package scheduler

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/utils/ptr"
)

// allScored is the most nodes of which both schedulers look at all.
const allScored = 100

// Stats count what the cases were about.
type Stats struct {
	Decisions   int
	Placed      int
	Choices     int // placed where there were several nodes to choose from
	Single      int // of those, with one best node
	SingleTaken int // which Leme took
	Refused     int
	Gated       int
	Preempted   int
	Failed      int            // neither could decide
	Unlike      int            // decided otherwise, as is known
	Plugins     map[string]int // pods to which a plugin said no, for some node
}

func (s *Stats) count(plugins ...string) {
	if s.Plugins == nil {
		s.Plugins = map[string]int{}
	}
	for _, p := range plugins {
		s.Plugins[p]++
	}
}

func (s *Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d decisions: %d pods placed, %d refused by all nodes (%d of them evict others), %d kept out of the queue, %d that neither can decide, %d decided otherwise as is known\n",
		s.Decisions, s.Placed, s.Refused, s.Preempted, s.Gated, s.Failed, s.Unlike)
	fmt.Fprintf(&b, "%d pods had a choice of nodes; %d of them one best node, which Leme took for %d\n", s.Choices, s.Single, s.SingleTaken)
	for _, name := range slices.Sorted(maps.Keys(s.Plugins)) {
		fmt.Fprintf(&b, "  %-22s says no to %d\n", name, s.Plugins[name])
	}
	return b.String()
}

// Difference is where the schedulers differ.
type Difference struct {
	Pod  string
	What string
}

// Like reports whether two differences are about the same thing.
func (d *Difference) Like(other *Difference) bool {
	if d == nil || other == nil {
		return d == other
	}
	what, _, _ := strings.Cut(d.What, "\n")
	same, _, _ := strings.Cut(other.What, "\n")
	return what == same
}

// Compare has both schedulers decide about the pods of a case and returns the first
// difference; nil if there is none. settle waits until what goes on by itself is over.
func Compare(ctx context.Context, c *Case, stats *Stats, settle func()) (*Difference, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer settle()
	defer cancel()
	j, err := newJudge(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("the original: %w", err)
	}
	defer j.factory.Shutdown()
	defer cancel()
	l, err := newCandidate(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("Leme's: %w", err)
	}
	defer l.factory.Shutdown()
	defer cancel()
	r := &run{c: c, judge: j, candidate: l, stats: stats, pods: map[string]*v1.Pod{}}
	for _, p := range c.Pods {
		if err := r.place(ctx, p, p.Spec.NodeName); err != nil {
			return nil, err
		}
	}
	settle()
	pending := slices.Clone(c.Pending)
	for len(pending) > 0 {
		pod := pending[0].DeepCopy()
		pending = pending[1:]
		again, what, err := r.decide(ctx, pod)
		if err != nil {
			return nil, fmt.Errorf("pod %s: %w", pod.Name, err)
		}
		if what != "" {
			return &Difference{pod.Name, what}, nil
		}
		if again != nil {
			pending = append(pending, again)
		}
		settle()
	}
	return nil, nil
}

type run struct {
	c         *Case
	judge     *judge
	candidate *candidate
	stats     *Stats
	pods      map[string]*v1.Pod // on nodes, by namespace/name
}

func (r *run) place(ctx context.Context, pod *v1.Pod, node string) error {
	pod = pod.DeepCopy()
	pod.Spec.NodeName = node
	if pod.Status.StartTime == nil { // no two began at once, or it would be left to chance whose eviction harms least
		pod.Status.StartTime = ptr.To(metav1.NewTime(time.Unix(1_710_000_000+int64(r.stats.Decisions), 0)))
	}
	r.pods[pod.Namespace+"/"+pod.Name] = pod
	r.judge.withdraw(ctx, pod)
	r.candidate.withdraw(pod)
	if err := r.judge.place(ctx, pod); err != nil {
		return err
	}
	return r.candidate.place(pod)
}

// decide compares the decisions about one pod, and carries Leme's out. A pod for which
// others are evicted is returned to be tried again.
func (r *run) decide(ctx context.Context, pod *v1.Pod) (again *v1.Pod, what string, err error) {
	if err := r.judge.setPod(pod); err != nil {
		return nil, "", err
	}
	if err := r.candidate.setPod(pod); err != nil {
		return nil, "", err
	}
	r.stats.Decisions++
	want, got := r.judge.admit(ctx, pod), r.candidate.admit(ctx, pod)
	if a, b := tell(want), tell(got); a != b {
		return nil, fmt.Sprintf("may it enter the queue?\n  original: %s\n  Leme:     %s", a, b), nil
	}
	if !want.IsSuccess() {
		r.stats.Gated++
		r.stats.count(want.Plugin())
		return nil, "", nil
	}
	v, err := r.judge.decide(ctx, pod)
	if err != nil {
		return nil, "", err
	}
	ch := r.candidate.decide(ctx, r.c, pod)
	if what := differ(pod, v, ch, len(r.c.Nodes)); what != "" {
		if spreadsOverNobody(pod) {
			r.stats.Unlike++
			what = "" // known, and the pod goes no further
		}
		return nil, what, nil
	}
	switch {
	case v.err != nil:
		r.stats.Failed++
		return nil, "", nil
	case ch.Node == "":
		again, err := r.evict(ctx, pod, v, ch)
		return again, "", err
	}
	r.count(v, ch)
	return nil, "", r.place(ctx, pod, ch.Node)
}

// spreadsOverNobody reports whether a pod must be spread by a selector that is empty. Known: the original counts no
// pod on a node for such a constraint, and does count those that are promised a node, and takes victims off.
func spreadsOverNobody(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.TopologySpreadConstraints, func(c v1.TopologySpreadConstraint) bool {
		s := c.LabelSelector
		return c.WhenUnsatisfiable == v1.DoNotSchedule && s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0
	})
}

// differ says what is different, nothing if all is well.
func differ(pod *v1.Pod, v *verdict, ch *choice, nodes int) string {
	switch {
	case (v.err == nil) != (ch.err == nil):
		return fmt.Sprintf("can it be decided?\n  original: %v\n  Leme:     %v", v.err, ch.err)
	case v.err != nil:
		return ""
	case v.refused == nil && ch.refused != nil:
		return fmt.Sprintf("does it fit?\n  original: on %v\n  Leme:     %s", v.allowed.UnsortedList(), ch.refused.message)
	case v.refused != nil && ch.refused == nil:
		return fmt.Sprintf("does it fit nowhere?\n  original: %s\n  Leme:     goes to %s", v.refused.message, ch.Node)
	case v.refused == nil && !v.allowed.Has(ch.Node):
		return fmt.Sprintf("is the node allowed?\n  original: only %v\n  Leme:     goes to %s", v.allowed.UnsortedList(), ch.Node)
	case v.refused != nil:
		return differInRefusal(v, ch, nodes)
	case nodes <= allScored && len(ch.scores) > 0 && !reflect.DeepEqual(comparable(pod, v.scores), comparable(pod, ch.scores)):
		return fmt.Sprintf("scores\n  original: %v\n  Leme:     %v", v.scores, ch.scores)
	}
	return ""
}

// comparable leaves out the scores that are known to differ: where a pod says what it needs as a whole, the
// original's NodeResourcesFit filters nodes by that and scores them by what its containers say.
func comparable(pod *v1.Pod, scores map[string]map[string]int64) map[string]map[string]int64 {
	if pod.Spec.Resources == nil {
		return scores
	}
	out := map[string]map[string]int64{}
	for node, plugins := range scores {
		out[node] = maps.Clone(plugins)
		delete(out[node], "NodeResourcesFit")
	}
	return out
}

func differInRefusal(v *verdict, ch *choice, nodes int) string {
	want, got := *v.refused, *ch.refused
	node, victims, err := ch.victims()
	switch {
	case err != nil:
		return err.Error()
	case (node != "") != (len(v.eviction) > 0 && v.refused.nominated == fmt.Sprintf("%q", v.best)) && nodes <= allScored:
		return fmt.Sprintf("eviction\n  original: %v, best on %q, promises %s: %s\n  Leme:     %v on %q: %s", v.eviction, v.best, v.refused.nominated, want.room, victims, node, got.room)
	case node != "" && !slices.Equal(victims, v.eviction[node]):
		return fmt.Sprintf("victims\n  original: %v on %s\n  Leme:     %v", v.eviction[node], node, victims)
	case node != "" && nodes > allScored: // each looks at some nodes for victims, not at the same
		want.nominated, want.room, got.nominated, got.room = "", "", "", ""
	case node != "" && node != v.best:
		return fmt.Sprintf("where eviction harms least\n  original: %s of %v\n  Leme:     %s", v.best, v.eviction, node)
	}
	if want.room == fwk.ErrNotFound.Error() {
		// Known: where another plugin has refused the pod before DynamicResources looked at it, the original's
		// DynamicResources fails to find its notes, and preemption, which could not help, is not asked.
		want.nominated, want.room, got.nominated, got.room = "", "", "", ""
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Sprintf("why it fits nowhere\n  original: %+v\n  Leme:     %+v", want, got)
	}
	return ""
}

func (r *run) count(v *verdict, ch *choice) {
	r.stats.Placed++
	if len(v.scores) < 2 || len(ch.scores) < 2 {
		return
	}
	r.stats.Choices++
	var best []string
	top := int64(-1)
	for node, plugins := range v.scores {
		total := int64(0)
		for _, s := range plugins {
			total += s
		}
		switch {
		case total > top:
			top, best = total, []string{node}
		case total == top:
			best = append(best, node)
		}
	}
	if len(best) == 1 {
		r.stats.Single++
		if best[0] == ch.Node {
			r.stats.SingleTaken++
		}
	}
}

// evict removes the victims and promises the node to the pod, once.
func (r *run) evict(ctx context.Context, pod *v1.Pod, v *verdict, ch *choice) (*v1.Pod, error) {
	r.stats.Refused++
	r.stats.count(v.refused.plugins()...)
	node, victims, err := ch.victims()
	if err != nil || node == "" || pod.Status.NominatedNodeName != "" || pod.Spec.NodeName != "" {
		return nil, err
	}
	r.stats.Preempted++
	r.stats.count("DefaultPreemption")
	for _, name := range victims {
		p, ok := r.pods[name]
		if !ok {
			return nil, fmt.Errorf("victim %s is on no node", types.NamespacedName{Name: name})
		}
		delete(r.pods, name)
		if err := r.judge.remove(ctx, p); err != nil {
			return nil, err
		}
		if err := r.candidate.remove(p); err != nil {
			return nil, err
		}
	}
	pod = pod.DeepCopy()
	pod.Status.NominatedNodeName = node
	if err := r.judge.nominate(ctx, pod); err != nil {
		return nil, err
	}
	return pod, r.candidate.nominate(ctx, pod, node)
}
