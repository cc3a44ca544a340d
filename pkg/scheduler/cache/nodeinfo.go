package cache

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	ndf "k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
)

// NodeInfo is a node with the pods on it, those assumed included, and their sums.
type NodeInfo struct {
	node *v1.Node

	pods                       []fwk.PodInfo
	withAffinity               []fwk.PodInfo
	withAntiAffinity           []fwk.PodInfo
	withNonHostScopedAntiAffin []fwk.PodInfo

	usedPorts        fwk.HostPortInfo
	requested        *Resource
	nonZeroRequested *Resource
	allocatable      *Resource
	imageStates      map[string]*fwk.ImageStateSummary
	imagesVersion    int64 // of the cache, when imageStates were made
	pvcRefCounts     map[string]int
	declaredFeatures ndf.FeatureSet
	generation       int64
}

var _ fwk.NodeInfo = &NodeInfo{}

// NewNodeInfo returns a node that is not known yet, with pods on it.
func NewNodeInfo(pods ...*v1.Pod) *NodeInfo {
	n := &NodeInfo{
		usedPorts:        fwk.HostPortInfo{},
		requested:        &Resource{},
		nonZeroRequested: &Resource{},
		allocatable:      &Resource{},
		imageStates:      map[string]*fwk.ImageStateSummary{},
		pvcRefCounts:     map[string]int{},
	}
	for _, p := range pods {
		info, _ := NewPodInfo(p)
		n.AddPodInfo(info)
	}
	return n
}

// Node returns the node, nil when only its pods are known.
func (n *NodeInfo) Node() *v1.Node {
	if n == nil {
		return nil
	}
	return n.node
}

// GetPods returns the pods on the node.
func (n *NodeInfo) GetPods() []fwk.PodInfo { return n.pods }

// GetPodsWithAffinity returns the pods with any pod affinity or anti-affinity.
func (n *NodeInfo) GetPodsWithAffinity() []fwk.PodInfo { return n.withAffinity }

// GetPodsWithRequiredAntiAffinity returns the pods with required anti-affinity.
func (n *NodeInfo) GetPodsWithRequiredAntiAffinity() []fwk.PodInfo { return n.withAntiAffinity }

// GetPodsWithRequiredNonHostScopedAntiAffinity returns the pods whose required
// anti-affinity reaches beyond their node.
func (n *NodeInfo) GetPodsWithRequiredNonHostScopedAntiAffinity() []fwk.PodInfo {
	return n.withNonHostScopedAntiAffin
}

// GetUsedPorts returns the host ports in use.
func (n *NodeInfo) GetUsedPorts() fwk.HostPortInfo { return n.usedPorts }

// GetRequested returns what the pods ask for together.
func (n *NodeInfo) GetRequested() fwk.Resource { return n.requested }

// GetNonZeroRequested is GetRequested with a small amount for each container that asks for nothing.
func (n *NodeInfo) GetNonZeroRequested() fwk.Resource { return n.nonZeroRequested }

// GetAllocatable returns what the node offers to pods.
func (n *NodeInfo) GetAllocatable() fwk.Resource { return n.allocatable }

// GetImageStates returns the images on the node by name.
func (n *NodeInfo) GetImageStates() map[string]*fwk.ImageStateSummary { return n.imageStates }

// GetPVCRefCounts returns how many pods on the node use each claim, by namespace/name.
func (n *NodeInfo) GetPVCRefCounts() map[string]int { return n.pvcRefCounts }

// GetGeneration grows with each change.
func (n *NodeInfo) GetGeneration() int64 { return n.generation }

// GetNodeDeclaredFeatures returns the features that the node declares (KEP-5328).
func (n *NodeInfo) GetNodeDeclaredFeatures() ndf.FeatureSet { return n.declaredFeatures }

// Snapshot returns a copy that later changes do not reach.
func (n *NodeInfo) Snapshot() fwk.NodeInfo { return n.clone() }

func (n *NodeInfo) clone() *NodeInfo {
	c := *n
	c.pods = slices.Clone(n.pods)
	c.withAffinity = slices.Clone(n.withAffinity)
	c.withAntiAffinity = slices.Clone(n.withAntiAffinity)
	c.withNonHostScopedAntiAffin = slices.Clone(n.withNonHostScopedAntiAffin)
	c.usedPorts = make(fwk.HostPortInfo, len(n.usedPorts))
	for ip, ports := range n.usedPorts {
		c.usedPorts[ip] = maps.Clone(ports)
	}
	c.requested = n.requested.Clone()
	c.nonZeroRequested = n.nonZeroRequested.Clone()
	c.pvcRefCounts = maps.Clone(n.pvcRefCounts)
	return &c // the node, its allocatable and its images are replaced, never changed
}

// String names the node and counts its pods.
func (n *NodeInfo) String() string {
	name := "<unknown>"
	if n.node != nil {
		name = n.node.Name
	}
	return fmt.Sprintf("node %s with %d pods", name, len(n.pods))
}

// AddPodInfo puts a pod on the node.
func (n *NodeInfo) AddPodInfo(p fwk.PodInfo) {
	n.pods = append(n.pods, p)
	if len(p.GetRequiredAffinityTerms())+len(p.GetRequiredAntiAffinityTerms())+
		len(p.GetPreferredAffinityTerms())+len(p.GetPreferredAntiAffinityTerms()) > 0 {
		n.withAffinity = append(n.withAffinity, p)
	}
	if terms := p.GetRequiredAntiAffinityTerms(); len(terms) > 0 {
		n.withAntiAffinity = append(n.withAntiAffinity, p)
		if slices.ContainsFunc(terms, func(t fwk.AffinityTerm) bool { return t.TopologyKey != v1.LabelHostname }) {
			n.withNonHostScopedAntiAffin = append(n.withNonHostScopedAntiAffin, p)
		}
	}
	n.account(p, 1)
}

// RemovePod takes a pod off the node. It is an error if it is not there.
func (n *NodeInfo) RemovePod(_ klog.Logger, pod *v1.Pod) error {
	i := slices.IndexFunc(n.pods, samePod(pod))
	if i < 0 {
		return fmt.Errorf("pod %s is not on %s", klog.KObj(pod), n)
	}
	p := n.pods[i]
	n.pods = deleteUnordered(n.pods, i)
	for _, list := range []*[]fwk.PodInfo{&n.withAffinity, &n.withAntiAffinity, &n.withNonHostScopedAntiAffin} {
		if i := slices.IndexFunc(*list, samePod(pod)); i >= 0 {
			*list = deleteUnordered(*list, i)
		}
	}
	n.account(p, -1)
	return nil
}

func samePod(pod *v1.Pod) func(fwk.PodInfo) bool {
	return func(p fwk.PodInfo) bool { return p.GetPod().UID == pod.UID }
}

func deleteUnordered(list []fwk.PodInfo, i int) []fwk.PodInfo {
	last := len(list) - 1
	list[i] = list[last]
	list[last] = nil
	return list[:last]
}

// account adds (1) or takes away (-1) what a pod uses.
func (n *NodeInfo) account(p fwk.PodInfo, sign int64) {
	res := p.CalculateResource()
	if r, ok := res.Resource.(*Resource); ok {
		n.requested.add(r, sign)
	}
	n.nonZeroRequested.MilliCPU += sign * res.Non0CPU
	n.nonZeroRequested.Memory += sign * res.Non0Mem

	pod := p.GetPod()
	for port := range HostPorts(pod) {
		if sign > 0 {
			n.usedPorts.Add(port.HostIP, string(port.Protocol), port.HostPort)
		} else {
			n.usedPorts.Remove(port.HostIP, string(port.Protocol), port.HostPort)
		}
	}
	for i := range pod.Spec.Volumes {
		name, ok := ClaimName(pod, &pod.Spec.Volumes[i])
		if !ok {
			continue
		}
		key := pod.Namespace + "/" + name
		if n.pvcRefCounts[key] += int(sign); n.pvcRefCounts[key] <= 0 {
			delete(n.pvcRefCounts, key)
		}
	}
	n.generation++
}

// ClaimName returns the claim behind a volume; an ephemeral volume has one named after pod and volume.
func ClaimName(pod *v1.Pod, vol *v1.Volume) (string, bool) {
	switch {
	case vol.PersistentVolumeClaim != nil:
		return vol.PersistentVolumeClaim.ClaimName, true
	case vol.Ephemeral != nil:
		return pod.Name + "-" + vol.Name, true
	}
	return "", false
}

// HostPorts yields the host ports that a pod takes: its containers' and its sidecars',
// which run all along, not those of init containers that end.
func HostPorts(pod *v1.Pod) func(yield func(v1.ContainerPort) bool) {
	return func(yield func(v1.ContainerPort) bool) {
		for i := range pod.Spec.InitContainers {
			c := &pod.Spec.InitContainers[i]
			if c.RestartPolicy == nil || *c.RestartPolicy != v1.ContainerRestartPolicyAlways {
				continue
			}
			if !yieldPorts(c, yield) {
				return
			}
		}
		for i := range pod.Spec.Containers {
			if !yieldPorts(&pod.Spec.Containers[i], yield) {
				return
			}
		}
	}
}

func yieldPorts(c *v1.Container, yield func(v1.ContainerPort) bool) bool {
	for _, p := range c.Ports {
		if p.HostPort > 0 && !yield(p) {
			return false
		}
	}
	return true
}

// SetNode sets the node and what it offers.
func (n *NodeInfo) SetNode(node *v1.Node) {
	n.node = node
	n.allocatable = NewResource(node.Status.Allocatable)
	n.declaredFeatures = ndf.DefaultFramework.TryMap(node.Status.DeclaredFeatures)
	n.generation++
}
