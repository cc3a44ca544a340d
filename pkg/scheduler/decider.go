package scheduler

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/queue"
)

// A Decider decides about pods in a cluster that it is told of, and binds none: the
// part of a scheduler that can be compared with another's. It belongs to one goroutine.
type Decider struct {
	// Cluster has the nodes and the pods on them.
	Cluster *cache.Cache
	// Nominator has the pods that nodes are promised to.
	Nominator fwk.PodNominator

	mind *mind
	fw   *framework.Framework
	next int
}

// Decision is what came of one attempt at one pod.
type Decision struct {
	// Node is where the pod goes.
	Node string
	// Scores are those of the nodes to choose from, if there were several; good until the next decision.
	Scores []fwk.NodePluginScores
	// Fit says why the pod goes nowhere, in the words that its status gets.
	Fit *framework.FitError
	// Nominated is what becomes of the node that the pod is promised; nil for no change.
	Nominated *fwk.NominatingInfo
	// Preemption is what was considered to make room.
	Preemption *explain.Preemption
}

// NewDecider returns a Decider for the first profile of a configuration. All that is not
// nodes and pods is read from informers, which the caller starts; a preemption evicts
// pods through client.
func NewDecider(ctx context.Context, c *configv1.KubeSchedulerConfiguration, client kubernetes.Interface, f informers.SharedInformerFactory, r events.EventRecorderLogger) (*Decider, error) {
	m, err := newMind(ctx, c, plugins.Registry(), framework.Deps{Client: client, Informers: f}, func(string) events.EventRecorderLogger { return r })
	if err != nil {
		return nil, err
	}
	m.queue = queue.New(queue.Config{Less: m.less()})
	return &Decider{Cluster: m.cache, Nominator: m.queue, mind: m, fw: m.profiles[*c.Profiles[0].SchedulerName]}, nil
}

// Admit says whether the pod may enter the queue.
func (d *Decider) Admit(ctx context.Context, pod *v1.Pod) *fwk.Status {
	return d.fw.RunPreEnqueue(ctx, pod)
}

// Decide looks for a node for the pod, and for pods to evict if it fits on none.
func (d *Decider) Decide(ctx context.Context, pod *v1.Pod) (Decision, error) {
	made := d.mind.decide(ctx, question{fw: d.fw, state: framework.NewCycleState(false), pod: pod, attempt: 1, start: d.next, seed: seedOf(pod, 1)})
	switch {
	case made.err == nil:
		d.next = made.next
		return Decision{Node: made.node, Scores: made.scores}, nil
	case made.fit == nil:
		return Decision{}, made.err
	}
	return Decision{Fit: made.fit, Nominated: made.nominated, Preemption: made.told.Preemption}, nil
}
