package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/devices"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/extender"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
	"github.com/leme-k8s/leme/pkg/scheduler/record"
)

// A mind is all that decisions are made from: the profiles, what is known of the
// cluster, and the nodes that are promised to pods. The scheduler has one that watch
// events keep up to date; a dry run has one of its own, made from that, and so has a
// replay, made from a recording.
type mind struct {
	component *configv1.KubeSchedulerConfiguration
	profiles  map[string]*framework.Framework
	extenders []fwk.Extender
	pods      corelisters.PodLister
	cache     *cache.Cache
	groups    *podgroup.Groups // nil while the GenericWorkload gate is off
	queue     *queue.Queue     // made from the hints of the profiles, after them

	// These belong to the goroutine that decides.
	snapshot *cache.Snapshot
	memo     *framework.Memo
}

// newMind makes the profiles of a configuration; deps has what they need of the outside,
// and recorder makes each one's recorder of events. The queue is left to the caller.
func newMind(ctx context.Context, c *configv1.KubeSchedulerConfiguration, plugins framework.Registry, deps framework.Deps, recorder func(profile string) events.EventRecorderLogger) (*mind, error) {
	m := &mind{
		component: c,
		profiles:  map[string]*framework.Framework{},
		extenders: deps.Extenders,
		pods:      deps.Informers.Core().V1().Pods().Lister(),
		cache:     cache.New(),
		snapshot:  cache.NewSnapshot(),
		memo:      framework.NewMemo(),
	}
	if deps.Gates.GenericWorkload {
		var err error
		if m.groups, err = podgroup.New(deps.Informers, deps.Gates.CompositePodGroup); err != nil {
			return nil, err
		}
		deps.Groups = m.groups
		m.snapshot.SetGroups(m.groups)
	}
	deps.Snapshot = m.snapshot
	deps.Devices = devices.NewManager(deps.Informers)
	deps.Nominator = func() *queue.Queue { return m.queue }
	deps.Waiting = framework.NewWaitingPods()
	deps.Parallelism = int(*c.Parallelism)
	var sorter string
	for i, spec := range config.Specs(c, deps.Gates) {
		deps.Recorder = recorder(spec.SchedulerName)
		fw, err := framework.New(ctx, spec, plugins, deps)
		if err != nil {
			return nil, fmt.Errorf("profiles[%d] (%s): %w", i, spec.SchedulerName, err)
		}
		if sorter == "" {
			sorter = fw.QueueSortName()
		} else if sorter != fw.QueueSortName() {
			return nil, fmt.Errorf("profiles[%d].plugins.queueSort: all profiles share one queue, so %q must be %q as in the first", i, fw.QueueSortName(), sorter)
		}
		m.profiles[spec.SchedulerName] = fw
	}
	return m, nil
}

// newExtenders makes the extenders of a configuration.
func newExtenders(c *configv1.KubeSchedulerConfiguration) ([]fwk.Extender, error) {
	var made []fwk.Extender
	for i, e := range c.Extenders {
		x, err := extender.New(e)
		if err != nil {
			return nil, fmt.Errorf("extenders[%d]: %w", i, err)
		}
		made = append(made, x)
	}
	return made, nil
}

// less is the order of the queue, the same in all profiles.
func (m *mind) less() fwk.LessFunc {
	for _, fw := range m.profiles {
		return fw.Less
	}
	return nil
}

func (m *mind) percentage(profile string) int32 {
	for i := range m.component.Profiles {
		if p := &m.component.Profiles[i]; *p.SchedulerName == profile && p.PercentageOfNodesToScore != nil {
			return *p.PercentageOfNodesToScore
		}
	}
	return *m.component.PercentageOfNodesToScore
}

// A decision is what comes of one try at a pod: a node, or why there is none and what
// is done about it.
type decision struct {
	placement
	// err is nil if there is a node.
	err error
	// fit is err, if that says that no node fits.
	fit *framework.FitError
	// nominated is the node that the pod is promised, if that changes.
	nominated *fwk.NominatingInfo
	// told is what people can know of it.
	told explain.Attempt
}

// noPromise has a pod that is promised a node lose it.
var noPromise = &fwk.NominatingInfo{NominatingMode: fwk.ModeOverride}

// promise is what becomes of the node that the pod is promised, if it found none. An
// error ends the promise: it may be due to the node.
func (d *decision) promise() *fwk.NominatingInfo {
	if d.err != nil && d.fit == nil {
		return noPromise
	}
	return d.nominated
}

// A question is what a decision depends on beside the mind: which pod is tried, and how.
type question struct {
	fw      *framework.Framework
	state   fwk.CycleState
	pod     *v1.Pod
	attempt int       // how often the pod has been tried, this time included
	start   int       // the number of the node at which the search begins
	seed    uint64    // what chooses among equals
	now     time.Time // when; the time of day if zero
}

// decide tries a pod on the cluster as it is now.
func (m *mind) decide(ctx context.Context, q question) decision {
	m.cache.UpdateSnapshot(m.snapshot)
	fw, state, pod := q.fw, q.state, q.pod
	framework.SetTime(state, q.now)
	c := &cycle{fw: fw, snapshot: m.snapshot, percentage: m.percentage(pod.Spec.SchedulerName), start: q.start, memo: m.memo}
	p, err := c.run(ctx, state, pod, q.seed)
	d := decision{placement: p, err: err}
	d.told = explain.Attempt{Number: q.attempt, Nodes: m.snapshot.Len(), Evaluated: p.evaluated, Feasible: p.feasible}
	switch {
	case err == nil:
		d.told.Node, d.told.Scores, d.told.Refusals = p.node, explain.Scores(p.scores), p.diagnosis.Refusals(0, explain.MaxRefusals)
		return d
	case !errors.As(err, &d.fit):
		d.told.Message = err.Error()
		return d
	}
	d.told.Refusals = d.fit.Refusals()
	d.nominated, d.told.Preemption = makeRoom(ctx, fw, state, pod, d.fit)
	d.told.Message = d.fit.Error()
	return d
}

// outcome is the decision as it is recorded.
func (d *decision) outcome() record.Outcome {
	o := record.Outcome{Message: d.told.Message, Evaluated: d.evaluated, Feasible: d.feasible, Scores: d.told.Scores}
	if d.err == nil {
		o.Node = d.node
	}
	if n := d.promise(); n.Mode() == fwk.ModeOverride {
		o.Nominated = &n.NominatedNodeName
	}
	if p := d.told.Preemption; p != nil {
		for _, c := range p.Candidates {
			if c.Node == p.Chosen {
				o.Victims = c.Victims
			}
		}
	}
	return o
}

// assume takes a pod to be on a node. It returns the pod as it will be.
func (m *mind) assume(ctx context.Context, pod *v1.Pod, node string) (*v1.Pod, error) {
	placed := new(v1.Pod)
	*placed = *pod // the rest is the informer's, which nobody changes
	placed.Spec.NodeName = node
	info, _ := cache.NewPodInfo(placed) // a bad selector was reported when the pod came
	if err := m.cache.AssumePod(info); err != nil {
		return nil, err
	}
	m.groups.Assume(placed)
	m.mayBreak(ctx, pod, node, func() { m.queue.DeleteNominatedPodIfExists(pod) })
	return placed, nil
}

// unassume takes back that a pod is on a node.
func (m *mind) unassume(placed *v1.Pod) {
	m.cache.ForgetPod(placed)
	m.groups.Forget(placed)
}

// promise notes which node a pod that got none is promised, if that changes. It returns
// the pod as it is now; nil if it has gone, or has got a node from somebody else.
func (m *mind) promise(ctx context.Context, pod *v1.Pod, nominated *fwk.NominatingInfo) *cache.PodInfo {
	current, err := m.pods.Pods(pod.Namespace).Get(pod.Name)
	if err != nil || current.UID != pod.UID || current.Spec.NodeName != "" {
		m.mayBreak(ctx, pod, "", func() { m.queue.DeleteNominatedPodIfExists(pod) })
		return nil
	}
	info, _ := cache.NewPodInfo(current)
	m.mayBreak(ctx, pod, "", func() { m.queue.AddNominatedPod(klog.FromContext(ctx), info, nominated) })
	return info
}

// mayBreak does what may end the promise of a node to a pod. If it ends and the pod does not go there, but to
// another node or nowhere, then those are tried again that were refused because of it.
func (m *mind) mayBreak(ctx context.Context, pod *v1.Pod, goesTo string, do func()) {
	promised := m.queue.PromisedNode(pod.UID)
	do()
	if promised == "" || promised == goesTo || promised == m.queue.PromisedNode(pod.UID) {
		return
	}
	gone := *pod
	gone.Spec.NodeName = promised
	m.queue.Event(ctx, fwk.ClusterEvent{Resource: fwk.AssignedPod, ActionType: fwk.Delete}, &gone, nil)
}

// makeRoom asks what can be done for a pod that fits nowhere, and adds the answer to why it does not.
func makeRoom(ctx context.Context, fw *framework.Framework, state fwk.CycleState, pod *v1.Pod, fit *framework.FitError) (*fwk.NominatingInfo, *explain.Preemption) {
	if !fw.HasPostFilter() {
		return nil, nil
	}
	result, s := fw.RunPostFilter(ctx, state, pod, fit.Diagnosis)
	if s.Code() == fwk.Error {
		klog.FromContext(ctx).Error(s.AsError(), "Looking for pods to preempt")
	}
	fit.Diagnosis.PostFilterMsg = s.Message()
	told := &explain.Preemption{}
	if considered, err := state.Read(explain.PreemptionKey); err == nil {
		*told = *considered.(*explain.Preemption)
	}
	told.Message = s.Message()
	if result == nil {
		return nil, told
	}
	return result.NominatingInfo, told
}
