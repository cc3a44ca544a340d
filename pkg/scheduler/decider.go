package scheduler

import (
	"context"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	configv1 "k8s.io/kube-scheduler/config/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	"github.com/leme-k8s/leme/pkg/scheduler/explain"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
	"github.com/leme-k8s/leme/pkg/scheduler/plugins"
	"github.com/leme-k8s/leme/pkg/scheduler/podgroup"
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
func NewDecider(ctx context.Context, c *configv1.KubeSchedulerConfiguration, gates framework.Gates, client kubernetes.Interface, f informers.SharedInformerFactory, r events.EventRecorderLogger) (*Decider, error) {
	m, err := newMind(ctx, c, plugins.Registry(), framework.Deps{Client: client, Informers: f, Gates: gates}, func(string) events.EventRecorderLogger { return r })
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

// GroupDecision is what came of one attempt at the pods of a tree of groups that wait.
type GroupDecision struct {
	// Held says why the pods may not enter the queue; then there is nothing else.
	Held *fwk.Status
	// Nodes are where pods go, Refusals why they go nowhere, each by the names of pods.
	Nodes, Refusals map[string]string
	// Groups is what is said of PodGroups, by their names.
	Groups map[string]metav1.Condition
	// Victims go for them, namespace/name.
	Victims []string
}

// DecideGroup looks for nodes for the pods of a tree of groups in a namespace, and for pods to evict if too few fit.
func (d *Decider) DecideGroup(ctx context.Context, namespace string, root fwk.EntityKey) (GroupDecision, error) {
	pods, err := d.mind.pods.Pods(namespace).List(labels.Everything())
	if err != nil {
		return GroupDecision{}, err
	}
	slices.SortFunc(pods, func(a, b *v1.Pod) int { return strings.Compare(a.Name, b.Name) })
	var mates []*v1.Pod
	for _, p := range pods {
		d.mind.groups.Set(p)
	}
	for _, p := range pods {
		key, ok := podgroup.EntityOf(p)
		if !ok || p.Spec.NodeName != "" {
			continue
		}
		if above, _, err := d.mind.groups.GetRootKeyForGroup(key); err == nil && above == root {
			mates = append(mates, p)
		}
	}
	if len(mates) == 0 {
		return GroupDecision{Held: fwk.NewStatus(fwk.Unschedulable, "no pods wait")}, nil
	}
	for _, p := range mates {
		if s := d.fw.RunPreEnqueue(ctx, p); !s.IsSuccess() {
			return GroupDecision{Held: s}, nil
		}
	}
	tree, err := d.mind.groups.Tree(root, mates)
	if err != nil {
		return GroupDecision{}, err
	}
	made := d.mind.decideGroup(ctx, groupQuestion{fw: d.fw, trial: true, group: tree, attempts: make([]int, len(mates)), start: d.next, seed: seedOf(mates[0], 1)})
	out := GroupDecision{Nodes: map[string]string{}, Refusals: map[string]string{}, Groups: map[string]metav1.Condition{}, Victims: made.outcome().Victims}
	for i, p := range tree.Pods {
		if m := &made.members[i]; m.err != nil {
			out.Refusals[p.Name] = m.told.Message
		} else {
			out.Nodes[p.Name] = m.node
		}
	}
	for _, g := range made.groups {
		out.Groups[g.group.Name] = podgroup.Condition(g.status)
	}
	return out, nil
}
