package queue

import (
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// nominator knows the pods that have been promised a node, for which room is being
// made there by preemption.
type nominator struct {
	mu     sync.RWMutex
	byNode map[string][]fwk.PodInfo // lists are replaced, never changed: others read them
	nodeOf map[types.UID]string
}

var _ fwk.PodNominator = &nominator{}

func newNominator() *nominator {
	return &nominator{byNode: map[string][]fwk.PodInfo{}, nodeOf: map[types.UID]string{}}
}

// AddNominatedPod records a promise: the given one, or that in the pod's status.
func (n *nominator) AddNominatedPod(_ klog.Logger, pod fwk.PodInfo, info *fwk.NominatingInfo) {
	n.nominate(pod, info)
}

func (n *nominator) nominate(pod fwk.PodInfo, info *fwk.NominatingInfo) {
	node := pod.GetPod().Status.NominatedNodeName
	if info.Mode() == fwk.ModeOverride {
		node = info.NominatedNodeName
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remove(pod.GetPod().UID)
	if node == "" {
		return
	}
	n.nodeOf[pod.GetPod().UID] = node
	n.byNode[node] = append(slices.Clip(n.byNode[node]), pod)
}

// PromisedNode returns the node that a pod is promised; empty if none.
func (n *nominator) PromisedNode(uid types.UID) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.nodeOf[uid]
}

// DeleteNominatedPodIfExists takes a promise back.
func (n *nominator) DeleteNominatedPodIfExists(pod *v1.Pod) { n.denominate(pod.UID) }

func (n *nominator) denominate(uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remove(uid)
}

// UpdateNominatedPod keeps the promise for a pod that changed. One that stands here
// only, because its status has not been written yet, stays.
func (n *nominator) UpdateNominatedPod(_ klog.Logger, old *v1.Pod, pod fwk.PodInfo) {
	n.renominate(old, pod)
}

func (n *nominator) renominate(old *v1.Pod, pod fwk.PodInfo) {
	n.mu.RLock()
	promised := n.nodeOf[pod.GetPod().UID]
	n.mu.RUnlock()
	var info *fwk.NominatingInfo
	if promised != "" && old != nil && old.Status.NominatedNodeName == pod.GetPod().Status.NominatedNodeName {
		info = &fwk.NominatingInfo{NominatingMode: fwk.ModeOverride, NominatedNodeName: promised}
	}
	n.nominate(pod, info)
}

// NominatedPodsForNode returns the pods that have been promised a node.
func (n *nominator) NominatedPodsForNode(node string) []fwk.PodInfo {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Clip(n.byNode[node])
}

// Promised returns, by node, the pods that nodes have been promised to and that count.
func (n *nominator) Promised(counts func(fwk.PodInfo) bool) map[string][]fwk.PodInfo {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out map[string][]fwk.PodInfo
	for node, pods := range n.byNode {
		if pods = which(pods, counts); len(pods) == 0 {
			continue
		}
		if out == nil {
			out = make(map[string][]fwk.PodInfo, len(n.byNode))
		}
		out[node] = pods
	}
	return out
}

// which returns the pods that count, the same list if all do.
func which(pods []fwk.PodInfo, counts func(fwk.PodInfo) bool) []fwk.PodInfo {
	not := slices.IndexFunc(pods, func(p fwk.PodInfo) bool { return !counts(p) })
	if not < 0 {
		return slices.Clip(pods)
	}
	out := slices.Clone(pods[:not])
	for _, p := range pods[not:] {
		if counts(p) {
			out = append(out, p)
		}
	}
	return out
}

// TakePromisesOf copies the promises that another queue knows of.
func (n *nominator) TakePromisesOf(other *Queue) {
	other.nominator.mu.RLock()
	defer other.nominator.mu.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for node, pods := range other.byNode {
		n.byNode[node] = slices.Clip(pods)
		for _, p := range pods {
			n.nodeOf[p.GetPod().UID] = node
		}
	}
}

func (n *nominator) remove(uid types.UID) {
	node, ok := n.nodeOf[uid]
	if !ok {
		return
	}
	delete(n.nodeOf, uid)
	n.byNode[node] = which(n.byNode[node], func(p fwk.PodInfo) bool { return p.GetPod().UID != uid })
	if len(n.byNode[node]) == 0 {
		delete(n.byNode, node)
	}
}
