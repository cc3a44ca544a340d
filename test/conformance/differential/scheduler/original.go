package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	original "k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
)

// judge is the original scheduler. It is asked for everything that its rules allow, not
// only for what it would choose.
type judge struct {
	*world
	sched    *original.Scheduler
	fw       framework.Framework
	snapshot *cache.Snapshot
	evictor  *defaultpreemption.DefaultPreemption
}

// verdict is what the original says of one pod.
type verdict struct {
	allowed  sets.Set[string]
	scores   map[string]map[string]int64 // by node and plugin, weighted
	err      error                       // not that the pod fits nowhere
	refused  *refusal
	eviction map[string][]string // victims by node, where evicting would help
	best     string              // the node where evicting harms least
}

// refusal is why a pod fits nowhere, as either scheduler tells it.
type refusal struct {
	message       string // what the pod's status will say, but for room
	room          string // what it says of making room for the pod
	byNode        map[string]string
	unschedulable []string // plugins
	pending       []string // plugins
	nominated     string   // what becomes of the nominated node
}

func newJudge(ctx context.Context, c *Case) (*judge, error) {
	j := &judge{world: newWorld(c), snapshot: cache.NewEmptySnapshot()}
	recorder := func(string) events.EventRecorderLogger { return events.NewFakeRecorder(1000) }
	var err error
	if j.sched, err = original.New(ctx, j.client, j.factory, nil, recorder, original.WithNodeInfoSnapshot(j.snapshot)); err != nil {
		return nil, err
	}
	if j.sched.APIDispatcher != nil {
		j.sched.APIDispatcher.Run(klog.FromContext(ctx))
	}
	j.fw = j.sched.Profiles[v1.DefaultSchedulerName]
	args := &config.DefaultPreemptionArgs{MinCandidateNodesPercentage: 10, MinCandidateNodesAbsolute: 100}
	gates := feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate)
	if j.evictor, err = defaultpreemption.New(ctx, args, j.fw, gates); err != nil {
		return nil, err
	}
	if err := j.start(ctx, c); err != nil {
		return nil, err
	}
	if err := j.sched.WaitForHandlersSync(ctx); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		j.sched.Cache.AddNode(klog.FromContext(ctx), n)
	}
	return j, nil
}

func (j *judge) place(ctx context.Context, pod *v1.Pod) error {
	return errors.Join(j.setPod(pod), j.sched.Cache.AddPod(klog.FromContext(ctx), pod))
}

func (j *judge) remove(ctx context.Context, pod *v1.Pod) error {
	return errors.Join(j.deletePod(pod), j.sched.Cache.RemovePod(klog.FromContext(ctx), pod))
}

// nominate has the pod, with a node that it is promised, wait in the queue.
func (j *judge) nominate(ctx context.Context, pod *v1.Pod) error {
	j.sched.SchedulingQueue.Add(ctx, pod)
	return j.setPod(pod)
}

func (j *judge) withdraw(ctx context.Context, pod *v1.Pod) {
	j.sched.SchedulingQueue.Delete(klog.FromContext(ctx), pod)
}

// admit says whether the pod may enter the queue.
func (j *judge) admit(ctx context.Context, pod *v1.Pod) *fwk.Status {
	for _, p := range j.fw.PreEnqueuePlugins() {
		if s := p.PreEnqueue(ctx, pod); !s.IsSuccess() {
			return s.WithPlugin(p.Name())
		}
	}
	return nil
}

func (j *judge) decide(ctx context.Context, pod *v1.Pod) (*verdict, error) {
	if err := j.sched.Cache.UpdateSnapshot(klog.FromContext(ctx), j.snapshot); err != nil {
		return nil, err
	}
	info, err := framework.NewPodInfo(pod)
	if err != nil {
		return nil, err
	}
	state, v := framework.NewCycleState(), &verdict{}
	_, err = j.sched.SchedulePod(ctx, j.fw, state, &framework.QueuedPodInfo{PodInfo: info})
	var fit *framework.FitError
	switch {
	case errors.As(err, &fit):
		v.allowed = sets.New[string]()
		return v, j.explain(ctx, state, pod, fit, v)
	case err != nil:
		v.err = err
		return v, nil
	}
	return v, j.allow(ctx, pod, v)
}

// allow finds all nodes that the rules allow, and their scores.
func (j *judge) allow(ctx context.Context, pod *v1.Pod, v *verdict) error {
	state := framework.NewCycleState()
	result, s, _ := j.fw.RunPreFilterPlugins(ctx, state, pod)
	if !s.IsSuccess() {
		return fmt.Errorf("PreFilter changed its mind: %w", s.AsError())
	}
	all, err := j.snapshot.NodeInfos().List()
	if err != nil {
		return err
	}
	v.allowed, v.scores = sets.New[string](), map[string]map[string]int64{}
	var nodes []fwk.NodeInfo
	for _, n := range all {
		name := n.Node().Name
		if !result.AllNodes() && !result.NodeNames.Has(name) {
			continue
		}
		if j.fw.RunFilterPluginsWithNominatedPods(ctx, state, pod, n).IsSuccess() {
			v.allowed.Insert(name)
			nodes = append(nodes, n)
		}
	}
	if len(nodes) < 2 {
		return nil
	}
	if s := j.fw.RunPreScorePlugins(ctx, state, pod, nodes); !s.IsSuccess() {
		return s.AsError()
	}
	scores, s := j.fw.RunScorePlugins(ctx, state, pod, nodes)
	if !s.IsSuccess() {
		return s.AsError()
	}
	v.scores = byPlugin(scores)
	return nil
}

func byPlugin(scores []fwk.NodePluginScores) map[string]map[string]int64 {
	out := map[string]map[string]int64{}
	for _, n := range scores {
		out[n.Name] = map[string]int64{}
		for _, p := range n.Scores {
			if p.Score != 0 { // a plugin that was skipped says nothing
				out[n.Name][p.Name] = p.Score
			}
		}
	}
	return out
}

// explain asks why the pod fits nowhere, and which pods could be evicted for it.
func (j *judge) explain(ctx context.Context, state fwk.CycleState, pod *v1.Pod, fit *framework.FitError, v *verdict) error {
	d := &fit.Diagnosis
	v.refused = &refusal{byNode: map[string]string{}, unschedulable: sets.List(d.UnschedulablePlugins), pending: sets.List(d.PendingPlugins)}
	all, err := j.snapshot.NodeInfos().List()
	if err != nil {
		return err
	}
	for _, n := range all {
		v.refused.byNode[n.Node().Name] = tell(d.NodeToStatus.Get(n.Node().Name))
	}
	if err := j.evict(ctx, pod, d, v); err != nil {
		return err
	}
	result, s := j.fw.RunPostFilterPlugins(ctx, state, pod, d.NodeToStatus)
	v.refused.message, v.refused.room = fit.Error(), s.Message()
	if result != nil {
		v.refused.nominated = nomination(result.NominatingInfo)
	}
	return nil
}

// evict finds every node where evicting pods would help, and the best. Plugins' notes are its own, as trying
// adds to them.
func (j *judge) evict(ctx context.Context, pod *v1.Pod, d *framework.Diagnosis, v *verdict) error {
	nodes, err := d.NodeToStatus.NodesForStatusCode(j.snapshot.NodeInfos(), fwk.Unschedulable)
	if err != nil || len(nodes) == 0 {
		return err
	}
	var budgets []*policyv1.PodDisruptionBudget
	if budgets, err = j.factory.Policy().V1().PodDisruptionBudgets().Lister().List(labels.Everything()); err != nil {
		return err
	}
	state := framework.NewCycleState()
	if _, s, _ := j.fw.RunPreFilterPlugins(ctx, state, pod); !s.IsSuccess() {
		return fmt.Errorf("PreFilter changed its mind: %w", s.AsError())
	}
	// As in PostFilter, what fails on some nodes does not keep others from being candidates.
	candidates, _, _ := j.evictor.Evaluator.DryRunPreemption(ctx, state, pod, nodes, budgets, 0, int32(len(nodes)))
	if len(candidates) == 0 {
		return nil
	}
	v.eviction = map[string][]string{}
	for _, c := range candidates {
		v.eviction[c.Name()] = names(c.Victims().Pods)
	}
	v.best = j.evictor.Evaluator.SelectCandidate(ctx, candidates).Name()
	return nil
}

func names(pods []*v1.Pod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Namespace+"/"+p.Name)
	}
	return out
}

// tell writes a status down: who refuses, whether evicting may help, and why.
func tell(s *fwk.Status) string {
	if s == nil {
		return "yes"
	}
	return fmt.Sprintf("%s: %s: %q", s.Plugin(), s.Code(), slices.Sorted(slices.Values(s.Reasons())))
}

func nomination(n *fwk.NominatingInfo) string {
	if n == nil || n.NominatingMode == fwk.ModeNoop {
		return "as it is"
	}
	return fmt.Sprintf("%q", n.NominatedNodeName)
}

// plugins lists those that refuse nodes of a pod.
func (r *refusal) plugins() []string {
	return slices.Sorted(maps.Keys(sets.New(slices.Concat(r.unschedulable, r.pending)...)))
}
