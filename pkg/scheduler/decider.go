package scheduler

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/config"
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

	fw       *framework.Framework
	snapshot *cache.Snapshot
	memo     *framework.Memo
	next     int
}

// Decision is what came of one attempt at one pod.
type Decision struct {
	// Node is where the pod goes.
	Node string
	// Scores are those of the nodes to choose from, if there were several.
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
	d := &Decider{Cluster: cache.New(), snapshot: cache.NewSnapshot(), memo: framework.NewMemo()}
	var q *queue.Queue
	fw, err := framework.New(ctx, config.Specs(c)[0], plugins.Registry(), framework.Deps{
		Client:      client,
		Informers:   f,
		Recorder:    r,
		Snapshot:    d.snapshot,
		Nominator:   func() *queue.Queue { return q },
		Waiting:     framework.NewWaitingPods(),
		Parallelism: int(*c.Parallelism),
	})
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", *c.Profiles[0].SchedulerName, err)
	}
	q = queue.New(queue.Config{Less: fw.Less})
	d.fw, d.Nominator = fw, q
	return d, nil
}

// Admit says whether the pod may enter the queue.
func (d *Decider) Admit(ctx context.Context, pod *v1.Pod) *fwk.Status {
	return d.fw.RunPreEnqueue(ctx, pod)
}

// Decide looks for a node for the pod, and for pods to evict if it fits on none.
func (d *Decider) Decide(ctx context.Context, pod *v1.Pod) (Decision, error) {
	d.Cluster.UpdateSnapshot(d.snapshot)
	state := framework.NewCycleState(false)
	p, err := (&cycle{fw: d.fw, snapshot: d.snapshot, start: d.next, memo: d.memo}).run(ctx, state, pod, seedOf(pod, 1))
	if err == nil {
		d.next = p.next
		return Decision{Node: p.node, Scores: p.scores}, nil
	}
	var fit *framework.FitError
	if !errors.As(err, &fit) {
		return Decision{}, err
	}
	nominated, considered := makeRoom(ctx, d.fw, state, pod, fit)
	return Decision{Fit: fit, Nominated: nominated, Preemption: considered}, nil
}
