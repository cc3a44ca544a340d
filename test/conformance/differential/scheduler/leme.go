package scheduler

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler"
	"github.com/leme-k8s/leme/pkg/scheduler/cache"
	lemeconfig "github.com/leme-k8s/leme/pkg/scheduler/config"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// candidate is Leme's scheduler.
type candidate struct {
	*world
	decider *scheduler.Decider
}

// choice is what it says of one pod.
type choice struct {
	scheduler.Decision
	scores  map[string]map[string]int64 // by node and plugin, weighted
	refused *refusal
	err     error
}

func newCandidate(ctx context.Context, c *Case) (*candidate, error) {
	s := &candidate{world: newWorld(c)}
	var err error
	if s.decider, err = scheduler.NewDecider(ctx, lemeconfig.Default(), framework.Gates{}, s.client, s.factory, events.NewFakeRecorder(1000)); err != nil {
		return nil, err
	}
	if err := s.start(ctx, c); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		s.decider.Cluster.SetNode(n)
	}
	return s, nil
}

func (s *candidate) place(pod *v1.Pod) error {
	s.decider.Cluster.SetPod(pod)
	return s.setPod(pod)
}

func (s *candidate) remove(pod *v1.Pod) error {
	s.decider.Cluster.RemovePod(pod.UID)
	return s.deletePod(pod)
}

func (s *candidate) nominate(ctx context.Context, pod *v1.Pod, node string) error {
	info, err := cache.NewPodInfo(pod)
	if err != nil {
		return err
	}
	s.decider.Nominator.AddNominatedPod(klog.FromContext(ctx), info, &fwk.NominatingInfo{NominatingMode: fwk.ModeOverride, NominatedNodeName: node})
	return s.setPod(pod)
}

func (s *candidate) withdraw(pod *v1.Pod) { s.decider.Nominator.DeleteNominatedPodIfExists(pod) }

func (s *candidate) admit(ctx context.Context, pod *v1.Pod) *fwk.Status {
	return s.decider.Admit(ctx, pod)
}

func (s *candidate) decide(ctx context.Context, c *Case, pod *v1.Pod) *choice {
	d, err := s.decider.Decide(ctx, pod)
	out := &choice{Decision: d, scores: byPlugin(d.Scores), err: err}
	if d.Fit == nil {
		return out
	}
	why := d.Fit.Diagnosis
	room := why.PostFilterMsg
	why.PostFilterMsg = ""
	out.refused = &refusal{message: d.Fit.Error(), room: room, byNode: map[string]string{}, unschedulable: sets.List(why.UnschedulablePlugins), pending: sets.List(why.PendingPlugins)}
	for _, n := range c.Nodes {
		out.refused.byNode[n.Name] = tell(why.Get(n.Name))
	}
	if d.Nominated != nil {
		out.refused.nominated = nomination(d.Nominated)
	}
	return out
}

// victims are the pods that the choice evicts, if it does.
func (c *choice) victims() (node string, pods []string, err error) {
	if c.Preemption == nil || c.Preemption.Chosen == "" {
		return "", nil, nil
	}
	for _, p := range c.Preemption.Candidates {
		if p.Node == c.Preemption.Chosen {
			return p.Node, p.Victims, nil
		}
	}
	return "", nil, errors.New("the node that was chosen for eviction is no candidate")
}
