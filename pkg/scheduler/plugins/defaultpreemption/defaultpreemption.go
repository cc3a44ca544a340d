// Package defaultpreemption makes room for a pod that fits nowhere: it chooses a node
// on which the pod would fit if pods of lower priority went, evicts those, and has
// the node promised to the pod.
//
// What to evict is decided on copies of node and state (victims.go); evicting goes on
// by itself while other pods are scheduled (evict.go).
package defaultpreemption

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
)

// Name of the plugin.
const Name = "DefaultPreemption"

// Plugin implements postFilter, podGroupPostFilter and preEnqueue.
type Plugin struct {
	handle     fwk.Handle
	percentage int // of the nodes, to look for victims on at least
	absolute   int // nodes, likewise
	pods       corelisters.PodLister
	budgets    policylisters.PodDisruptionBudgetLister
	evictions  *evictions
	trials     trials
	gates      framework.Gates
	metrics    *recorder
}

var (
	_ fwk.PostFilterPlugin  = &Plugin{}
	_ fwk.PreEnqueuePlugin  = &Plugin{}
	_ fwk.EnqueueExtensions = &Plugin{}
)

// New makes the plugin from DefaultPreemptionArgs.
func New(ctx context.Context, args runtime.Object, h fwk.Handle) (fwk.Plugin, error) {
	a, ok := args.(*configv1.DefaultPreemptionArgs)
	if !ok || a.MinCandidateNodesPercentage == nil || a.MinCandidateNodesAbsolute == nil {
		return nil, fmt.Errorf("args are of type %T, want DefaultPreemptionArgs with defaults", args)
	}
	pods := h.SharedInformerFactory().Core().V1().Pods().Lister()
	return &Plugin{
		handle:     h,
		percentage: int(*a.MinCandidateNodesPercentage),
		absolute:   int(*a.MinCandidateNodesAbsolute),
		pods:       pods,
		budgets:    h.SharedInformerFactory().Policy().V1().PodDisruptionBudgets().Lister(),
		evictions:  newEvictions(context.WithoutCancel(ctx), h, pods),
		gates:      framework.GatesOf(h),
		metrics:    sharedRecorder(),
	}, nil
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return Name }

// PreEnqueue keeps a pod out of the queue while its victims are being evicted.
func (p *Plugin) PreEnqueue(_ context.Context, pod *v1.Pod) *fwk.Status {
	if p.evictions.running(string(pod.UID)) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "waiting for the preemption for this pod to be finished")
	}
	groups := p.handle.PodGroupManager()
	key, ok := podgroup.EntityOf(pod)
	if !ok || groups == nil {
		return nil
	}
	if root, _, err := groups.GetRootKeyForGroup(key); err == nil && p.evictions.running(root.String()) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "waiting for the preemption for this pod group to be finished")
	}
	return nil
}

// EventsToRegister: the plugins that rejected the pod know when it is worth another
// try. This one registers only so that its gate is looked at again.
func (p *Plugin) EventsToRegister(context.Context) ([]fwk.ClusterEventWithHint, error) {
	return []fwk.ClusterEventWithHint{{
		Event: fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete},
		QueueingHintFn: func(klog.Logger, *v1.Pod, any, any) (fwk.QueueingHint, error) {
			return fwk.QueueSkip, nil
		},
	}}, nil
}

// PostFilter finds victims for a pod that fits on no node.
func (p *Plugin) PostFilter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, statuses fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	began := time.Now()
	result, s := p.preempt(ctx, state, pod, statuses)
	if !framework.IsTrial(state) {
		p.metrics.tried(s, time.Since(began))
	}
	if msg := s.Message(); msg != "" {
		s = fwk.NewStatus(s.Code(), "preemption: "+msg)
	}
	return result, s
}

func (p *Plugin) preempt(ctx context.Context, state fwk.CycleState, pod *v1.Pod, statuses fwk.NodeToStatusReader) (*fwk.PostFilterResult, *fwk.Status) {
	// The pod's nominated node may have been written since it was queued.
	pod, err := p.pods.Pods(pod.Namespace).Get(pod.Name)
	if err != nil {
		return nil, fwk.AsStatus(err)
	}
	nodes := p.handle.SnapshotSharedLister().NodeInfos()
	if reason := notEligible(pod, statuses, nodes, p.handle.PodGroupManager()); reason != "" {
		return nil, fwk.NewStatus(fwk.Unschedulable, reason)
	}
	candidates, refused, s := p.candidates(ctx, state, pod, statuses)
	if !s.IsSuccess() {
		return nil, s
	}
	if len(candidates) == 0 {
		all, err := nodes.List()
		if err != nil {
			return nil, fwk.AsStatus(err)
		}
		fit := &framework.FitError{Pod: pod, NumAllNodes: len(all), Diagnosis: refused}
		// A promise that the pod had is worth nothing.
		return nominate(""), fwk.NewStatus(fwk.Unschedulable, fit.Error())
	}
	if candidates, err = askExtenders(ctx, p.handle.Extenders(), pod, candidates, nodes); err != nil {
		return nil, fwk.AsStatus(err)
	}
	if len(candidates) == 0 {
		return nil, fwk.NewStatus(fwk.Unschedulable, "no candidate node for preemption")
	}
	chosen := leastHarm(candidates)
	state.Write(explain.PreemptionKey, considered(candidates, chosen.node))
	klog.FromContext(ctx).V(2).Info("Preempting", "node", chosen.node, "victims", len(chosen.victims))
	if !framework.IsTrial(state) {
		p.metrics.victims.Observe(float64(len(chosen.victims)))
		p.evictions.start(single(pod), chosen.victims)
	}
	return nominate(chosen.node), fwk.NewStatus(fwk.Success,
		fmt.Sprintf("found a potential placement for pod on node %v, preempting %d victims", chosen.node, len(chosen.victims)))
}

// considered tells people what there was to choose from.
func considered(candidates []candidate, chosen string) *explain.Preemption {
	const most = 10
	p := &explain.Preemption{Chosen: chosen}
	for _, c := range candidates {
		if len(p.Candidates) >= most && c.node != chosen {
			continue
		}
		told := explain.Candidate{Node: c.node, Violations: c.violations}
		for _, v := range c.victims {
			told.Victims = append(told.Victims, v.Namespace+"/"+v.Name)
		}
		p.Candidates = append(p.Candidates, told)
	}
	return p
}

func nominate(node string) *fwk.PostFilterResult {
	return &fwk.PostFilterResult{NominatingInfo: &fwk.NominatingInfo{NominatedNodeName: node, NominatingMode: fwk.ModeOverride}}
}

// notEligible says why pod may not preempt others: it must not at all, or it did and
// its victims are on their way out.
func notEligible(pod *v1.Pod, statuses fwk.NodeToStatusReader, nodes fwk.NodeInfoLister, groups fwk.PodGroupManager) string {
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == v1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	promised := pod.Status.NominatedNodeName
	// Where no eviction helps any more, there is nothing to wait for.
	if promised == "" || statuses.Get(promised).Code() == fwk.UnschedulableAndUnresolvable {
		return ""
	}
	node, err := nodes.Get(promised)
	if err != nil {
		return "" // it is gone
	}
	for _, victim := range node.GetPods() {
		if unitOf(victim.GetPod(), groups).priority < corev1helpers.PodPriority(pod) && endingForAnother(victim.GetPod()) {
			return "not eligible due to a terminating pod on the nominated node."
		}
	}
	return ""
}

// below reports whether a has a lower priority than b.
func below(a, b *v1.Pod) bool { return corev1helpers.PodPriority(a) < corev1helpers.PodPriority(b) }

// endingForAnother reports whether a pod is being deleted because of a preemption.
func endingForAnother(pod *v1.Pod) bool {
	return pod.DeletionTimestamp != nil && slices.ContainsFunc(pod.Status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonPreemptionByScheduler
	})
}

// candidates looks for nodes where victims would help, until there are enough, in
// runs whose order does not depend on processors. It also says why others are none.
func (p *Plugin) candidates(ctx context.Context, state fwk.CycleState, pod *v1.Pod, statuses fwk.NodeToStatusReader) ([]candidate, *framework.Diagnosis, *fwk.Status) {
	refused := framework.NewDiagnosis()
	refused.Absent = fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "Preemption is not helpful for scheduling")
	nodes, err := statuses.NodesForStatusCode(p.handle.SnapshotSharedLister().NodeInfos(), fwk.Unschedulable)
	if err != nil || len(nodes) == 0 {
		return nil, refused, fwk.AsStatus(err)
	}
	var budgets []*policyv1.PodDisruptionBudget
	if budgets, err = p.budgets.List(labels.Everything()); err != nil {
		return nil, refused, fwk.AsStatus(err)
	}
	var (
		want   = min(max(len(nodes)*p.percentage/100, p.absolute), len(nodes))
		first  = offset(pod, len(nodes))
		trials = p.trials.of(ctx, p.handle, state, pod, budgets)
		found  []candidate
		unkind int // candidates that break a budget
		failed *fwk.Status
	)
	for done := 0; done < len(nodes) && (len(found) < want || unkind == len(found)); {
		run := min(max(want-len(found), 16), len(nodes)-done)
		outcomes := make([]outcome, run)
		at := func(i int) fwk.NodeInfo { return nodes[(first+done+i)%len(nodes)] }
		var unknown []int
		for i := range outcomes {
			var ok bool
			if outcomes[i], ok = trials.known(at(i)); !ok {
				unknown = append(unknown, i)
			}
		}
		p.handle.Parallelizer().Until(ctx, len(unknown), func(n int) {
			i := unknown[n]
			o := &outcomes[i]
			o.candidate, o.status = selectVictims(ctx, p.handle, state.Clone(), pod, at(i).Snapshot(), budgets)
		}, Name)
		if err := ctx.Err(); err != nil {
			return nil, refused, fwk.AsStatus(err)
		}
		for _, i := range unknown {
			trials.learn(at(i), outcomes[i])
		}
		for i, o := range outcomes {
			switch s := o.status; {
			case s.IsSuccess():
				found = append(found, o.candidate)
				if o.violations > 0 {
					unkind++
				}
			case s.IsRejected():
				refused.RefuseNode(at(i).Node().Name, at(i), s)
			default:
				failed = s
			}
		}
		done += run
	}
	if len(found) == 0 && failed != nil {
		return nil, refused, failed
	}
	return found, refused, nil
}

// offset is where in the list of nodes the search begins, so that pods do not all
// look for victims on the same nodes.
func offset(pod *v1.Pod, nodes int) int {
	h := fnv.New32a()
	h.Write([]byte(pod.UID))
	return int(h.Sum32() % uint32(nodes))
}

// askExtenders lets extenders strike candidates out or change their victims.
func askExtenders(ctx context.Context, extenders []fwk.Extender, pod *v1.Pod, candidates []candidate, nodes fwk.NodeInfoLister) ([]candidate, error) {
	for _, e := range extenders {
		if !e.SupportsPreemption() || !e.IsInterested(pod) || len(candidates) == 0 {
			continue
		}
		asked := map[string]*extenderv1.Victims{}
		for _, c := range candidates {
			asked[c.node] = &extenderv1.Victims{Pods: c.victims, NumPDBViolations: int64(c.violations)}
		}
		answer, err := e.ProcessPreemption(pod, asked, nodes)
		if err != nil {
			if e.IsIgnorable() {
				klog.FromContext(ctx).V(2).Info("Going on without an extender that may be ignored", "extender", e.Name(), "err", err)
				continue
			}
			return nil, err
		}
		var kept []candidate
		for _, c := range candidates {
			v, ok := answer[c.node]
			switch {
			case !ok:
			case v != nil && len(v.Pods) > 0:
				kept = append(kept, candidate{c.node, v.Pods, int(v.NumPDBViolations)})
			case !e.IsIgnorable():
				return nil, fmt.Errorf("extender %s: expected at least one victim pod on node %q", e.Name(), c.node)
			}
		}
		candidates = kept
	}
	return candidates, nil
}
