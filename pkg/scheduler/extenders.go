package scheduler

import (
	"context"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	fwk "k8s.io/kube-scheduler/framework"

	"github.com/leme-k8s/leme/pkg/scheduler/extender"
	"github.com/leme-k8s/leme/pkg/scheduler/framework"
)

// struck returns those of the nodes that fit which extenders do not strike out.
func (c *cycle) struck(ctx context.Context, pod *v1.Pod, fit fitting, d *framework.Diagnosis) (fitting, error) {
	if len(c.fw.Extenders()) == 0 {
		return fit, nil
	}
	nodes, err := c.askExtenders(ctx, pod, fit.nodes, d)
	return fitting{nodes: nodes, found: make([]*framework.Finding, len(nodes))}, err
}

// askExtenders lets extenders strike nodes out, one after the other.
func (c *cycle) askExtenders(ctx context.Context, pod *v1.Pod, nodes []fwk.NodeInfo, d *framework.Diagnosis) ([]fwk.NodeInfo, error) {
	for _, e := range c.fw.Extenders() {
		if len(nodes) == 0 {
			break
		}
		if !e.IsFilter() || !e.IsInterested(pod) {
			continue
		}
		left, failed, unresolvable, err := e.Filter(pod, nodes)
		if err != nil {
			if e.IsIgnorable() {
				klog.FromContext(ctx).Info("Going on without an extender that may be ignored", "extender", e.Name(), "err", err)
				continue
			}
			return nil, err
		}
		for _, n := range nodes {
			name := n.Node().Name
			if reason, ok := unresolvable[name]; ok {
				d.Refuse(name, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, reason))
			} else if reason, ok := failed[name]; ok {
				d.Refuse(name, fwk.NewStatus(fwk.Unschedulable, reason))
			}
		}
		if len(left) < len(nodes) {
			d.UnschedulablePlugins.Insert(extender.Plugin)
		}
		nodes = left
	}
	return nodes, nil
}

// addExtenderScores adds what extenders think of the nodes, all asked at once. An
// extender that does not answer has no opinion.
func (c *cycle) addExtenderScores(ctx context.Context, pod *v1.Pod, nodes []fwk.NodeInfo, scores []fwk.NodePluginScores) error {
	var (
		asking sync.WaitGroup
		mu     sync.Mutex
		extra  = map[string]int64{}
	)
	for _, e := range c.fw.Extenders() {
		if !e.IsPrioritizer() || !e.IsInterested(pod) {
			continue
		}
		asking.Go(func() {
			list, weight, err := e.Prioritize(pod, nodes)
			if err != nil {
				klog.FromContext(ctx).V(2).Info("An extender gave no scores", "extender", e.Name(), "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, h := range *list {
				extra[h.Host] += h.Score * weight * (fwk.MaxNodeScore / extenderv1.MaxExtenderPriority)
			}
		})
	}
	asking.Wait()
	for i := range scores {
		scores[i].TotalScore += extra[scores[i].Name]
	}
	return ctx.Err()
}

// bindByExtender has an extender bind the pod, if there is one that wants to.
func (a *attempt) bindByExtender(placed *v1.Pod) (bool, *fwk.Status) {
	for _, e := range a.fw.Extenders() {
		if !e.IsBinder() || !e.IsInterested(placed) {
			continue
		}
		err := e.Bind(&v1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: placed.Namespace, Name: placed.Name, UID: placed.UID}, Target: v1.ObjectReference{Kind: "Node", Name: placed.Spec.NodeName}})
		return true, fwk.AsStatus(err)
	}
	return false, nil
}
