package defaultpreemption

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// candidate is a node on which a pod would fit without some of its pods, the most
// important of them first, and how often that breaks a disruption budget.
type candidate struct {
	node       string
	victims    []*v1.Pod
	violations int
}

// trial is a node, and the state of plugins, of which pods are taken away and put back.
type trial struct {
	fwk.Handle
	state fwk.CycleState
	pod   *v1.Pod
	node  fwk.NodeInfo
}

// selectVictims takes every unit of lower priority away from the node and then spares
// as many as it can, first those that a budget protects, the most important first.
// state and node are the caller's copies.
func selectVictims(ctx context.Context, h fwk.Handle, state fwk.CycleState, pod *v1.Pod, node fwk.NodeInfo, budgets []*policyv1.PodDisruptionBudget) (candidate, *fwk.Status) {
	t := &trial{h, state, pod, node}
	c := candidate{node: node.Node().Name}
	lower := unitsBelow([]fwk.NodeInfo{node}, corev1helpers.PodPriority(pod), h.PodGroupManager())
	if len(lower) == 0 {
		return c, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "No preemption victims found for incoming pod")
	}
	for _, u := range lower {
		if u.isWhole() {
			t.addElsewhere(u)
		}
		if s := t.remove(ctx, u); !s.IsSuccess() {
			return c, s
		}
	}
	if s := t.fits(ctx); !s.IsSuccess() {
		return c, s
	}
	protected, others := splitUnits(lower, budgets)
	var victims []*unit
	for _, u := range slices.Concat(protected, others) {
		spared, s := t.spare(ctx, u)
		if !s.IsSuccess() {
			return c, s
		}
		if !spared {
			victims = append(victims, u)
			c.violations += u.violations
		}
	}
	if len(victims) == 0 {
		return c, fwk.NewStatus(fwk.Unschedulable, "No preemption victims found for incoming pod")
	}
	slices.SortStableFunc(victims, moreImportant)
	c.victims = podsOf(victims)
	return c, nil
}

// addElsewhere adds the pods of a unit that are on other nodes, and go with it.
func (t *trial) addElsewhere(u *unit) {
	scheduled, err := podgroup.ScheduledPods(t.SnapshotSharedLister(), u.whole)
	if err != nil {
		return
	}
	for _, pod := range scheduled {
		if pod.Spec.NodeName == t.node.Node().Name {
			continue
		}
		if n, err := t.SnapshotSharedLister().NodeInfos().Get(pod.Spec.NodeName); err == nil {
			if i := slices.IndexFunc(n.GetPods(), func(p fwk.PodInfo) bool { return p.GetPod().UID == pod.UID }); i >= 0 {
				u.pods = append(u.pods, n.GetPods()[i])
			}
		}
	}
}

func (t *trial) fits(ctx context.Context) *fwk.Status {
	return t.RunFilterPluginsWithNominatedPods(ctx, t.state, t.pod, t.node)
}

func (t *trial) remove(ctx context.Context, u *unit) *fwk.Status {
	for _, p := range u.pods {
		node, own, err := t.nodeOf(p)
		if err == nil && own {
			err = node.RemovePod(klog.FromContext(ctx), p.GetPod())
		}
		if err != nil {
			return fwk.AsStatus(err)
		}
		if s := t.RunPreFilterExtensionRemovePod(ctx, t.state, t.pod, p, node); !s.IsSuccess() {
			return s
		}
	}
	return nil
}

// spare puts a unit back and reports whether it can stay.
func (t *trial) spare(ctx context.Context, u *unit) (bool, *fwk.Status) {
	for _, p := range u.pods {
		node, own, err := t.nodeOf(p)
		if err != nil {
			return false, fwk.AsStatus(err)
		}
		if own {
			node.AddPodInfo(p)
		}
		if s := t.RunPreFilterExtensionAddPod(ctx, t.state, t.pod, p, node); !s.IsSuccess() {
			return false, s
		}
	}
	if t.fits(ctx).IsSuccess() {
		return true, nil
	}
	return false, t.remove(ctx, u)
}

// nodeOf returns the node of a pod, and whether it is the trial's own, which may be changed.
func (t *trial) nodeOf(p fwk.PodInfo) (node fwk.NodeInfo, own bool, err error) {
	name := p.GetPod().Spec.NodeName
	if name == t.node.Node().Name {
		return t.node, true, nil
	}
	node, err = t.SnapshotSharedLister().NodeInfos().Get(name)
	return node, false, err
}

// startTime is when a pod began. One that is on its way to its node begins after all
// others; no clock is asked, so that the same pods are chosen whenever one looks.
func startTime(pod *v1.Pod) time.Time {
	if pod.Status.StartTime != nil {
		return pod.Status.StartTime.Time
	}
	return time.Unix(math.MaxInt32, 0)
}

// splitByBudget finds the pods whose eviction, together with that of those before
// them, breaks a disruption budget.
func splitByBudget(pods []fwk.PodInfo, budgets []*policyv1.PodDisruptionBudget) (protected, others []fwk.PodInfo) {
	allowed := make([]int32, len(budgets))
	for i, b := range budgets {
		allowed[i] = b.Status.DisruptionsAllowed
	}
	for _, p := range pods {
		broken := false
		for i, b := range budgets {
			if !Covers(b, p.GetPod()) {
				continue
			}
			// One that is being disrupted already has been counted.
			if _, counted := b.Status.DisruptedPods[p.GetPod().Name]; counted {
				continue
			}
			allowed[i]--
			broken = broken || allowed[i] < 0
		}
		if broken {
			protected = append(protected, p)
		} else {
			others = append(others, p)
		}
	}
	return protected, others
}

// Covers reports whether a disruption budget protects a pod.
func Covers(b *policyv1.PodDisruptionBudget, pod *v1.Pod) bool {
	if b.Namespace != pod.Namespace || len(pod.Labels) == 0 {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	return err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels))
}

// leastHarm chooses, as documented, the node where the fewest budgets break, then
// where the most important victim is least important, then with the lowest sum of
// priorities, then with the fewest victims, then where the most important ones
// started last.
func leastHarm(candidates []candidate) candidate {
	least := 0
	lowest := candidates[0].harm()
	for i := 1; i < len(candidates); i++ {
		if h := candidates[i].harm(); h.compare(lowest) < 0 {
			least, lowest = i, h
		}
	}
	return candidates[least]
}

// harm is what evicting the victims of a candidate would do: the highest priority of them, the
// sum of all, counted from the lowest priority there is so that more victims always weigh more, and
// when the first of those with the highest priority started.
type harm struct {
	violations int
	top        int32
	sum        int64
	victims    int
	since      time.Time
}

func (h harm) compare(other harm) int {
	return cmp.Or(
		cmp.Compare(h.violations, other.violations),
		cmp.Compare(h.top, other.top),
		cmp.Compare(h.sum, other.sum),
		cmp.Compare(h.victims, other.victims),
		-h.since.Compare(other.since),
	)
}

func (c *candidate) harm() harm {
	h := harm{violations: c.violations, top: math.MinInt32, victims: len(c.victims)}
	for _, v := range c.victims {
		priority, started := corev1helpers.PodPriority(v), startTime(v)
		h.sum += int64(priority) + math.MaxInt32 + 1
		switch {
		case priority > h.top || h.since.IsZero():
			h.top, h.since = priority, started
		case priority == h.top && started.Before(h.since):
			h.since = started
		}
	}
	return h
}
